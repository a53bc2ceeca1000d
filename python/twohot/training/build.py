"""What a run is made of, as its configuration names it: environments, networks, exploration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from gymnasium import Space
from torch import nn

from twohot.agent import AgentNetworks, Member, MixedNetworks
from twohot.config import AgentConfig, ConfigurationError, TrainConfig
from twohot.data.spaces import agent_layout
from twohot.envs import Layout, TrialEnvironments, check_split, make_vector
from twohot.rl.exploration import Exploration, Schedule
from twohot.spaces import SpaceError

EXPLORATION_STREAM = 2
"""Of a run's seed (a spawn key of numpy's SeedSequence)."""


def make_environments(
    config: TrainConfig, place: tuple[int, int] = (0, 1), layout: Layout | None = None
) -> tuple[Layout, TrialEnvironments]:
    """The actors that collect, and the spaces that they share with every evaluation; `place` as for `make_vector`.

    Args:
        layout: these spaces, where they are known already.

    Raises:
        ConfigurationError: when there are none such.
    """
    try:
        layout = layout or agent_layout(config.environment, config.evaluate)
        collect = config.collect
        vector = make_vector(
            **config.environment.vector_arguments(),
            environments=collect.environments,
            layout=layout,
            assignment=collect.assignment,
            workers=collect.workers,
            place=place,
        )
    except (ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, ValueError) and type(error) is not ValueError:
            raise
        raise ConfigurationError(f"environment: {error or 'too large for this machine'}") from error
    if collect.epsilon_where == "asked" and getattr(vector, "explore", None) is None:
        vector.close()
        raise ConfigurationError(
            f"collect.epsilon_where: nothing in {config.environment.suite} asks for exploration, at least not in "
            "environments that are stepped like these: leave it at everywhere"
        )
    for split in config.evaluate.splits:
        check_split(config.environment.suite, split)
    return layout, vector


def make_networks(
    config: AgentConfig,
    observation_space: Space,
    action_space: Space,
    device: torch.device,
    *,
    predicts: bool = False,
) -> AgentNetworks:
    """An agent on a device, in eval mode.

    Raises:
        ConfigurationError: for a space that it does not take, or sizes beyond this machine.
    """
    return _built(partial(AgentNetworks, config, observation_space, action_space, predicts=predicts), device)


def make_mixed_networks(
    config: AgentConfig, members: Mapping[str, Member], device: torch.device, *, predicts: bool = False
) -> MixedNetworks:
    """As `make_networks`, of several domains."""
    return _built(partial(MixedNetworks, config, members, predicts=predicts), device)


Networks = TypeVar("Networks", bound=nn.Module)


def _built(make: Callable[[], Networks], device: torch.device) -> Networks:
    try:
        return make().to(device).eval()
    except SpaceError as error:
        raise ConfigurationError(f"environment.tasks: {error}") from error
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        if _too_large(error):
            raise ConfigurationError(f"agent: too large for this machine ({error!r:.200})") from error
        raise


def _too_large(error: Exception) -> bool:
    """Whether this is what torch and Python say of a size for which there is no memory, or no number."""
    known = ("allocate memory", "out of memory", "Overflow when unpacking", "negative dimension", "numel")
    return isinstance(error, (MemoryError, OverflowError)) or any(words in str(error) for words in known)


def make_exploration(config: TrainConfig, action_space: Space, stream: tuple[int, ...] = ()) -> Exploration:
    """The noise on the actors' actions; `stream` ends the spawn key of its random numbers."""
    collect = config.collect
    return Exploration(
        collect.environments,
        action_space,
        Schedule(
            *(collect.epsilon_start, collect.epsilon_end, collect.epsilon_steps),
            *(collect.trial_epsilon_start, collect.trial_epsilon_end, collect.trial_epsilon_steps),
        ),
        np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(EXPLORATION_STREAM, *stream))),
        collect.randomize_epsilon,
        collect.flip_probability,
        collect.flip_steps,
        collect.epsilon_duration,
        asked=collect.epsilon_where == "asked",
    )
