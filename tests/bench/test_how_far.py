"""The arithmetic of how far actors and learners scale, by hand; ready-made trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.cases.beside import LENGTH, trajectories
from bench.cases.how_far import (
    Constants,
    Setting,
    bytes_in,
    bytes_out,
    calls_per_second,
    constants_of,
    first_full,
    shares,
    step_bytes,
)
from twohot.replay import Field, Replay, Schema

pytestmark = pytest.mark.bench

SCHEMA = Schema({"observation": Field("float32", (16,))}, Field("int64"))
CONSTANTS = Constants(call_ms=0.5, machine_call_ms=2.0, store_ms=0.4, put_ms=0.3, copy_ms=0.1)
SETTING = Setting(
    actors=400,
    learners=4,
    steps=1000.0,
    step_bytes=100.0,
    policy_bytes=40e6,
    publications=0.5,
    actors_per_node=32,
    link=1e9,
    store=1e9,
    cores=2.0,
)


def test_what_a_learner_has_to_take() -> None:
    assert calls_per_second(SETTING) == 500  # 100 actors, every 0.2 s
    assert bytes_in(SETTING) == 100 * 1000 * 100
    assert bytes_out(SETTING) == 4 * 40e6 * 0.5  # four machines have 100 actors
    assert bytes_out(replace(SETTING, actors=4)) == 40e6 * 0.5


def test_shares_by_hand() -> None:
    thread = 500 * 0.5e-3 + 10 * 0.4e-3 + 20 * 0.3e-3
    assert shares(SETTING, CONSTANTS) == pytest.approx(
        {
            "actors' thread": thread,
            "processors": (thread + 500 * 1.5e-3) / 2,
            "network in": 1e7 / 1e9,
            "network out": 8e7 / 1e9,
            "learner's copies": 20 * 0.1e-3,
            "object store": (2 * 0.2 * 1e7 + 80e6) / 1e9,
        },
        rel=1e-12,
    )


def test_the_fullest_part() -> None:
    assert first_full(SETTING, CONSTANTS) == pytest.approx(("processors", shares(SETTING, CONSTANTS)["processors"]))
    images = replace(SETTING, step_bytes=12_300.0, link=1e8)
    assert first_full(images, CONSTANTS)[0] == "network in"


def test_more_learners_divide_what_grows_with_the_actors() -> None:
    one, eight = (shares(replace(SETTING, learners=learners), CONSTANTS) for learners in (1, 8))
    assert one["network in"] == pytest.approx(8 * eight["network in"], rel=1e-12)
    assert one["learner's copies"] == eight["learner's copies"]


def test_ready_made_trajectories_have_the_bytes_that_are_said() -> None:
    columns = trajectories(SCHEMA, 3)
    assert columns["length"].tolist() == [LENGTH] * 3
    of_steps = ("action", "reward", "terminated", "truncated")
    size = sum(columns[name].nbytes for name in of_steps) + columns["observation"]["observation"].nbytes
    assert size == pytest.approx(step_bytes(SCHEMA) * 3 * LENGTH, rel=1e-12)
    replay = Replay.create(SCHEMA, capacity_steps=3 * LENGTH)
    replay.extend(columns)
    assert np.array_equal(replay.lengths(), columns["length"])


def test_constants_are_read_from_results() -> None:
    names = {
        "a call, actors' thread": "0.5",
        "a call, all of the learner's machine": "2.0",
        "a megabyte of vectors into the replay": "0.4",
        "a megabyte of images into the replay": "0.7",
        "a megabyte of a policy, packed and put into the object store": "0.3",
        "a megabyte of a policy, copied by the learner": "0.1",
    }
    records = [{"case": "how far: constants", "provider": name, "p50": value} for name, value in names.items()]
    assert constants_of(records, "vectors") == CONSTANTS
    assert constants_of(records, "images") == replace(CONSTANTS, store_ms=0.7)
