"""Two small meta-learning tasks, trained by twohot's presets and by the official code for the same time.

Each run has a process of its own, one after the other. A run of ours is as long as its preset; the official code is
given the time of our longest, the preset's sizes and constants as far as its options allow, and as many threads.
docs/official.md says how it is set up and what differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness.compare import NOT_INSTALLED
from bench.harness.group import ROOT
from bench.harness.measure import Record, Row, percentiles
from bench.tables import cell, conditions, goals_table, table
from twohot.config.files import load_config, to_json
from twohot.envs.suites import dark_key, frozen_lake
from twohot.presets import PRESETS
from twohot.runs.metrics import read_metrics

SCRIPT = ROOT / "bench" / "baselines" / "official" / "train.py"
OURS, OFFICIAL, RANDOM = "twohot", "official, Agent", "random"
SEEDS = (0, 1)
"""Of our runs; the official code runs with the first."""
STEPS, UPDATES, SECONDS, TOTAL = "environment steps", "updates", "training", "whole trial"


@dataclass(frozen=True)
class Task:
    """A preset, what its task is called, and what the last attempt's return has to be, and be over the first's."""

    name: str
    preset: str
    last: float
    rise: float


TASKS = {
    "frozen_lake": Task("Meta-Frozen-Lake 4 x 4", "frozen-lake-small", last=0.8, rise=1.2),
    "dark_key": Task("Dark-Key-To-Door 4 x 4", "dark-key-small", last=1.6, rise=1.2),
}


@dataclass(frozen=True)
class Outcome:
    """What a training run came to: mean returns by attempt, without exploration, and what it took."""

    attempts: np.ndarray
    steps: int = 0
    updates: int = 0
    seconds: float = 0.0


def train_ours(preset: str, seed: int, run: Path) -> tuple[Outcome, Outcome]:
    """Train the preset in a process of its own; and the outcome of the uniformly random policy."""
    command = [sys.executable, "-m", "twohot.cli.main", "train", preset, "--seed", str(seed), "--run", str(run)]
    subprocess.run(command, env=_environment(preset), check=True, stdout=subprocess.DEVNULL)
    return outcome_of(run, "evaluation"), outcome_of(run, "random")


def outcome_of(run: Path, kind: str) -> Outcome:
    """The last row of its kind in a run's metrics: "evaluation" or "random"."""
    row = [row for row in read_metrics(run) if row.kind == kind][-1]
    (task,) = load_config(run / "config.json").environment.tasks
    prefix = f"{kind}/return/{task}/attempt_"
    found = {int(name.removeprefix(prefix)): value for name, value in row.metrics.items() if name.startswith(prefix)}
    attempts = np.array([found[number] for number in sorted(found)])
    return Outcome(attempts, row.environment_steps, row.updates, row.seconds)


def train_official(preset: str, seed: int, seconds: float, agent: str = "agent") -> Outcome | None:
    """Train the official code for so many seconds; None where it is not set up.

    Raises:
        RuntimeError: it failed; the message is the last line that it printed.
    """
    python, checkout = (os.environ.get(f"TWOHOT_OFFICIAL_{name}") for name in ("PYTHON", "CHECKOUT"))
    if not python or not checkout:
        return None
    config = replace(PRESETS[preset].config, seed=seed)
    order = json.dumps({"config": to_json(config), "seconds": seconds, "agent": agent, "task": task_options(preset)})
    own = {"PYTHONPATH": checkout, "WANDB_MODE": "disabled", "TORCHDYNAMO_DISABLE": "1"}
    environment = {**_environment(preset), **own}
    done = subprocess.run([python, str(SCRIPT), order], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the official code failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return official_outcome(json.loads(done.stdout.splitlines()[-1]))


def task_options(preset: str) -> dict[str, Any]:
    """The options of the preset's one task, as its suite has them."""
    environment = PRESETS[preset].config.environment
    (task,) = environment.tasks
    return {"dark_key": dark_key, "frozen_lake": frozen_lake}[environment.suite].TASKS[task]


def official_outcome(answer: dict[str, Any]) -> Outcome:
    """What bench/baselines/official/train.py answers, with its returns [trials, attempts] averaged over the trials."""
    return Outcome(np.mean(answer["returns"], axis=0), answer["steps"], answer["updates"], answer["seconds"])


def _environment(preset: str) -> dict[str, str]:
    threads = str(PRESETS[preset].config.threads)
    return {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}


def rows(task: Task, provider: str, outcomes: Sequence[Outcome], trained: bool = True) -> list[Row]:
    """A row for the return of each attempt and of the trial and, of what was trained, for what it took; over seeds."""
    config = PRESETS[task.preset].config
    shape = f"{len(outcomes)} seed{'s' * (len(outcomes) > 1)}, {config.evaluate.final_trials} trials each"

    def row(what: str, unit: str, get: Callable[[Outcome], float]) -> Row:
        values = np.array([get(outcome) for outcome in outcomes], np.float64)
        return Row(task.name, provider, what, *percentiles(values), unit, shape, config.threads)

    attempts = range(len(outcomes[0].attempts))
    result = [row(f"attempt {index + 1}", "return", lambda one, at=index: one.attempts[at]) for index in attempts]
    result.append(row(TOTAL, "return", lambda one: one.attempts.sum()))
    if trained:
        result += [
            row(STEPS, "steps", lambda one: one.steps),
            row(UPDATES, "updates", lambda one: one.updates),
            row(SECONDS, "s", lambda one: one.seconds),
        ]
    return result


def goals(task: Task, outcomes: Sequence[Outcome], official: Outcome | None) -> list[Row]:
    """Whether every seed of ours is good in its last attempt, better than in its first, and than the official code."""
    last = np.array([outcome.attempts[-1] for outcome in outcomes])
    first = np.array([outcome.attempts[0] for outcome in outcomes])
    totals = np.array([outcome.attempts.sum() for outcome in outcomes])
    threads = PRESETS[task.preset].config.threads

    def goal(what: str, values: np.ndarray | None, minimum: float, unit: str) -> Row:
        met = "not measured" if values is None else "yes" if values.min() >= minimum else "no"
        found = (0.0, 0.0, 0.0) if values is None else percentiles(values)
        text = f"{task.name}: {what}"
        return Row("goal", text, "train", *found, unit, "every seed", threads, target=f">= {minimum:g}", met=met)

    beside = totals / max(official.attempts.sum(), 1e-9) if official is not None else None
    return [
        goal("return of the last attempt", last, task.last, "return"),
        goal("return of the last attempt over the first's", last / np.maximum(first, 1e-9), task.rise, "x"),
        goal("return of a trial over the official code's", beside, 1.0, "x"),
    ]


def trained_beside_the_official_code(task: Task) -> list[Row]:
    """The rows of one task."""
    ours, random = [], []
    for seed in SEEDS:
        print(f"  {OURS}, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            one, other = train_ours(task.preset, seed, Path(directory) / "run")
        ours.append(one)
        random.append(other)
    print(f"  {OFFICIAL}", flush=True)
    official = train_official(task.preset, SEEDS[0], max(one.seconds for one in ours))
    result = rows(task, OURS, ours)
    if official is None:
        result.append(Row(task.name, OFFICIAL, NOT_INSTALLED, 0, 0, 0, ""))
    else:
        result += rows(task, OFFICIAL, [official])
    return [*result, *rows(task, RANDOM, random, trained=False), *goals(task, ours, official)]


def write_table(records: list[Record]) -> list[str]:
    """For each task, who got how much in which attempt after which training; and the goals."""
    goals = [row for row in records if row["case"] == "goal"]
    measured = [row for row in records if row["case"] != "goal"]
    lines: list[str] = []
    for task in dict.fromkeys(row["case"] for row in measured):
        own = [row for row in measured if row["case"] == task]
        modes = list(dict.fromkeys(row["mode"] for row in own if row["unit"]))
        body = []
        for provider in dict.fromkeys(row["provider"] for row in own):
            found = {row["mode"]: row for row in own if row["provider"] == provider}
            missing = next((mode for mode, row in found.items() if not row["unit"]), "")
            name = f"{provider}: {missing}" if missing else f"{provider} ({next(iter(found.values()))['shape']})"
            body.append([name, *(cell(found.get(mode, {}), "p50") for mode in modes)])
        head = [mode.removeprefix("attempt ") for mode in modes]
        lines += [f"**{task}**, return by attempt:", "", *table(["who", *head], body), ""]
    return [
        *lines,
        "Goals:",
        "",
        *goals_table(goals),
        "",
        "Medians over seeds; returns without exploration noise. The attempts of Dark-Key-To-Door are tenths of a "
        "trial. *Training* is in seconds on the preset's threads, evaluations included; "
        "the official code, with the preset's sizes and constants, is given the same time budget. `docs/official.md` "
        f"says how it is set up and what differs. {conditions(records[0])}. "
        "`python -m bench.run frozen_lake dark_key`.",
    ]
