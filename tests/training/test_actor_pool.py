"""Who begins, answers, falls silent and dies, as a learner's actors take it: a stand-in for Ray, and a clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

import twohot
from objective_loops import make_agent
from small import CONFIG
from twohot.agent import AgentNetworks
from twohot.config import RayConfig
from twohot.data.spaces import replay_schema
from twohot.replay import Replay
from twohot.training import actor_pool
from twohot.training.actor import Block
from twohot.training.actor_pool import GIVE_UP_SECONDS, START_SECONDS, ActorError, ActorPool
from twohot.training.actors import Actors
from twohot.training.publication import Message, PolicyNetworks

STUCK_SECONDS = 20.0


class Error(Exception):
    """As ray.exceptions.RayError."""


class ActorDied(Error):
    """As ray.exceptions.RayActorError."""


class ObjectLost(Error):
    """As ray.exceptions.ObjectLostError."""


class TaskError(Error):
    """As ray.exceptions.RayTaskError: what an actor's code has raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class StandIn:
    """What the pool asks Ray for. A call is a pair of the actor's process and a number; `results` are set by tests."""

    exceptions = SimpleNamespace(
        RayError=Error,
        RayActorError=ActorDied,
        RayTaskError=TaskError,
        ObjectLostError=ObjectLost,
        GetTimeoutError=type("GetTimeoutError", (Error,), {}),
    )

    def __init__(self) -> None:
        self.passed = 0.0
        self.results: dict[tuple[int, int], Any] = {}
        self.begun: list[tuple[int, int]] = []
        self.killed: list[int] = []
        self.stored: list[Any] = []
        self.asked: list[tuple[Any, ...]] = []
        self.begins: Callable[[int], Any] = lambda process: {"twohot": twohot.__version__, "host": "here"}

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds

    def remote(self, kind: type) -> StandIn:
        return self

    def options(self, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=self._process)

    def _process(self, config: Any, place: Any) -> SimpleNamespace:
        process = len(self.begun)
        self.begun.append((place.actor, place.life))
        if (about := self.begins(process)) is not None:
            self.results[process, 0] = about
        calls = iter(range(1, 1000))
        return SimpleNamespace(
            process=process,
            describe=SimpleNamespace(remote=lambda: (process, 0)),
            collect=SimpleNamespace(remote=lambda *arguments: self.asked.append(arguments) or (process, next(calls))),
        )

    def put(self, value: Any) -> int:
        self.stored.append(value)
        return len(self.stored) - 1

    def kill(self, handle: Any) -> None:
        self.killed.append(handle.process)

    def wait(self, calls: list, num_returns: int, timeout: float) -> tuple[list, list]:
        ready = [call for call in calls if call in self.results][:num_returns]
        if not ready:
            self.passed += timeout
        return ready, [call for call in calls if call not in ready]

    def get(self, call: Any, timeout: float | None = None) -> Any:
        value = self.results[call]
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(actor_pool, "package", lambda *names: stand_in)
    monkeypatch.setattr(actor_pool, "time", stand_in)
    return stand_in


def pool(actors: int = 1) -> ActorPool:
    settings = RayConfig(stuck_seconds=STUCK_SECONDS)
    config = replace(CONFIG, actors=actors, ray=settings, collect=replace(CONFIG.collect, environments=actors))
    found = ActorPool(config, range(actors), 0, None)
    found.start()
    return found


def ask_all(found: ActorPool) -> None:
    """One call of each that has none."""
    for process in found.free():
        if not process.calls:
            found.ask(process, 10)


def block() -> Block:
    return Block(0, 10, 0.1, [], {"length": ()})


@pytest.fixture
def learner(ray: StandIn) -> Iterator[Callable[..., Actors]]:
    """Makes the one actor of a learner."""
    made = []

    def make(agent: AgentNetworks | None = None) -> Actors:
        agent = agent or make_agent(Discrete(2), torch.float32)
        config = replace(CONFIG, actors=1, collect=replace(CONFIG.collect, environments=1))
        schema = replay_schema(agent.observation_space, agent.action_space)
        made.append(Actors(config, agent, Replay.create(schema, capacity_steps=100)))
        return made[-1]

    yield make
    for actors in made:
        actors.close()


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def same(one: Message, other: Message) -> bool:
    """Whether these are policies of the same weights."""
    return one.pickled == other.pickled and all(
        np.array_equal(mine, its) for mine, its in zip(one.tensors, other.tensors, strict=True)
    )


def listen(found: ActorPool, ray: StandIn, seconds: float) -> list[int]:
    """For so long; who has answered."""
    until, heard = ray.monotonic() + seconds, []
    while ray.monotonic() < until:
        heard += [actor for actor, _ in found.answers()]
    return heard


def said(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    yield from (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_an_answer_is_given_and_the_next_call_may_be_made(ray: StandIn) -> None:
    found = pool()
    ask_all(found)
    assert found.promised == 10
    ray.results[0, 1] = block()
    assert [actor for actor, _ in found.answers()] == [0]
    assert found.promised == 0
    assert not found.is_asked


def test_another_begins_in_the_place_of_one_that_does_not_answer(ray: StandIn, caplog) -> None:
    found = pool(2)
    ask_all(found)
    ray.results[1, 1] = block()
    assert listen(found, ray, STUCK_SECONDS - 2) == [1]
    assert found.restarts == 0
    listen(found, ray, 4)
    assert (found.restarts, ray.killed, ray.begun) == (1, [0], [(0, 0), (1, 0), (0, 1)])
    assert list(said(caplog)) == ["actor 0 has ended (no answer for 20 s); another begins in its place"]


def test_time_in_which_nobody_listened_is_no_silence(ray: StandIn) -> None:
    """As while a large checkpoint is written: what they have played meanwhile is taken in."""
    found = pool(2)
    ask_all(found)
    listen(found, ray, 1)
    ray.passed += 10 * STUCK_SECONDS
    ray.results[0, 1] = block()
    assert listen(found, ray, 1) == [0]
    assert found.restarts == 0
    listen(found, ray, STUCK_SECONDS)  # the other one is silent still
    assert found.restarts == 1


def test_whoever_is_silent_is_ended_however_busy_the_learner_is(ray: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each block of the others takes long to store, so that some answer is always there."""
    found = pool(2)
    ask_all(found)
    for _ in range(2 * int(STUCK_SECONDS)):
        ray.passed += 1.5
        process = found._processes[1]
        ray.results |= dict.fromkeys(process.calls, block())
        list(found.answers())
        ask_all(found)
    assert found.restarts >= 1
    assert (0, 1) in ray.begun
    assert (1, 1) not in ray.begun


def test_a_long_beginning_is_no_silence_and_no_credit(ray: StandIn) -> None:
    found = pool(1)
    ray.passed += 290.0
    ask_all(found)
    listen(found, ray, STUCK_SECONDS - 3)
    assert found.restarts == 0
    listen(found, ray, 5)
    assert found.restarts == 1


def test_one_that_does_not_begin_again_is_spoken_of(ray: StandIn, caplog) -> None:
    found = pool(2)
    ask_all(found)
    ray.begins = lambda process: None  # as where no node has a CPU for it
    ray.results[0, 1] = ActorDied("its node is gone")
    listen(found, ray, 2.5 * START_SECONDS)
    waiting = [text for text in said(caplog) if text.startswith("actor 0 has not begun after 300 s; `ray status`")]
    assert len(waiting) == 2
    assert ray.begun.count((0, 1)) == 1


def test_one_that_dies_again_and_again_ends_the_run_where_no_other_gives_anything(ray: StandIn) -> None:
    found = pool()
    ask_all(found)
    began = ray.monotonic()
    ray.begins = lambda process: ActorDied("killed")
    ray.results[0, 1] = ActorDied("killed")
    with pytest.raises(ActorError, match="actor 0: killed"):
        listen(found, ray, 100 * GIVE_UP_SECONDS)
    assert ray.monotonic() - began > GIVE_UP_SECONDS
    assert found.restarts > 3


def test_while_another_gives_it_is_begun_again(ray: StandIn) -> None:
    found = pool(2)
    ask_all(found)
    ray.begins = lambda process: ActorDied("killed")
    ray.results[0, 1] = ActorDied("killed")
    ray.results |= {(1, call): block() for call in range(1, 1000)}
    given = []
    for _ in range(20):
        given += listen(found, ray, GIVE_UP_SECONDS / 10)
        ask_all(found)
    assert set(given) == {1}
    assert len(given) == 20


def test_an_answer_that_is_lost_with_its_node_is_missed_by_nobody(ray: StandIn) -> None:
    found = pool()
    ask_all(found)
    ray.results[0, 1] = Error("the object is lost")
    assert listen(found, ray, 1) == []
    assert not found.is_asked
    assert found.restarts == 0
    assert len(found.free()) == actor_pool.CALLS


def test_what_an_actors_code_raises_ends_the_run(ray: StandIn) -> None:
    found = pool()
    ask_all(found)
    ray.results[0, 1] = TaskError(ValueError("a task that has no end"))
    with pytest.raises(ActorError, match="actor 0: a task that has no end"):
        listen(found, ray, 1)


def test_a_policy_that_is_lost_is_put_into_the_store_again(ray: StandIn, learner: Callable[[], Actors], caplog) -> None:
    ray.results[0, 1] = ray.results[0, 2] = TaskError(ObjectLost("its node has died"))
    actors = learner()
    actors.allow(100)
    wait_for(lambda: len(ray.asked) >= 4)
    actors.close()
    assert same(*ray.stored[:2])
    assert [arguments[-2:] for arguments in ray.asked[:4]] == [(0, [0])] * 2 + [(0, [len(ray.stored) - 1])] * 2
    assert next(said(caplog)).startswith("actor 0 has not found the policy")


def test_a_publication_does_not_wait_for_the_one_before_to_be_packed(
    ray: StandIn, learner: Callable[[], Actors], monkeypatch: pytest.MonkeyPatch
) -> None:
    packing, packed, frozen = threading.Event(), threading.Event(), PolicyNetworks.frozen

    def slowly(networks: PolicyNetworks) -> Message:
        packing.set()
        assert packed.wait(60)
        return frozen(networks)

    agent = make_agent(Discrete(2), torch.float32)
    wanted = [frozen(PolicyNetworks(agent).on_cpu())]
    monkeypatch.setattr(PolicyNetworks, "frozen", slowly)
    actors = learner(agent)
    assert packing.wait(60)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(1.0)
    actors.publish(agent)
    assert not packed.is_set()
    packed.set()
    wait_for(lambda: len(ray.stored) >= 2)
    actors.close()
    wanted.append(frozen(PolicyNetworks(agent).on_cpu()))
    assert [same(*each) for each in zip(ray.stored, wanted, strict=True)] == [True, True]
    assert not same(*wanted)


def test_one_whose_first_answer_is_lost_begins_again(ray: StandIn) -> None:
    found = pool()
    ask_all(found)
    ray.begins = lambda process: Error("the object is lost") if process == 1 else {"twohot": twohot.__version__}
    ray.results[0, 1] = ActorDied("killed")
    listen(found, ray, 5)
    assert ray.begun == [(0, 0), (0, 1), (0, 2)]
    assert len(found.free()) == actor_pool.CALLS


def test_an_error_without_a_message_is_named_by_its_kind(ray: StandIn, caplog) -> None:
    found = pool()
    ask_all(found)
    ray.results[0, 1] = ActorDied()
    listen(found, ray, 1)
    assert list(said(caplog)) == ["actor 0 has ended (ActorDied()); another begins in its place"]


def test_another_version_of_the_package_is_refused(ray: StandIn) -> None:
    ray.begins = lambda process: {"twohot": "0.0.1", "host": "there"}
    with pytest.raises(ActorError, match=r"actor 0 on there has twohot '0\.0\.1'"):
        pool()
