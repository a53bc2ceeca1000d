"""Contests of the replay: windows of 256 steps from vectors (S1) and images (S2), beside every peer.

Started as a script, `replay.py TASK MODE OUTPUT` measures a set of trajectories, or a case of `replay_cases.py`, in
this process and writes the figures.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch

import replay_peers
from contest import Alternative, Contest, Figures, Goal, goal_rows, in_process, measure, rows
from disk import scratch
from frame import Row
from gather import LENGTH, Trajectories, fault, floor, s1, s2
from peers import release
from replay_cases import CASES, THREADS
from twohot.replay import Batch, Replay

MODE = "huge pages"
CLOSING = ExitStack()
BATCHES = (24, 64)
STORED = {"S1": s1, "S2": s2}
PLAIN, STREAM = "C gather, plain stores", "C gather, non-temporal stores"
STORED_ONLY = "C gather of the stored columns alone"
OURS, MAPPED = "twohot in memory", "twohot from a mapped directory"
TORCHRL, CACHED = "torchrl SliceSampler, live buffer", "torchrl SliceSampler, cached ends"
AMAGO, DREAMER = "official AMAGO dataset, in our lines", "DreamerV3's replay, in our lines"
CHUNKS, BY_HAND = "cpprb, fixed chunks", "numpy by hand"


@cache
def stored(name: str) -> Trajectories:
    return STORED[name]()


@cache
def in_memory(name: str) -> Replay:
    data = stored(name)
    return data.add_to(Replay.create(data.schema, capacity_steps=data.steps, threads=THREADS))


@cache
def mapped(name: str) -> Replay:
    """The same in a directory, closed and opened again."""
    data, directory = stored(name), folder() / name
    data.add_to(Replay.create(data.schema, capacity_steps=data.steps, directory=directory)).close()
    return Replay.open(directory, mode="read", threads=THREADS)


@cache
def folder() -> Path:
    """A folder that goes when the process ends."""
    return CLOSING.enter_context(scratch())


@cache
def amago_files(name: str) -> Path:
    directory = folder() / f"{name}-amago"
    directory.mkdir()
    replay_peers.write_amago(stored(name), directory)
    return directory


def sound(name: str) -> Callable[[Batch], str]:
    """What is wrong with a batch of ours from these trajectories."""

    def check(batch: Batch) -> str:
        return fault(stored(name), batch.observation["observation"], batch.action, batch.reward, batch.mask.sum(1))

    return check


def sampler(replay: Callable[[str], Replay], name: str, size: int, calls: int) -> Alternative:
    """Ours into memory that is used again. The store is built at the first call, so that its failure becomes a row."""
    memory: list[Batch] = []

    def work() -> Batch:
        if not memory:
            memory.append(replay(name).batch(size, LENGTH))
        return replay(name).sample(size, LENGTH, out=memory[0])

    return Alternative(work, calls=calls, check=sound(name))


def peer(build: Callable[..., replay_peers.Sampler], name: str, size: int, calls: int, *others: object) -> Alternative:
    """Another's sampler, built at the first call."""
    made: list[replay_peers.Sampler] = []

    def work() -> object:
        if not made:
            made.append(build(stored(name), size, LENGTH, *others))
        return made[0]()

    def check(result: object) -> str:
        return fault(stored(name), *(result() if callable(result) else result))

    return Alternative(work, calls=calls, check=check)


def gathered(name: str, size: int, calls: int, *, stream: bool, derived: bool) -> Alternative:
    """The floor into memory that is used again."""
    batch = in_memory(name).batch(size, LENGTH)
    gather = floor(stored(name), batch, stream=stream, derived=derived)

    def work() -> Batch:
        gather()
        return batch

    return Alternative(work, calls=calls, check=sound(name))


def alternatives(name: str, size: int, divisor: int) -> dict[str, Alternative]:
    """Every way to a batch of `size` windows; the divisor means nothing here."""
    few = 10 if name == "S1" else 1
    result = {
        PLAIN: gathered(name, size, few, stream=False, derived=True),
        STREAM: gathered(name, size, few, stream=True, derived=True),
        STORED_ONLY: gathered(name, size, few, stream=name == "S2", derived=False),
        OURS: sampler(in_memory, name, size, few),
        MAPPED: sampler(mapped, name, size, few),
        BY_HAND: peer(replay_peers.numpy_by_hand, name, size, few),
        DREAMER: peer(replay_peers.dreamer, name, size, few),
        AMAGO: peer(lambda data, *sizes: replay_peers.amago(amago_files(data.name), *sizes), name, size, 1),
    }
    for label, package, build in (
        (TORCHRL, "torchrl", partial(replay_peers.torchrl, cached=False)),
        (CACHED, "torchrl", partial(replay_peers.torchrl, cached=True)),
        (CHUNKS, "cpprb", replay_peers.cpprb),
    ):
        installed = release(package)
        if installed:
            result[f"{label} {installed}"] = peer(build, name, size, few)
        else:
            result[label] = Alternative(None)
    return result


def _goals(case: str, name: str) -> tuple[Goal, ...]:
    gather, share = (PLAIN, 1.3) if name == "S1" else (STREAM, 1.2)
    live, official, dreamer = (30, 80, 4) if name == "S1" else (14, 25, 3)
    chunks = (
        Goal(f"{case}: twohot, against cpprb's fixed chunks", OURS, (CHUNKS,), at_most=1.5)
        if name == "S1"
        else Goal(f"{case}: cpprb's fixed chunks, against twohot", CHUNKS, (OURS,), at_least=2)
    )
    return (
        Goal(f"{case}: twohot, against the {gather}", OURS, (gather,), at_most=share),
        Goal(f"{case}: torchrl on a live buffer, against twohot", TORCHRL, (OURS,), at_least=live),
        Goal(f"{case}: official AMAGO dataset, against twohot", AMAGO, (OURS,), at_least=official),
        Goal(f"{case}: DreamerV3's replay, against twohot", DREAMER, (OURS,), at_least=dreamer),
        chunks,
    )


def contests(name: str) -> tuple[Contest, ...]:
    """A contest for each batch size. `least`: a batch of whole windows is read and written."""
    what = {"S1": "float32[39], 2000 trajectories, 0.2 GB", "S2": "uint8[3, 64, 64], 3 GB"}[name]
    observation = {"S1": 4 * 39, "S2": 3 * 64 * 64}[name]
    result = []
    for size in BATCHES:
        case = f"{name}, B {size}"
        amount = 2 * size * LENGTH * (observation + 40) / 1e9
        result.append(
            Contest(
                case,
                f"{what}; windows of {LENGTH}",
                partial(alternatives, name, size),
                (PLAIN, STREAM),
                "C gather",
                OURS,
                least=(amount, "GB"),
                often=(PLAIN, STREAM, OURS, MAPPED),
                rounds=15 if name == "S1" else 7,
                weighed="no",
                goals=_goals(case, name),
            )
        )
    return tuple(result)


def measured(task: str) -> dict[str, Figures]:
    """Figures, in this process, of the contests on S1 or S2, or of "case: part"."""
    torch.set_num_threads(THREADS)
    if task in STORED:
        with CLOSING:
            return {contest.case: measure(contest, contest.rounds) for contest in contests(task)}
    case, part = task.split(": ")
    try:
        return {task: CASES[case].parts[part]()}
    except Exception as error:
        traceback.print_exc()
        return {task: Figures(obstacles={part: f"{type(error).__name__}: {error}".splitlines()[0]})}


def _found(task: str) -> dict[str, Figures]:
    print(f"  {task}", flush=True)
    found = in_process(Path(__file__), task, MODE)
    return {task: Figures(obstacles={"process": found})} if isinstance(found, str) else found


def replay_beside_peers() -> list[Row]:
    """Windows of the replay beside every peer."""
    result: list[Row] = []
    for name in STORED:
        found = _found(name)
        for contest in contests(name):
            figures = found.get(contest.case, found.get(name))
            result += rows(contest, MODE, THREADS, figures, Figures())
            result += goal_rows(contest, MODE, THREADS, figures, Figures())
    return result


def replay_costs() -> list[Row]:
    """What large stores, appending, waiting, opening and memory cost."""
    result: list[Row] = []
    for name, case in CASES.items():
        figures = Figures()
        for part in case.parts:
            for found in _found(f"{name}: {part}").values():
                figures.values |= found.values
                figures.obstacles |= found.obstacles
        result += case.rows(name, MODE, figures)
    return result


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps({name: asdict(each) for name, each in measured(sys.argv[1]).items()}))
