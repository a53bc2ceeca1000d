"""Environment steps/s of an agent that collects, beside the official code with the same network."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace

import numpy as np

from contest import NOT_INSTALLED
from frame import Row, percentiles
from learner import HERE, Provider, Worker, official
from work import Collecting

OURS = "twohot"
OFFICIAL = {"official, in process": "sync", "official, subprocesses": "async"}
FASTER = 8.0
ROUNDS = 7


def collecting_beside_the_official_code() -> list[Row]:
    """Environment steps/s of 16 actors with one network: ours, and the official loop in one process and in many."""
    work = Collecting()
    case = f"collecting, {work.shape}"
    rates: dict[str, list[float]] = {}
    rows = []
    with ExitStack() as stack:
        # The processes are killed, and leave their files.
        directory = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        known = official("collect.py", {"TORCHDYNAMO_DISABLE": "1", "TMPDIR": directory})
        ours = Provider(sys.executable, HERE / "collect_step.py", {})
        who = {OURS: (ours, work), **{name: (known, replace(work, mode=mode)) for name, mode in OFFICIAL.items()}}
        workers = {}
        for name, (provider, own) in who.items():
            worker = provider and stack.enter_context(Worker(name, provider, json.dumps(asdict(own))))
            obstacle = worker.obstacle if worker else NOT_INSTALLED
            if obstacle:
                rows.append(Row(case, name, obstacle, 0, 0, 0, ""))
            else:
                workers[name] = worker
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                rates.setdefault(name, []).append(work.actors * work.steps / worker.ask("step"))
    for name, values in rates.items():
        rows.append(
            Row(case, name, "collect", *percentiles(np.array(values)), "environment steps/s", work.shape, work.threads)
        )
    rows.append(_goal(case, rates, work.threads))
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
