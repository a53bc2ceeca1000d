"""What a learner and its actors cost each other, what a learner takes in, and how long a policy is on its way."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench.cases.beside import FREE, IMAGE, LENGTH, VECTOR, Beside, Counted, Offer, fake_config
from bench.cases.marked_trials import STEP_SECONDS, TASK
from bench.harness.compare import Figures, Goal, goal_rows
from bench.harness.measure import Row, percentiles
from twohot.config import AgentConfig, EnvironmentConfig, TrainConfig
from twohot.presets import PRESETS
from twohot.training.actor import Block
from twohot.training.publication import PolicyNetworks

ROUNDS = 4
AGENT = AgentConfig(width=512, layers=3, feed_forward=2048, context=64)
"""Of 10 M parameters that act."""
LEARNS, COLLECTS, BOTH = "learning alone", "collecting alone", "both"
PHASES = {LEARNS: (True, False), COLLECTS: (False, True), BOTH: (True, True)}


class Goals:
    """Goals of one shape, and the figures that they are held against."""

    def __init__(self, shape: str, *goals: Goal) -> None:
        self.shape, self.goals = shape, goals
        self.figures = Figures()

    def add(self, name: str, values: list[float]) -> None:
        """Figures of a goal's `one`."""
        self.figures.values[name] = values

    def rows(self) -> list[Row]:
        """A row for each goal."""
        return goal_rows(self, "actors", 1, self.figures, Figures())


def row(case: str, provider: str, values: Any, unit: str, shape: str = "") -> Row:
    """Percentiles of some figures."""
    return Row(case, provider, "actors", *percentiles(np.array(values, float)), unit, shape)


def _in_turn(beside: Beside, seconds: float) -> dict[str, list[dict[str, float]]]:
    """Rates of each phase, in rounds."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PHASES}
    for _ in range(ROUNDS):
        for name, (learns, collects) in PHASES.items():
            found[name].append(beside.rates(seconds, learns=learns, collects=collects))
    return found


def _shares(found: dict[str, list[dict[str, float]]], what: str, alone: str) -> list[float]:
    """Of each round, what there is of a rate where both work, of what there is of it alone."""
    return [both[what] / one[what] for both, one in zip(found[BOTH], found[alone], strict=True)]


def _beside(case: str, config: TrainConfig, at_least: float, seconds: float) -> list[Row]:
    """Rates alone and beside each other, and the goals for their ratios."""
    with Beside(config) as beside:
        beside.fill()
        found = _in_turn(beside, seconds)
    updates, steps = f"updates/s beside actors: {case}", f"environment steps/s beside a learner: {case}"
    goals = Goals(case, Goal(updates, updates, 1.0, at_least=at_least), Goal(steps, steps, 1.0, at_least=at_least))
    goals.add(updates, _shares(found, "updates", LEARNS))
    goals.add(steps, _shares(found, "steps", COLLECTS))
    names = {LEARNS: ("updates",), COLLECTS: ("steps",), BOTH: ("updates", "steps")}
    units = {"updates": "updates/s", "steps": "environment steps/s"}
    measured = [
        row(f"beside: {case}", name, [each[what] for each in found[name]], units[what], case)
        for name, whats in names.items()
        for what in whats
    ]
    return [*measured, *goals.rows()]


def actors_that_sleep() -> list[Row]:
    """Four actors, whose environment sleeps 2 ms a step, beside a learner: a minute and a half."""
    os.environ[STEP_SECONDS] = "0.002"
    config = PRESETS["gym-small"].config
    config = replace(
        config,
        actors=4,
        threads=1,
        device="cpu",
        environment=EnvironmentConfig(suite="gym", tasks=(TASK,)),
        collect=replace(config.collect, environments=4),
        ray=FREE,
    )
    return _beside("4 actors that sleep 2 ms a step", config, 0.9, 6.0)


def actors_of_procgen() -> list[Row]:
    """One actor with eight games of Procgen beside a learner, a core each: two minutes."""
    config = PRESETS["procgen-small"].config
    config = replace(config, actors=1, threads=1, device="cpu", ray=FREE)
    return _beside("Procgen, a core each", config, 0.8, 8.0)


def _taken_in(kind: str, config: TrainConfig, space: Any, offer: Offer, least: Goal, per: float, seconds: float):
    """What a learner takes in from fake actors, and by how much its updates are slower meanwhile."""
    what = "steps" if least.unit == "steps/s" else "bytes"
    steps = offer.calls * offer.trajectories * LENGTH * config.actors
    shape = f"{kind}, trajectories of {LENGTH} steps, {offer.trajectories} in an object, {steps:,.0f} steps/s offered"
    with Beside(config, space, offer) as beside:
        beside.fill()
        found = _in_turn(beside, seconds)
    slower = f"updates slow down: {kind}"
    goals = Goals(shape, least, Goal(slower, slower, 1.0, at_most=1.2))
    goals.add(least.one, [each[what] * per for each in found[BOTH]])
    goals.add(slower, [1 / share for share in _shares(found, "updates", LEARNS)])
    case = f"taken in: {kind}"
    return [
        row(case, "steps", [each["steps"] for each in found[BOTH]], "steps/s", shape),
        row(case, "bytes", [each["bytes"] / 1e6 for each in found[BOTH]], "MB/s", shape),
        row(case, "the actors' thread is busy", [each["busy"] for each in found[BOTH]], "share", shape),
        row(case, LEARNS, [each["updates"] for each in found[LEARNS]], "updates/s", shape),
        row(case, BOTH, [each["updates"] for each in found[BOTH]], "updates/s", shape),
        *goals.rows(),
    ]


def vectors_taken_in() -> list[Row]:
    """Trajectories of vectors from two fake actors into a replay whose learner learns: a minute and a half."""
    name = "vector steps taken in from fake actors"
    goal = Goal(name, name, 1.0, at_least=100_000, unit="steps/s")
    return _taken_in("vectors", fake_config("quickstart", 2, 500_000), VECTOR, Offer(5.0, 44), goal, 1.0, 6.0)


def images_taken_in() -> list[Row]:
    """Trajectories of images from two fake actors into a replay whose learner learns: two minutes."""
    name = "images taken in from fake actors"
    goal = Goal(name, name, 1.0, at_least=250, unit="MB/s")
    config = replace(fake_config("procgen-small", 2, 40_000), batch_size=4)
    return _taken_in("images of 64 x 64 x 3", config, IMAGE, Offer(5.0, 9), goal, 1e-6, 8.0)


class Watched(Counted):
    """Actors that note when each has begun to act with each policy."""

    def __init__(self, *arguments: Any) -> None:
        self.acted: dict[int, dict[int, float]] = {}
        super().__init__(*arguments)

    def _store_block(self, actor: int, block: Block) -> None:
        if block.steps:
            self.acted.setdefault(block.version, {}).setdefault(actor, time.perf_counter() - block.seconds)
        super()._store_block(actor, block)


def publication() -> list[Row]:
    """A policy of 10 M parameters on its way to 16 actors, whose environment sleeps 20 ms a step: two minutes."""
    os.environ[STEP_SECONDS] = "0.02"
    config = PRESETS["gym-small"].config
    config = replace(
        config,
        actors=16,
        threads=1,
        device="cpu",
        environment=EnvironmentConfig(suite="gym", tasks=(TASK,)),
        agent=AGENT,
        collect=replace(config.collect, environments=16),
        window=32,
        ray=FREE,
    )
    held: list[float] = []
    passed: list[float] = []
    with Beside(config, of_actors=Watched) as beside:
        actors = beside.actors
        assert isinstance(actors, Watched)
        parameters = sum(tensor.numel() for tensor in PolicyNetworks(beside.agent).parameters())
        actors.allow(math.inf)
        _until(lambda: len(actors.acted.get(0, ())) == config.actors)
        for version in range(1, 9):
            time.sleep(1.0)
            began = time.perf_counter()
            actors.publish(beside.agent)
            held.append(time.perf_counter() - began)
            _until(lambda version=version: len(actors.acted.get(version, ())) == config.actors)
            passed.append(max(actors.acted[version].values()) - began)
    shape = f"{parameters / 1e6:.1f} M parameters, 16 actors"
    until, wait = "a publication until each of 16 actors has acted with it", "a publication holds up the learner"
    goals = Goals(shape, Goal(until, until, 1.0, at_most=1.0, unit="s"), Goal(wait, wait, 1.0, at_most=20, unit="ms"))
    goals.add(until, passed)
    goals.add(wait, [1000 * each for each in held])
    return goals.rows()


def _until(true: Any, seconds: float = 100.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("an actor has not acted with the policy")
        time.sleep(0.005)
