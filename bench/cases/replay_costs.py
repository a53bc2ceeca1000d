"""What a replay costs beside its windows: large stores, appending, waiting, opening, memory, and less memory than data.

Each part of a case is measured in a fresh process, which `bench.groups.replay` starts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from bench.baselines.gather import LENGTH, Trajectories, s1, s2
from bench.cases.replay_compression import compression
from bench.harness.compare import Figures, Goal, goal_rows
from bench.harness.disk import cached_bytes, evict, files, random_rate, scratch, sequential_rate, sync
from bench.harness.measure import Row, interleaved, percentiles
from bench.harness.memory import resident
from twohot.replay import Field, Replay, Schema
from twohot.replay.schema import COMPRESSIONS

THREADS = 2
BATCH = 24
ENVIRONMENTS = 64
SIZES = {"1e5 steps": 100_000, "1e7 steps": 10_000_000, "3e8 steps": 300_000_000}
DISTRIBUTIONS = ("trajectory", "step")
LEARNERS = ("it sleeps", "it computes on one core")
OPENED = ("files in the page cache", "files not in the page cache")
LEARNER = 0.005
LEARNER_STEPS = 400


@dataclass(frozen=True)
class Case:
    """Figures by their names, from parts that are measured in a process each.

    Args:
        shape: what is measured.
        parts: functions that measure, by their names.
        unit: of every figure, or by its name.
        limit: the figure of which the others are multiples.
        goals: bounds on the figures.
    """

    shape: str
    parts: Mapping[str, Callable[[], Figures]]
    unit: str | Mapping[str, str]
    limit: str = ""
    goals: tuple[Goal, ...] = field(default=())

    def rows(self, name: str, mode: str, figures: Figures) -> list[Row]:
        """A row for each figure, what is missing, and each goal."""
        medians = {provider: percentiles(np.array(values))[1] for provider, values in figures.values.items()}
        result = []
        for provider, values in figures.values.items():
            unit = self.unit if isinstance(self.unit, str) else self.unit[provider]
            share = round(medians[provider] / medians[self.limit], 3) if self.limit in medians else ""
            limit = self.limit if self.limit in medians else ""
            about = (*percentiles(np.array(values)), unit, self.shape, THREADS, share, limit)
            result.append(Row(name, provider, mode, *about))
        for provider, reason in figures.missing.items():
            result.append(Row(name, f"{provider}: {reason}", "failed", 0, 0, 0, "", self.shape, THREADS))
        return [*result, *goal_rows(self, mode, THREADS, figures, Figures())]


def small_store(steps: int) -> Figures:
    """Microseconds for a batch from trajectories of 1000 steps, observation float32[1] and action int8."""
    replay = Replay.create(
        Schema({"observation": Field("float32", (1,))}, Field("int8")), capacity_steps=steps, threads=THREADS
    )
    length = 1000
    ended = np.arange(length) == length - 1
    columns = (
        {"observation": np.arange(length + 1, dtype=np.float32)[:, None]},
        np.zeros(length, np.int8),
        np.ones(length, np.float32),
        ended,
        np.zeros(length, bool),
    )
    for _ in range(steps // length):
        replay.add(*columns)
    out = replay.batch(BATCH, LENGTH)

    def microseconds(by: str, calls: int = 200) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            replay.sample(BATCH, LENGTH, by=by, out=out)
        return 1e6 * (time.perf_counter() - start) / calls

    name = next(name for name, size in SIZES.items() if size == steps)
    draws = {f"{name}, by {by}": partial(microseconds, by) for by in DISTRIBUTIONS}
    return Figures({draw: values.tolist() for draw, values in interleaved(draws, rounds=15).items()})


def appending(make: Callable[[], Trajectories], capacity: int) -> Figures:
    """Steps/s of a writer and of a ring of numpy arrays, both full; environments end after 100 to 1000 steps."""
    data = make()
    replay = Replay.create(data.schema, capacity_steps=capacity, threads=THREADS)
    writer = replay.writer(ENVIRONMENTS)
    stream = np.random.default_rng(0)
    pool = [data.observation[at : at + ENVIRONMENTS].copy() for at in range(0, 8 * ENVIRONMENTS, ENVIRONMENTS)]
    action = stream.standard_normal((ENVIRONMENTS, 4), dtype=np.float32)
    reward = stream.standard_normal(ENVIRONMENTS, dtype=np.float32)
    never = np.zeros(ENVIRONMENTS, bool)
    ends = itertools.cycle(stream.random((4096, ENVIRONMENTS)) < 1 / 550)
    observations = itertools.cycle(pool)
    writer.begin({"observation": pool[0]})
    rings = [
        np.zeros((capacity, *column.shape[1:]), column.dtype) for column in (pool[0], action, reward, never, never)
    ]
    places = itertools.cycle(range(0, capacity - ENVIRONMENTS + 1, ENVIRONMENTS))

    def write() -> None:
        ended, observation = next(ends), {"observation": next(observations)}
        writer.append(action, reward, ended, never, observation)
        if ended.any():
            writer.begin(observation, mask=ended)

    def ring() -> None:
        at = next(places)
        for column, values in zip(rings, (next(observations), action, reward, next(ends), never), strict=True):
            column[at : at + ENVIRONMENTS] = values

    def rate(call: Callable[[], None]) -> float:
        calls = max(capacity // ENVIRONMENTS // 20, 50)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return ENVIRONMENTS * calls / (time.perf_counter() - start)

    while replay.stats().evicted_steps < capacity // 10:
        write()
    for _ in range(capacity // ENVIRONMENTS):
        ring()
    names = {f"{data.name}: twohot": write, f"{data.name}: numpy ring": ring}
    providers = {name: partial(rate, call) for name, call in names.items()}
    return Figures({name: values.tolist() for name, values in interleaved(providers, rounds=15).items()})


def waiting() -> Figures:
    """Share of its time that a learner waits for prefetched batches of images; it sleeps, or multiplies matrices."""
    data = s2()
    replay = data.add_to(Replay.create(data.schema, capacity_steps=data.steps, threads=THREADS))
    torch.set_num_threads(1)
    matrix = torch.randn(256, 256)

    def multiply(repeats: int) -> None:
        for _ in range(repeats):
            torch.mm(matrix, matrix)

    start = time.perf_counter()
    multiply(400)
    repeats = round(400 * LEARNER / (time.perf_counter() - start))

    def share(learn: Callable[[], None]) -> float:
        loader = replay.loader(BATCH, LENGTH, batches=LEARNER_STEPS)
        next(loader)
        learn()
        waited, begin = 0.0, time.perf_counter()
        for _ in range(LEARNER_STEPS - 1):
            before = time.perf_counter()
            next(loader)
            waited += time.perf_counter() - before
            learn()
        result = waited / (time.perf_counter() - begin)
        loader.close()
        return result

    learners = (lambda: time.sleep(LEARNER), lambda: multiply(repeats))
    providers = {name: partial(share, learn) for name, learn in zip(LEARNERS, learners, strict=True)}
    return Figures({name: values.tolist() for name, values in interleaved(providers, rounds=5).items()})


def opening(trajectories: int = 100_000, length: int = 200) -> Figures:
    """Seconds to open a directory with the fields of S1, its files in the page cache and not."""
    data = s1(2)
    steps = slice(0, length)
    ended = np.arange(length) == length - 1
    with scratch() as folder:
        directory = folder / "store"
        replay = Replay.create(data.schema, capacity_steps=trajectories * length, directory=directory)
        observation = np.resize(data.observation, (length + 1, *data.observation.shape[1:]))
        action, reward = np.resize(data.action, (length, 4)), np.resize(data.reward, length)
        for _ in range(trajectories):
            replay.add({"observation": observation}, action, reward[steps], ended, np.zeros(length, bool))
        replay.close()
        sync(directory)
        paths = files(directory)

        def seconds(cold: bool) -> float:
            if cold:
                evict(paths)
            start = time.perf_counter()
            replay = Replay.open(directory, mode="read", threads=THREADS)
            took = time.perf_counter() - start
            held = replay.stats().steps
            replay.close()
            if held != trajectories * length:
                raise RuntimeError(f"expected {trajectories * length} steps, got {held}")
            return took

        providers = {name: partial(seconds, cold) for name, cold in zip(OPENED, (False, True), strict=True)}
        figures = interleaved(providers, rounds=5)
    return Figures({name: values.tolist() for name, values in figures.items()})


def overhead() -> Figures:
    """Resident memory beyond the columns themselves of a full store of S1, as a share of these."""
    data = s1()
    replay = Replay.create(data.schema, capacity_steps=data.steps, threads=THREADS)
    before = resident()
    data.add_to(replay)
    grown = resident() - before
    columns = data.steps * (data.row_bytes + 1) + len(data.length) * (data.observation[0].nbytes + 4)
    return Figures({"S1 in memory": [(grown - columns) / columns]})


def more_than_memory(gigabytes: float = 2) -> Figures:
    """GB/s of batches from a mapped store of S2 of which half at most is in memory, beside what its disk reads.

    The page cache of its files is dropped whenever more than half of them is in it: a group limit on memory would need
    rights over the machine that a benchmark cannot count on.
    """
    with scratch() as folder:
        directory = folder / "store"
        data = s2(gigabytes)
        store = Replay.create(data.schema, capacity_steps=data.steps, directory=directory)
        data.add_to(store).close()
        sync(directory)
        window = (LENGTH + 1) * data.observation[0].nbytes
        del data, store
        replay = Replay.open(directory, mode="read", threads=THREADS)
        paths = files(directory)
        half = sum(path.stat().st_size for path in paths) // 2
        out = replay.batch(BATCH, LENGTH)
        size = sum(array.nbytes for array in out.observation.values())

        def batches(calls: int = 10) -> float:
            took = 0.0
            for _ in range(calls):
                if cached_bytes(paths) > half:
                    evict(paths)
                start = time.perf_counter()
                replay.sample(BATCH, LENGTH, out=out)
                took += time.perf_counter() - start
            return calls * size / took / 1e9

        evict(paths)
        providers = {
            "batches, at most half in memory": batches,
            "disk, from end to end": partial(sequential_rate, paths),
            "disk, a window at random": partial(random_rate, paths, window),
        }
        figures = interleaved(providers, rounds=5, warm=0)
        replay.close()
    return Figures({name: values.tolist() for name, values in figures.items()})


def _least(name: str) -> tuple[Goal, ...]:
    rate = {"S1": 6e6, "S2": 6e5}[name]
    return (
        Goal(f"appending, {name}: steps/s", f"{name}: twohot", 1.0, at_least=rate, unit="steps/s"),
        Goal(
            f"appending, {name}: twohot, against a numpy ring", f"{name}: twohot", (f"{name}: numpy ring",), at_least=1
        ),
    )


CASES = {
    "sampling by size of the store": Case(
        f"B {BATCH}, windows of {LENGTH}; observation float32[1], action int8",
        {name: partial(small_store, steps) for name, steps in SIZES.items()},
        "us",
        "1e5 steps, by trajectory",
        tuple(
            Goal(f"3e8 steps, against 1e5, by {by}", f"3e8 steps, by {by}", (f"1e5 steps, by {by}",), at_most=3)
            for by in DISTRIBUTIONS
        ),
    ),
    "appending": Case(
        f"{ENVIRONMENTS} environments a call, stores full",
        {"S1": partial(appending, s1, 1_000_000), "S2": partial(appending, partial(s2, 0.1), 60_000)},
        "steps/s",
        goals=(*_least("S1"), *_least("S2")),
    ),
    "waiting": Case(
        f"a learner of 5 ms a step, S2, B {BATCH}, two batches ahead",
        {"S2": waiting},
        "share",
        goals=tuple(
            Goal(f"waiting of a learner, where {how}", how, 1.0, at_most=0.02, unit="share") for how in LEARNERS
        ),
    ),
    "opening": Case(
        "20 million steps in 100 000 trajectories, fields of S1",
        {"S1": opening},
        "s",
        goals=tuple(Goal(f"opening, {how}", how, 1.0, at_most=2, unit="s") for how in OPENED),
    ),
    "memory above the data": Case(
        "2000 trajectories of 100 to 1000 steps",
        {"S1": overhead},
        "share",
        goals=(Goal("memory above the data, S1", "S1 in memory", 1.0, at_most=0.02, unit="share"),),
    ),
    **{
        f"compression, {kind}": Case(
            "drawn frames uint8[64, 64, 3], trajectories of 400",
            {"frames": partial(compression, noise)},
            {
                f"{codec or 'plain'}: {what}": "x" if what == "times smaller" else "frames/s"
                for codec in COMPRESSIONS
                for what in ("adding", "sampling", "times smaller")
            },
        )
        for kind, noise in (("sprites", 0.0), ("sprites and noise", 0.1))
    },
    "more data than memory": Case(
        f"2 GB of S2 mapped, the page cache dropped where it has more than half; B {BATCH}, windows of {LENGTH}",
        {"S2": more_than_memory},
        "GB/s",
        "disk, a window at random",
    ),
}
