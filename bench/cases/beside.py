"""A learner and its actors in this process and Ray's, which work alone or beside each other."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from gymnasium import Space, spaces

import twohot
from bench.cases.processes import cpu_seconds, descendants, thread_seconds
from bench.harness.group import ROOT
from twohot.config import CollectConfig, RayConfig, TrainConfig
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.presets import PRESETS
from twohot.replay import Batch, Replay, Schema
from twohot.spaces import as_dict_space, space_to_json
from twohot.training import actor_pool
from twohot.training.actor import Block, Place
from twohot.training.actors import Actors
from twohot.training.build import make_environments, make_networks
from twohot.training.cluster import cluster

FREE = RayConfig(cpus_per_actor=0.1, max_ahead=math.inf, max_behind=math.inf, max_lag=10**6, stuck_seconds=10**6)
"""Nobody waits for anybody."""
QUIET_SECONDS = 3 * FREE.block_seconds
"""After which nothing is on its way any more."""
LENGTH = 250
"""Steps of a ready-made trajectory."""
VECTOR = spaces.Box(-np.inf, np.inf, (16,), np.float32)
IMAGE = spaces.Box(0, 255, (64, 64, 3), np.uint8)
ACTIONS = spaces.Discrete(6)


@dataclass(frozen=True)
class Offer:
    """What each fake actor brings: calls a second, and trajectories of `LENGTH` steps in a call."""

    calls: float
    trajectories: int


def trajectories(schema: Schema, count: int, length: int = LENGTH) -> dict[str, Any]:
    """Columns of random trajectories, as `Replay.extend` takes them."""
    stream = np.random.default_rng(0)
    replay = Replay.create(schema, capacity_steps=count * length)
    ends = np.arange(length) == length - 1
    for _ in range(count):
        observation = {
            name: stream.integers(256, size=(length + 1, *field.shape)).astype(field.dtype)
            for name, field in schema.observation.items()
        }
        action = stream.integers(2, size=(length, *schema.action.shape)).astype(schema.action.dtype)
        replay.add(observation, action, stream.random(length, np.float32), ends, np.zeros(length, bool))
    return replay.drain()


def fake_actor(schema: Schema, offer: Offer) -> type:
    """A class like `Actor`, whose processes play nothing: each call gives the same block when it is due."""

    class Actor:  # what is defined here is sent to the processes by value
        def __init__(self, config: dict[str, Any], place: Place) -> None:
            self._place, self._due = place, time.perf_counter()
            self._columns = trajectories(schema, offer.trajectories) if offer.trajectories else _no_columns(schema)

        def describe(self) -> dict[str, Any]:
            return {"twohot": twohot.__version__, "spaces": None, "host": "", "python": ""}

        def collect(self, steps: int, seconds: float, environment_steps: int, version: int, policy: Any) -> Block:
            began = time.perf_counter()
            self._due = max(self._due + 1 / offer.calls, began)
            time.sleep(self._due - began)
            return Block(version, offer.trajectories * LENGTH, 1 / offer.calls, [], self._columns)

        def close(self) -> None:
            pass

    return Actor


def _no_columns(schema: Schema) -> dict[str, Any]:
    replay = Replay.create(schema, capacity_steps=1)
    return replay.drain()


class Counted(Actors):
    """Actors whose answers are counted."""

    answers = 0

    def _store_block(self, actor: int, block: Block) -> None:
        super()._store_block(actor, block)
        self.answers += 1


class Beside:
    """A learner with a replay and actors.

    Args:
        config: of the run, with actors. space: of observations where the actors are fake; else of the environments.
        offer: what fake actors bring; None: real ones play. of_actors: a class in the place of `Counted`.
    """

    def __init__(
        self,
        config: TrainConfig,
        space: Space[Any] | None = None,
        offer: Offer | None = None,
        of_actors: type[Counted] = Counted,
    ) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(0)
        self.config = config
        if space is None:
            one = replace(config, actors=0, collect=replace(config.collect, environments=1, workers="in-process"))
            _, environments = make_environments(one)
            observation, action = environments.single_observation_space, environments.single_action_space
            environments.close()
        else:
            observation, action = as_dict_space(space), ACTIONS
        self.agent = make_networks(config.agent, observation, action, torch.device("cpu"))
        self.learner = Learner(self.agent, config.objective, config.optimizer)
        self.schema = replay_schema(self.agent.observation_space, self.agent.action_space)
        self.replay = Replay.create(self.schema, capacity_steps=config.replay.capacity_steps, threads=1)
        self._batches: Iterator[Batch] | None = None
        self._stack = ExitStack()
        self._stack.enter_context(started(config))
        if offer is not None:
            fake = fake_actor(self.schema, offer)
            self._stack.enter_context(mock.patch.object(actor_pool, "Actor", fake))
        known = (
            None if offer else [space_to_json(each) for each in (self.agent.observation_space, self.agent.action_space)]
        )
        self.actors = of_actors(config, self.agent, self.replay, 0, 0, 1, known)
        self._stack.enter_context(closing(self.actors))

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self.replay.close()

    def fill(self) -> None:
        """Let the actors play until there is something to learn from, and take the first updates."""
        self.actors.allow(math.inf)
        self.actors.wait(1, lambda: False)
        self.rates(1.0, learns=True, collects=False)

    def rates(self, seconds: float, *, learns: bool, collects: bool) -> dict[str, float]:
        """`updates`, `steps`, `bytes` and `calls` a second, over some time; CPU seconds a second: `busy` of the actors'
        thread, `machine` of this process and Ray's, but not of the actors' processes.
        """
        self.actors.allow(math.inf if collects else 0)
        time.sleep(QUIET_SECONDS)
        self.actors.take()
        began, steps, updates = time.perf_counter(), self.actors.steps, 0
        busy, machine, calls = self._thread_seconds(), self._machine_seconds(), self.actors.answers
        while (passed := time.perf_counter() - began) < seconds:
            if learns:
                self._update()
                updates += 1
            else:
                time.sleep(min(0.05, seconds - passed))
        passed = time.perf_counter() - began
        _, metrics = self.actors.take()
        return {
            "updates": updates / passed,
            "steps": (self.actors.steps - steps) / passed,
            "bytes": metrics["actors/received_per_second"],
            "calls": (self.actors.answers - calls) / passed,
            "busy": (self._thread_seconds() - busy) / passed,
            "machine": (self._machine_seconds() - machine) / passed,
        }

    def _update(self) -> None:
        if self._batches is None:
            config = self.config
            self._batches = self.replay.loader(config.batch_size, config.window, batches=10**9, torch=True)
        self.learner.step(next(self._batches))

    def _thread_seconds(self) -> float:
        return thread_seconds(self.actors._thread.native_id or 0)

    def _machine_seconds(self) -> float:
        others = [number for number, command in descendants(os.getpid()).items() if not command.startswith("ray::")]
        return sum(map(cpu_seconds, [os.getpid(), *others]))


@contextmanager
def started(config: TrainConfig) -> Iterator[None]:
    """Within, there is a Ray for these actors, whose processes find this package too; what is within takes the same."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(paths)}), cluster(config):
        yield


def fake_config(preset: str, actors: int, capacity: int) -> TrainConfig:
    """A run of fake actors, whose learner is that of a preset."""
    config = PRESETS[preset].config
    return replace(
        config,
        actors=actors,
        threads=1,
        device="cpu",
        collect=CollectConfig(environments=actors),
        replay=replace(config.replay, capacity_steps=capacity, storage="memory"),
        ray=FREE,
    )
