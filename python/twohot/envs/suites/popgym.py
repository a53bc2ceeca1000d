"""POPGym (Morad et al., ICLR 2023, arXiv 2303.01859): 42 small games that need memory.

Needs popgym 1.0.6: later versions change the action count of CountRecall, and with it the 27-task protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import gymnasium as gym

from twohot.envs.registry import Suite
from twohot.envs.wrappers.basic import FlatDiscreteAction, TimeLimitTerminates
from twohot.envs.wrappers.one_hot import OneHotObservation

_LEVELS = ("Easy", "Medium", "Hard")


def _at_all_levels(*games: str) -> tuple[str, ...]:
    return tuple(game + level for game in games for level in _LEVELS)


# POPGym's own spelling: VelocityOnlyCartpole, but PositionOnlyCartPole.
TASKS = _at_all_levels(
    "Autoencode",
    "Battleship",
    "Concentration",
    "CountRecall",
    "HigherLower",
    "MineSweeper",
    "MultiarmedBandit",
    "NoisyPositionOnlyCartPole",
    "NoisyPositionOnlyPendulum",
    "PositionOnlyCartPole",
    "PositionOnlyPendulum",
    "RepeatFirst",
    "RepeatPrevious",
    "VelocityOnlyCartpole",
)

# The tasks of AMAGO-2's Multi-Task POPGym; none has more than 26 actions.
MULTITASK_27 = (
    *_at_all_levels(
        "Autoencode",
        "RepeatPrevious",
        "RepeatFirst",
        "CountRecall",
        "PositionOnlyCartPole",
        "VelocityOnlyCartpole",
        "NoisyPositionOnlyCartPole",
        "HigherLower",
    ),
    "MultiarmedBanditEasy",
    "MultiarmedBanditMedium",
    "MineSweeperEasy",
)

# Arguments of `make_vector` for that benchmark: 26 observation entries and 4 features, 26 actions,
# a first attempt whose reward is shown but not counted, then one that counts.
MULTITASK_27_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        "suite": "popgym",
        "tasks": MULTITASK_27,
        "attempts": 2,
        "unscored_attempts": 1,
        "observation_size": 26,
        "actions": 26,
        "context_features": True,
    }
)


def make_popgym(task: str, split: str, render: bool = False) -> gym.Env:
    """One POPGym game: one-hot observation, a Discrete or (Pendulum) Box action, a time limit that terminates.

    The game's clock is part of its rules (AMAGO's code treats truncation as termination too).

    Args:
        task: one of `TASKS`. split: of no effect. render: of no effect, for POPGym 1.0.6 draws no images.
    """
    env = _classes()[task]()
    # Wrappers only where they change something: each costs 0.3 microseconds a step, a game 2 to 8.
    if isinstance(env.action_space, gym.spaces.MultiDiscrete):
        env = FlatDiscreteAction(env)
    if not isinstance(env.observation_space, gym.spaces.Box):
        env = OneHotObservation(env)
    return TimeLimitTerminates(env)


@cache
def _classes() -> dict[str, type[gym.Env]]:
    from popgym.envs import ALL

    games = cast("dict[type[gym.Env], dict[str, str]]", ALL)
    return {keywords["id"].removeprefix("popgym-").removesuffix("-v0"): game for game, keywords in games.items()}


SUITE = Suite(
    name="popgym",
    summary="POPGym: 42 small games that need memory (cards, bandits, mines, masked control).",
    requires=("popgym",),
    install="pip install 'twohot[popgym]'",
    tasks=TASKS,
    make=make_popgym,
)
