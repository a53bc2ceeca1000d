"""Environments: a registry of suites, wrappers that bring tasks to one shape, and trials for many actors.

Importing this package imports no suite's own packages.
"""

from twohot.envs.multitask import CONTEXT_FEATURES, TrialEnv, common_sizes
from twohot.envs.popgym import MULTITASK_27, MULTITASK_27_PROTOCOL, POPGYM
from twohot.envs.registry import (
    MissingExtraError,
    NonFiniteError,
    Suite,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    check_tasks,
    get_suite,
    make_task,
    register,
    suites,
)
from twohot.envs.vector import make_vector, reset_seeds, reset_where
from twohot.envs.wrappers import (
    Attempts,
    FlatDiscreteAction,
    OneHotObservation,
    PadActions,
    PadObservation,
    ScaleReward,
    TimeLimitTerminates,
)

register(POPGYM)

__all__ = [
    "CONTEXT_FEATURES",
    "MULTITASK_27",
    "MULTITASK_27_PROTOCOL",
    "POPGYM",
    "Attempts",
    "FlatDiscreteAction",
    "MissingExtraError",
    "NonFiniteError",
    "OneHotObservation",
    "PadActions",
    "PadObservation",
    "ScaleReward",
    "Suite",
    "TimeLimitTerminates",
    "TrialEnv",
    "UnknownEnvironmentError",
    "UnsupportedSpaceError",
    "check_tasks",
    "common_sizes",
    "get_suite",
    "make_task",
    "make_vector",
    "register",
    "reset_seeds",
    "reset_where",
    "suites",
]
