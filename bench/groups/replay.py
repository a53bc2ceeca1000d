"""Comparisons of the replay: windows of 256 steps from vectors (S1) and images (S2), beside every baseline.

`python -m bench.groups.replay TASK MODE OUTPUT` measures a set of trajectories, or a case of
`bench.cases.replay_costs`, in this process and writes the figures.
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

from bench.baselines import replay as baselines
from bench.baselines.gather import LENGTH, Trajectories, fault, floor, s1, s2
from bench.baselines.packages import installed_version
from bench.cases.replay_costs import CASES, THREADS
from bench.harness.compare import Comparison, Figures, Goal, Provider, goal_rows, in_process, measure_times, rows
from bench.harness.disk import scratch
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.tables import cell, conditions, figure_row, goals_table, number, table
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
    baselines.write_amago(stored(name), directory)
    return directory


def sound(name: str) -> Callable[[Batch], str]:
    """What is wrong with a batch of ours from these trajectories."""

    def check(batch: Batch) -> str:
        return fault(stored(name), batch.observation["observation"], batch.action, batch.reward, batch.mask.sum(1))

    return check


def sampler(replay: Callable[[str], Replay], name: str, size: int, calls: int) -> Provider:
    """Ours into memory that is used again. The store is built at the first call, so that its failure becomes a row."""
    memory: list[Batch] = []

    def work() -> Batch:
        if not memory:
            memory.append(replay(name).batch(size, LENGTH))
        return replay(name).sample(size, LENGTH, out=memory[0])

    return Provider(work, calls=calls, check=sound(name))


def baseline(build: Callable[..., baselines.Sampler], name: str, size: int, calls: int, *others: object) -> Provider:
    """A baseline's sampler, built at the first call."""
    made: list[baselines.Sampler] = []

    def work() -> object:
        if not made:
            made.append(build(stored(name), size, LENGTH, *others))
        return made[0]()

    def check(result: object) -> str:
        return fault(stored(name), *(result() if callable(result) else result))

    return Provider(work, calls=calls, check=check)


def gathered(name: str, size: int, calls: int, *, stream: bool, derived: bool) -> Provider:
    """The floor into memory that is used again."""
    batch = in_memory(name).batch(size, LENGTH)
    gather = floor(stored(name), batch, stream=stream, derived=derived)

    def work() -> Batch:
        gather()
        return batch

    return Provider(work, calls=calls, check=sound(name))


def providers(name: str, size: int, batch_divisor: int) -> dict[str, Provider]:
    """Every way to a batch of `size` windows; their number is fixed, and not divided."""
    few = 10 if name == "S1" else 1
    result = {
        PLAIN: gathered(name, size, few, stream=False, derived=True),
        STREAM: gathered(name, size, few, stream=True, derived=True),
        STORED_ONLY: gathered(name, size, few, stream=name == "S2", derived=False),
        OURS: sampler(in_memory, name, size, few),
        MAPPED: sampler(mapped, name, size, few),
        BY_HAND: baseline(baselines.numpy_by_hand, name, size, few),
        DREAMER: baseline(baselines.dreamer, name, size, few),
        AMAGO: baseline(lambda data, *sizes: baselines.amago(amago_files(data.name), *sizes), name, size, 1),
    }
    for label, package, build in (
        (TORCHRL, "torchrl", partial(baselines.torchrl, cached=False)),
        (CACHED, "torchrl", partial(baselines.torchrl, cached=True)),
        (CHUNKS, "cpprb", baselines.cpprb),
    ):
        installed = installed_version(package)
        if installed:
            result[f"{label} {installed}"] = baseline(build, name, size, few)
        else:
            result[label] = Provider(None)
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


def comparisons(name: str) -> tuple[Comparison, ...]:
    """A comparison for each batch size. `minimum`: a batch of whole windows is read and written."""
    what = {"S1": "float32[39], 2000 trajectories, 0.2 GB", "S2": "uint8[3, 64, 64], 3 GB"}[name]
    observation = {"S1": 4 * 39, "S2": 3 * 64 * 64}[name]
    result = []
    for size in BATCHES:
        case = f"{name}, B {size}"
        amount = 2 * size * LENGTH * (observation + 40) / 1e9
        result.append(
            Comparison(
                case,
                f"{what}; windows of {LENGTH}",
                partial(providers, name, size),
                (PLAIN, STREAM),
                "C gather",
                OURS,
                minimum=(amount, "GB"),
                reference=(PLAIN, STREAM, OURS, MAPPED),
                rounds=15 if name == "S1" else 7,
                memory="no",
                goals=_goals(case, name),
            )
        )
    return tuple(result)


def measured(task: str) -> dict[str, Figures]:
    """Figures, in this process, of the comparisons on S1 or S2, or of "case: part"."""
    torch.set_num_threads(THREADS)
    if task in STORED:
        with CLOSING:
            return {comparison.case: measure_times(comparison, comparison.rounds) for comparison in comparisons(task)}
    case, part = task.split(": ")
    try:
        return {task: CASES[case].parts[part]()}
    except Exception as error:
        traceback.print_exc()
        return {task: Figures(missing={part: f"{type(error).__name__}: {error}".splitlines()[0]})}


def _found(task: str) -> dict[str, Figures]:
    print(f"  {task}", flush=True)
    found = in_process("bench.groups.replay", task, MODE)
    return {task: Figures(missing={"process": found})} if isinstance(found, str) else found


def replay_beside_baselines() -> list[Row]:
    """Windows of the replay beside every baseline."""
    result: list[Row] = []
    for name in STORED:
        found = _found(name)
        for comparison in comparisons(name):
            figures = found.get(comparison.case, found.get(name))
            result += rows(comparison, MODE, THREADS, figures, Figures())
            result += goal_rows(comparison, MODE, THREADS, figures, Figures())
    return result


def replay_costs() -> list[Row]:
    """What large stores, appending, waiting, opening and memory cost."""
    result: list[Row] = []
    for name, case in CASES.items():
        figures = Figures()
        for part in case.parts:
            for found in _found(f"{name}: {part}").values():
                figures.values |= found.values
                figures.missing |= found.missing
        result += case.rows(name, MODE, figures)
    return result


def write_table(records: list[Record]) -> list[str]:
    """A table for each set of trajectories and batch size, one of what else a replay costs, and one of the goals."""
    goals = [row for row in records if row["case"] == "goal"]
    measured = [row for row in records if row["case"] != "goal"]
    comparisons = [row for row in measured if row["unit"] == "ms"]
    others = [row for row in measured if row["unit"] != "ms"]
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in comparisons):
        mine = [row for row in measured if row["case"] == case]
        about = next(row for row in mine if row["unit"])
        lines += [f"**{case}** ({about['shape']}):", ""]
        lines += [*table(["who", "ms", "p20 to p80", "x twohot", f"x {about['limit']}", "GB/s"], _windows(mine)), ""]
    head = ["what else", "median", "p20 to p80", "unit", "against"]
    lines += [
        *table(head, [figure_row(row) for row in others if row["unit"]]),
        "",
        "Goals:",
        "",
        *goals_table(goals),
        "",
    ]
    shapes = dict.fromkeys(f"{row['case']}: {row['shape']}" for row in others if row["shape"])
    return [
        *lines,
        f"Two threads; medians of calls in turn, in one process. {'; '.join(shapes)}. Before any time is taken, the "
        "windows of each must be consecutive rows of what was stored. *GB/s*: a batch of whole windows, read and "
        "written. The C gather draws nothing and knows every address; twohot also derives previous action and reward, "
        "time and mask, and so does the gather. cpprb's chunks start nowhere else and are not masked; windows of "
        "DreamerV3's replay cross ends. The official AMAGO dataset and DreamerV3's replay are written in our own lines "
        f"with the same bytes. {conditions(records[0])}. `python -m bench.run replay`.",
    ]


def _windows(rows: list[Record]) -> list[list[str]]:
    """Each provider's time for a batch; one that could not be measured says so."""
    body = []
    for row in rows:
        if not row["unit"]:
            body.append([row["provider"], row["mode"], *[""] * 4])
            continue
        spread = f"{number(row['p20'])} to {number(row['p80'])}"
        shares = [cell(row, key) for key in ("speedup", "share_of_limit", "rate")]
        body.append([row["provider"], number(row["p50"]), spread, *shares])
    return body


GROUP = Group(
    measures="replay beside every baseline: about five minutes, 8 GB of memory and 12 GB of disk",
    gates=("replay/test_replay.py", "replay/test_properties.py"),
    cases=(replay_beside_baselines, replay_costs),
    tables=(Table("replay", write_table, ("replay",)),),
)


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps({name: asdict(each) for name, each in measured(sys.argv[1]).items()}))
