"""Environments: a registry of suites, wrappers that bring tasks to one shape, and trials for many actors.

Importing this package imports no suite's own packages.
"""

from twohot.conventions import ACTION_MASK
from twohot.envs import babyai, dark_key, frozen_lake, gym_vector, gymnasium, half_cheetah, maze_runner, tmaze
from twohot.envs.actions import PadActions, PadBinary, PadChoices, RescaleActions, common_action_space, pad_actions
from twohot.envs.atari import ATARI
from twohot.envs.attempts import Attempts
from twohot.envs.batched_trials import BatchedTrials
from twohot.envs.checked import Checked
from twohot.envs.errors import ActionError, InfoError, ObservationError, UnsupportedSpaceError
from twohot.envs.layout import Layout, common_layout
from twohot.envs.metaworld import METAWORLD
from twohot.envs.multitask import CONTEXT_FEATURES, TrialEnv
from twohot.envs.observations import ObservationReader, SeenObservation
from twohot.envs.one_hot import OneHotObservation
from twohot.envs.padding import PadObservation, PadParts, common_observation_space
from twohot.envs.popgym import MULTITASK_27, MULTITASK_27_PROTOCOL, POPGYM
from twohot.envs.procgen import PROCGEN
from twohot.envs.python_batch import PythonBatch
from twohot.envs.registry import (
    MissingExtraError,
    NonFiniteError,
    Suite,
    UnknownEnvironmentError,
    check_split,
    check_tasks,
    get_suite,
    make_task,
    register,
    suites,
)
from twohot.envs.retro import RETRO
from twohot.envs.rows import LOST, Rows
from twohot.envs.trial_vector import TrialVector, WorkerChoice
from twohot.envs.vector import make_vector, reset_seeds, reset_where
from twohot.envs.workers import DeadWorkerError, WorkerError, Workers
from twohot.envs.wrappers import FlatDiscreteAction, ScaleReward, TimeLimitTerminates
from twohot.errors import BrokenEnvironmentError

for _suite in (
    POPGYM,
    METAWORLD,
    PROCGEN,
    ATARI,
    RETRO,
    frozen_lake.SUITE,
    dark_key.SUITE,
    tmaze.SUITE,
    half_cheetah.SUITE,
    maze_runner.SUITE,
    babyai.SUITE,
    gymnasium.SUITE,
    gym_vector.SUITE,
):
    register(_suite)

__all__ = [
    "ACTION_MASK",
    "ATARI",
    "CONTEXT_FEATURES",
    "LOST",
    "METAWORLD",
    "MULTITASK_27",
    "MULTITASK_27_PROTOCOL",
    "POPGYM",
    "PROCGEN",
    "RETRO",
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
    "Rows",
    "ScaleReward",
    "SeenObservation",
    "Suite",
    "TimeLimitTerminates",
    "TrialEnv",
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
    "make_task",
    "make_vector",
    "pad_actions",
    "register",
    "reset_seeds",
    "reset_where",
    "suites",
]
