"""Environments: a registry of suites, wrappers that bring tasks to one shape, and trials for many actors.

Importing this package imports no suite's own packages.
"""

import twohot.extras.needs_gymnasium  # noqa: F401
from twohot._moved import renamed_attributes
from twohot.envs import suites as _suites
from twohot.envs.checked import Checked
from twohot.envs.errors import ActionError, InfoError, ObservationError, UnsupportedSpaceError
from twohot.envs.observations import ObservationReader, SeenObservation
from twohot.envs.registry import (
    NonFiniteError,
    Suite,
    UnknownEnvironmentError,
    check_split,
    check_tasks,
    get_suite,
    installed_by,
    make_task,
    names_suite,
    plain_name,
    register,
    registered_suites,
    split_name,
)
from twohot.envs.suites.popgym import MULTITASK_27, MULTITASK_27_PROTOCOL
from twohot.envs.vector.batched_trials import BatchedTrials
from twohot.envs.vector.make import make_vector, reset_seeds, reset_where
from twohot.envs.vector.python_batch import PythonBatch
from twohot.envs.vector.serial import INTERRUPTED, SerialEnvironments
from twohot.envs.vector.trial_vector import TrialEnvironments, TrialVector, WorkerChoice
from twohot.envs.vector.workers import DeadWorkerError, WorkerError, Workers
from twohot.envs.wrappers.actions import (
    PadActions,
    PadBinary,
    PadChoices,
    RescaleActions,
    common_action_space,
    pad_actions,
)
from twohot.envs.wrappers.attempts import Attempts
from twohot.envs.wrappers.basic import FlatDiscreteAction, ScaleReward, TimeLimitTerminates
from twohot.envs.wrappers.layout import Layout, common_layout, layout_of, task_spaces
from twohot.envs.wrappers.one_hot import OneHotObservation
from twohot.envs.wrappers.padding import PadObservation, PadParts, common_observation_space
from twohot.envs.wrappers.trial import CONTEXT_FEATURES, TrialEnv
from twohot.errors import BrokenEnvironmentError
from twohot.extras import (
    MissingExtraError,
)
from twohot.spaces import ACTION_MASK

for _suite in _suites.found():
    register(_suite)

__all__ = [
    "ACTION_MASK",
    "CONTEXT_FEATURES",
    "INTERRUPTED",
    "MULTITASK_27",
    "MULTITASK_27_PROTOCOL",
    "ActionError",
    "Attempts",
    "BatchedTrials",
    "BrokenEnvironmentError",
    "Checked",
    "DeadWorkerError",
    "FlatDiscreteAction",
    "InfoError",
    "Layout",
    "MissingExtraError",
    "NonFiniteError",
    "ObservationError",
    "ObservationReader",
    "OneHotObservation",
    "PadActions",
    "PadBinary",
    "PadChoices",
    "PadObservation",
    "PadParts",
    "PythonBatch",
    "RescaleActions",
    "ScaleReward",
    "SeenObservation",
    "SerialEnvironments",
    "Suite",
    "TimeLimitTerminates",
    "TrialEnv",
    "TrialEnvironments",
    "TrialVector",
    "UnknownEnvironmentError",
    "UnsupportedSpaceError",
    "WorkerChoice",
    "WorkerError",
    "Workers",
    "check_split",
    "check_tasks",
    "common_action_space",
    "common_layout",
    "common_observation_space",
    "get_suite",
    "installed_by",
    "layout_of",
    "make_task",
    "make_vector",
    "names_suite",
    "pad_actions",
    "plain_name",
    "register",
    "registered_suites",
    "reset_seeds",
    "reset_where",
    "split_name",
    "task_spaces",
]

__getattr__ = renamed_attributes(__name__, LOST="INTERRUPTED", Rows="SerialEnvironments")
