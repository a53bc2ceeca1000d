"""What an actor process does: it plays with the newest policy that it was given, and gives what has ended."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

import twohot
from twohot.config import TrainConfig
from twohot.config.files import from_json
from twohot.data.rollout import Rollout, Trial, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.extras import package
from twohot.replay import Replay
from twohot.spaces import as_dict_space, space_to_json
from twohot.training.build import make_environments, make_exploration
from twohot.training.publication import Message, unpack

ACTOR_STREAM = 6
"""Of a run's seed (a spawn key of numpy's SeedSequence): networks, policy and exploration of actors."""
OPEN_STEPS = 2**40
"""Capacity of what an actor holds for a moment: nothing is ever evicted."""


@dataclass(frozen=True)
class Place:
    """Which actor this is.

    Attributes:
        actor, actors: its number among those of all learners, and how many there are.
        since, life: the run's environment steps when its learner began, and how many there were in its place since
            then: no two repeat each other's random numbers.
    """

    actor: int
    actors: int
    since: int
    life: int

    @property
    def stream(self) -> tuple[int, ...]:
        """What begins the spawn keys of its random streams."""
        return ACTOR_STREAM, self.actor, self.since, self.life


@dataclass(frozen=True)
class Block:
    """What an actor has done in one call.

    Attributes:
        version: of the policy that it began with. steps: environment steps. seconds: that they took.
        trials: those that have ended. columns: their trajectories, as `Replay.extend` takes them.
    """

    version: int
    steps: int
    seconds: float
    trials: list[Trial]
    columns: dict[str, Any]


def part(config: TrainConfig) -> TrainConfig:
    """The configuration of one actor."""
    environments = config.collect.environments // config.actors
    return replace(config, actors=0, collect=replace(config.collect, environments=environments, workers="in-process"))


class Actor:
    """Environments, a `Rollout`, and room for what has been played since the last call.

    Args:
        config: of the whole run, as JSON values. place: which actor it is.
    """

    def __init__(self, config: dict[str, Any], place: Place) -> None:
        torch.set_num_threads(1)
        self._config = from_json(TrainConfig, config)
        mine = part(self._config)
        _, environments = make_environments(mine, (place.actor, place.actors))
        self._environments, self._place = environments, place
        torch.manual_seed(seeded_generator(self._config.seed, *place.stream).initial_seed())
        observation, action = as_dict_space(environments.single_observation_space), environments.single_action_space
        self._spaces = [space_to_json(space) for space in (observation, action)]
        self._replay = Replay.create(replay_schema(observation, action), capacity_steps=OPEN_STEPS)
        self._exploration = make_exploration(mine, action, place.stream)
        self._version = -1
        self._rollout: Rollout | None = None

    def describe(self) -> dict[str, Any]:
        """What has to fit that of the learner, and where this is."""
        return {
            "twohot": twohot.__version__,
            "python": sys.version.split()[0],
            "spaces": self._spaces,
            "host": socket.gethostname(),
        }

    def collect(self, steps: int, seconds: float, environment_steps: int, version: int, policy: Sequence[Any]) -> Block:
        """Take at most `steps` steps in every environment, and none that begins after `seconds`.

        Args:
            environment_steps: taken so far by all actors, by which the exploration is scheduled.
            version: of the newest policy. policy: its `Message`, or Ray's reference to it, which is asked for it once.
        """
        rollout = self._ready(version, policy)
        rollout.environment_steps = environment_steps
        began = perf_counter()
        trials = rollout.collect(steps, lambda: perf_counter() - began >= seconds)
        taken = (rollout.environment_steps - environment_steps) // self._place.actors
        return Block(version, taken, perf_counter() - began, trials, self._replay.drain())

    def _ready(self, version: int, policy: Sequence[Any]) -> Rollout:
        """What plays, with this policy; begun where it has not."""
        rollout, own = self._rollout, self._environments.num_envs
        if rollout is not None and version == self._version:
            return rollout
        (sent,) = policy
        frozen = unpack(sent if isinstance(sent, Message) else package("ray", "ray", "--actors").get(sent))
        self._version = version
        if rollout is not None:
            rollout.policy = frozen
            return rollout
        self._rollout = rollout = Rollout(
            self._environments,
            frozen,
            generator=seeded_generator(self._config.seed, *self._place.stream, 0),
            writer=self._replay.writer(own),
            exploration=self._exploration,
            rollouts=self._place.actors,
        )
        seeds = np.random.SeedSequence(self._config.seed, spawn_key=(*self._place.stream, 1))
        rollout.restart(seeds.generate_state(own, np.uint64).tolist())
        return rollout

    def close(self) -> None:
        """End the environments."""
        self._environments.close()
