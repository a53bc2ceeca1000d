"""How far actors and learners scale: constants that are measured on one machine, and arithmetic from them.

Every part of a learner's machine has some share of its time, or of its bandwidth, to spend. All of them grow with the
actors, so that the one with the largest share is full first.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from gymnasium import spaces

from bench.cases.actor_speed import AGENT, row
from bench.cases.beside import (
    ACTIONS,
    FREE,
    IMAGE,
    LENGTH,
    VECTOR,
    Beside,
    Offer,
    fake_config,
    started,
    trajectories,
)
from bench.harness.measure import Record, Row
from twohot.data.spaces import replay_schema
from twohot.replay import Replay, Schema
from twohot.training.actor_pool import CALLS
from twohot.training.publication import PolicyNetworks

CASE = "how far: constants"
CHECK = "how far: measured"
KINDS = {"vectors": ("quickstart", VECTOR, 44), "images": ("procgen-small", IMAGE, 3)}
"""Kinds of experience: whose learner, of which observations, and trajectories in an object."""
SECONDS = 8.0
COUNT = 8
"""Trajectories of vectors in an object that Ray does not send within its answer: more than 100 kB."""
STEPS = {"vectors": 1000.0, "images": 250.0}
"""Environment steps a second of each actor, in the table."""
SIZES = tuple((actors, learners) for actors in (16, 128, 1000, 10_000) for learners in (1, 8, 64) if actors >= learners)
POLICY_BYTES = 4 * 10e6


@dataclass(frozen=True)
class Constants:
    """What one call, step and publication cost a learner's machine.

    Attributes:
        call_ms: of the thread that asks actors and stores what they give, for a call and its answer.
        machine_call_ms: of all threads of the learner's process and of Ray's on its machine, for the same.
        store_ms: of that thread, for 10^6 bytes of trajectories that enter the replay.
        put_ms: of that thread, for 10^6 bytes of a policy that are packed and put into the object store.
        copy_ms: of the learner's thread, for the same.
    """

    call_ms: float
    machine_call_ms: float
    store_ms: float
    put_ms: float
    copy_ms: float


@dataclass(frozen=True)
class Setting:
    """Who plays what.

    Attributes:
        actors, learners: processes, all of them. actors_per_node: on one machine.
        steps: environment steps a second of each actor. step_bytes: of one. policy_bytes: of a policy.
        publications: a second. block_seconds: of playing in one call. link: bytes a second that a machine's network
            carries, one way. store: bytes of a learner's object store. cores: of a learner's machine that the learner
            leaves to the rest.
    """

    actors: int
    learners: int
    steps: float
    step_bytes: float
    policy_bytes: float
    publications: float = 0.1
    block_seconds: float = FREE.block_seconds
    actors_per_node: int = 32
    link: float = 1.25e9
    store: float = 10e9
    cores: float = 1.0


def calls_per_second(setting: Setting) -> float:
    """Of one learner: each actor answers once in `block_seconds`."""
    return setting.actors / setting.learners / setting.block_seconds


def bytes_in(setting: Setting) -> float:
    """Bytes a second that one learner takes in."""
    return setting.actors / setting.learners * setting.steps * setting.step_bytes


def bytes_out(setting: Setting) -> float:
    """Bytes a second that leave one learner's machine at most: a publication goes once to each machine with actors."""
    nodes = math.ceil(setting.actors / setting.learners / setting.actors_per_node)
    return nodes * setting.policy_bytes * setting.publications


def shares(setting: Setting, constants: Constants) -> dict[str, float]:
    """Of each part of a learner's machine, the share that the actors take: 1 is full."""
    calls, taken, published = calls_per_second(setting), bytes_in(setting), setting.policy_bytes * setting.publications
    thread = calls * constants.call_ms + (taken * constants.store_ms + published * constants.put_ms) / 1e6
    return {
        "actors' thread": thread / 1e3,
        "processors": (thread + calls * (constants.machine_call_ms - constants.call_ms)) / 1e3 / setting.cores,
        "network in": taken / setting.link,
        "network out": bytes_out(setting) / setting.link,
        "learner's copies": published * constants.copy_ms / 1e9,
        "object store": (CALLS * setting.block_seconds * taken + 2 * setting.policy_bytes) / setting.store,
    }


def first_full(setting: Setting, constants: Constants) -> tuple[str, float]:
    """The part that is full first, and how full it is."""
    found = shares(setting, constants)
    part = max(found, key=lambda name: found[name])
    return part, found[part]


def step_bytes(schema: Schema, length: int = LENGTH) -> float:
    """Of a step in the columns of trajectories of this length, whose observations have a row more."""

    def size(fields: list) -> int:
        return sum(np.dtype(field.dtype).itemsize * math.prod(field.shape) for field in fields)

    fixed = size([schema.action, *schema.step.values()]) + 4 + 2  # reward, terminated, truncated
    return fixed + size(list(schema.observation.values())) * (length + 1) / length


def _busy_per_call() -> tuple[float, float]:
    """Seconds of the actors' thread, and of all, for an answer that lies in the object store, apart from storing."""
    with Beside(fake_config("quickstart", 2, 100_000), VECTOR, Offer(25.0, COUNT)) as beside:
        columns = trajectories(beside.schema, COUNT)
        store = _seconds(lambda: beside.replay.extend(columns))
        found, every = [], []
        for _ in range(3):
            quiet = beside.rates(SECONDS / 4, learns=False, collects=False)
            rates = beside.rates(SECONDS / 2, learns=False, collects=True)
            found.append((rates["busy"] - quiet["busy"]) / rates["calls"])
            every.append((rates["machine"] - quiet["machine"]) / rates["calls"])
    return float(np.median(found)) - store, float(np.median(every)) - store


def _seconds(work, rounds: int = 9) -> float:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def schema_of(kind: str) -> Schema:
    """Of a kind of experience."""
    return replay_schema(spaces.Dict({"observation": KINDS[kind][1]}), ACTIONS)


def constants_and_check() -> list[Row]:
    """What a call, a step and a publication cost, and whether 1, 2 and 4 fake actors cost what follows: two minutes."""
    with started(fake_config("quickstart", 4, 1000)):
        return _constants_and_check()


def _constants_and_check() -> list[Row]:
    call, machine = _busy_per_call()
    rows = [
        row(CASE, "a call, actors' thread", [1e3 * call], "ms"),
        row(CASE, "a call, all of the learner's machine", [1e3 * machine], "ms"),
    ]
    store = {}
    for kind, (_, _, count) in KINDS.items():
        schema = schema_of(kind)
        columns = trajectories(schema, count)
        size = step_bytes(schema) * count * LENGTH
        replay = Replay.create(schema, capacity_steps=4 * count * LENGTH, threads=1)
        replay.extend(columns)
        store[kind] = _seconds(lambda replay=replay, columns=columns: replay.extend(columns)) * 1e3 / size * 1e6
        rows.append(row(CASE, f"a megabyte of {kind} into the replay", [store[kind]], "ms"))
        rows.append(row(CASE, f"a step of {kind}", [step_bytes(schema)], "bytes"))
    put, copy = _publication_ms()
    rows += [
        row(CASE, "a megabyte of a policy, packed and put into the object store", [put], "ms"),
        row(CASE, "a megabyte of a policy, copied by the learner", [copy], "ms"),
    ]
    for kind in KINDS:
        constants = Constants(1e3 * call, 1e3 * machine, store[kind], put, copy)
        for actors in (1, 2, 4):
            rows += _check(kind, actors, constants)
            print(f"    {kind}, {actors} actors", flush=True)
    return rows


def _check(kind: str, actors: int, constants: Constants) -> list[Row]:
    """Measured and computed, for some actors."""
    preset, space, count = KINDS[kind]
    offer = Offer(1 / FREE.block_seconds, count)
    who = f"{kind}, {actors} actor{'s' * (actors > 1)}"
    with Beside(fake_config(preset, actors, 100 * count * LENGTH // 10), space, offer) as beside:
        beside.rates(0.5, learns=False, collects=True)
        rates = beside.rates(SECONDS / 2, learns=False, collects=True)
        setting = Setting(actors, 1, offer.calls * count * LENGTH, step_bytes(beside.schema), 0.0, 0.0)
    pairs = {
        "calls/s": (rates["calls"], calls_per_second(setting)),
        "MB/s": (rates["bytes"] / 1e6, bytes_in(setting) / 1e6),
        "share of the actors' thread": (rates["busy"], shares(setting, constants)["actors' thread"]),
    }
    return [
        Row(CHECK, f"{who}: {unit}", "actors", value, value, value, "", "", 1, computed, "computed")
        for unit, (value, computed) in pairs.items()
    ]


def _publication_ms() -> tuple[float, float]:
    """Milliseconds for 10^6 bytes of a policy: of packing and putting it, and of the learner's own copy."""
    import ray

    with Beside(replace(fake_config("quickstart", 1, 1000), agent=AGENT), VECTOR, Offer(1.0, 0)) as beside:
        staged = PolicyNetworks(beside.agent).on_cpu()
        size = staged.frozen().nbytes / 1e6
        put = _seconds(lambda: ray.put(staged.frozen()))
        copy = _seconds(lambda: staged.copy_from(beside.agent))
    return 1e3 * put / size, 1e3 * copy / size


def constants_of(records: list[Record], kind: str) -> Constants:
    """The constants that stand in results."""
    found = {row["provider"]: float(row["p50"]) for row in records if row["case"] == CASE}
    return Constants(
        found["a call, actors' thread"],
        found["a call, all of the learner's machine"],
        found[f"a megabyte of {kind} into the replay"],
        found["a megabyte of a policy, packed and put into the object store"],
        found["a megabyte of a policy, copied by the learner"],
    )
