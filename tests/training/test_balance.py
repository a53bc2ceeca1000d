"""Actors and the learner wait for each other so that updates keep their number for each step."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from small import CONFIG
from twohot.config import ConfigurationError, RayConfig
from twohot.training.actor_session import ActorSession
from twohot.training.balance import Balance

BALANCE = Balance(steps=100, first=0, epochs=10, ahead=1.0, behind=0.0)


def test_of_a_run() -> None:
    collect = replace(CONFIG.collect, environments=4, steps_per_epoch=25, first_epoch=0)
    config = replace(CONFIG, epochs=3, collect=collect, ray=RayConfig(max_ahead=0.5, max_behind=2.0))
    assert Balance.of(config) == Balance(100, 0, 3, 0.5, 2.0)


def test_actors_may_be_an_epoch_ahead_and_the_learner_none() -> None:
    assert BALANCE.bounds(0, 0.0, 0.1) == (10, 100)  # at most what one process collects before it learns
    assert BALANCE.bounds(4, 0.5, 0.75) == (475, 550)
    assert BALANCE.bounds(9, 0.5, 1.0) == (1000, 1000)  # and never more than the run's
    assert BALANCE.begun(4) == 400


@pytest.mark.parametrize(("ahead", "behind"), [(1.0, 0.0), (0.001, 0.0), (math.inf, 0.5), (1.0, math.inf)])
def test_nobody_waits_for_ever(ahead: float, behind: float) -> None:
    balance = replace(BALANCE, ahead=ahead, behind=behind)
    for epoch in range(10):
        for update in range(7):
            wanted, limit = balance.bounds(epoch, update / 7, (update + 1) / 7)
            assert 0 <= wanted <= limit <= 1000


def test_epochs_before_the_first_that_collects_ask_for_no_steps() -> None:
    balance = replace(BALANCE, first=3)
    assert balance.bounds(2, 0.9, 1.0) == (0, 0)
    assert balance.bounds(3, 0.0, 1.0) == (100, 100)
    assert balance.begun(2) == balance.begun(3) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_ahead", 0.0),
        ("max_behind", -1.0),
        ("max_lag", -1),
        ("cpus_per_actor", 0.0),
        ("block_seconds", 0.0),
        ("block_seconds", 61.0),
        ("stuck_seconds", math.inf),
        ("publish_every", -1),
    ],
)
def test_settings_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"ray.{name}"):
        RayConfig(**{name: value})


def test_actors_divide_the_environments() -> None:
    with pytest.raises(ConfigurationError, match=r"actors: expected a divisor of collect\.environments = 4, got 3"):
        replace(CONFIG, actors=3, collect=replace(CONFIG.collect, environments=4))


@pytest.mark.parametrize(("learners", "saves"), [(1, 2), (2, 0)])
def test_a_learner_that_waits_saves_when_the_clock_asks_for_it(learners: int, saves: int) -> None:
    """One of several does not: they save together."""
    done: list[str] = []
    due = iter([True, False, True, False])
    session = SimpleNamespace(
        balance=BALANCE,
        epoch=1,
        ranks=SimpleNamespace(size=learners),
        interruption=SimpleNamespace(heard=None),
        current=SimpleNamespace(timed=lambda name: nullcontext()),
        actors=SimpleNamespace(
            allow=lambda steps: done.append("allow"), wait=lambda steps, stop: done.append(f"wait {steps:g}")
        ),
        _pause_is_due=lambda: next(due),
        _pause=lambda: done.append("save"),
    )
    ActorSession._wait(session, 0.0, 0.5)  # type: ignore[arg-type]
    ActorSession._wait(session, 0.0, 0.5)  # type: ignore[arg-type]
    assert done.count("save") == saves
    assert done[:3] == (["allow", "wait 150", "save"] if saves else ["allow", "wait 75", "allow"])
