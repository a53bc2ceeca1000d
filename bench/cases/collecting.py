"""Environment steps/s of an agent that collects, beside the official code with the same network."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from bench.harness.compare import NOT_INSTALLED
from bench.harness.measure import Row, percentiles
from bench.harness.worker import CollectingWorkload, Worker, WorkerCommand, as_argument, official_command

OURS = "twohot"
OFFICIAL = {"official, in process": "sync", "official, subprocesses": "async"}
FASTER = 8.0
ROUNDS = 7


def collecting_beside_the_official_code() -> list[Row]:
    """Environment steps/s of 16 actors with one network: ours, and the official loop in one process and in many."""
    workload = CollectingWorkload()
    case = f"collecting, {workload.shape}"
    rates: dict[str, list[float]] = {}
    rows = []
    with ExitStack() as stack:
        # The processes are killed, and leave their files.
        directory = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        known = official_command("collect", {"TORCHDYNAMO_DISABLE": "1", "TMPDIR": directory})
        ours = WorkerCommand((sys.executable, "-m", "bench.cases.collect_step"))
        who = {OURS: (ours, workload)}
        who |= {name: (known, replace(workload, mode=mode)) for name, mode in OFFICIAL.items()}
        workers = {}
        for name, (command, own) in who.items():
            worker = command and stack.enter_context(Worker(name, command, as_argument(own)))
            error = worker.error if worker else NOT_INSTALLED
            if error:
                rows.append(Row(case, name, error, 0, 0, 0, ""))
            else:
                workers[name] = worker
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                rates.setdefault(name, []).append(workload.actors * workload.steps / worker.ask("step"))
    for name, values in rates.items():
        about = ("environment steps/s", workload.shape, workload.threads)
        rows.append(Row(case, name, "collect", *percentiles(np.array(values)), *about))
    rows.append(_goal(case, rates, workload.threads))
    return rows


def _goal(case: str, rates: dict[str, list[float]], threads: int) -> Row:
    """How many times faster than the better of the official forms, over rounds."""
    text, target = f"{case}: against the official code", f">= {FASTER:g}"
    others = [rates[name] for name in OFFICIAL if name in rates]
    if not others:
        return Row("goal", text, "collect", 0, 0, 0, "x", threads=threads, target=target, met="not measured")
    best = max(others, key=np.median)
    times = np.array(rates[OURS]) / np.array(best)
    met = "yes" if np.median(times) >= FASTER else "no"
    return Row("goal", text, "collect", *percentiles(times), "x", threads=threads, target=target, met=met)
