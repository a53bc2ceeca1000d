"""The quickstart trained with three seeds, against a uniformly random policy."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row, SeedResult, percentiles
from bench.tables import conditions, table


def quickstart_seeds() -> list[Row | SeedResult]:
    """Train the quickstart with three seeds: returns against random, time shares, speeds."""
    from rich.console import Console

    from twohot.presets import PRESETS
    from twohot.reports.report import results_table
    from twohot.runs.metrics import read_metrics
    from twohot.training.progress import Progress
    from twohot.training.train import train

    config = PRESETS["quickstart"].config
    seeds = (0, 1, 2)
    table: list[Row | SeedResult] = []
    figures: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as directory:
            run = Path(directory) / "run"
            start = time.perf_counter()
            train(replace(config, seed=seed), run, Progress(Console()))
            minutes = (time.perf_counter() - start) / 60
            results = results_table(run)
            rows = read_metrics(run)
        multipliers = dict(zip(config.environment.tasks, config.environment.reward_multipliers, strict=True))
        table += [
            SeedResult(
                result.task,
                multipliers[result.task],
                seed,
                result.agent_return,
                result.agent_error,
                result.random_return,
                result.random_error,
                config.evaluate.final_trials,
            )
            for result in results
        ]
        updates = [row.metrics for row in rows if row.kind == "update"]
        for phase in ("collect", "sample", "update", "evaluate"):
            share = float(np.mean([row[f"time/{phase}_share"] for row in updates]))
            figures.setdefault((f"time in {phase}", "share"), []).append(share)
        collected = [row.metrics["collect/steps_per_second"] for row in rows if row.kind == "collect"]
        figures.setdefault(("collecting", "environment steps/s"), []).append(float(np.median(collected)))
        figures.setdefault(("learning", "updates/s"), []).append(
            float(np.median([row["updates_per_second"] for row in updates]))
        )
        figures.setdefault(("whole run", "minutes"), []).append(minutes)
    shape = f"{len(seeds)} seeds"
    for (name, unit), values in figures.items():
        table.append(Row("quickstart", name, "train", *percentiles(np.array(values)), unit, shape))
    return table


def write_table(records: list[Record]) -> list[str]:
    """Each task's return for each seed beside random's, and whether the margin is outside the spread of the seeds."""
    seeds = sorted({row["seed"] for row in records})
    body, beaten = [], 0
    tasks = list(dict.fromkeys(row["task"] for row in records))
    for task in tasks:
        mine = {row["seed"]: row for row in records if row["task"] == task}
        agent = [float(mine[seed]["agent_return"]) for seed in seeds]
        random = [float(mine[seed]["random_return"]) for seed in seeds]
        spread = max(stdev(agent), stdev(random))
        margin = mean(agent) - mean(random)
        better = margin > 2 * spread and min(agent) > max(random)
        beaten += better
        body.append(
            [
                task,
                f"x {float(mine[seeds[0]]['multiplier']):g}",
                *(f"{value:.2f}" for value in agent),
                f"{mean(random):.2f}",
                f"{margin:+.2f}",
                f"{spread:.2f}",
                "yes" if better else "no",
            ]
        )
    head = ["task", "reward", *(f"seed {seed}" for seed in seeds), "random", "margin", "spread", "beats random"]
    return [
        *table(head, body),
        "",
        f"Raw returns, {records[0]['trials']} trials each, without exploration noise. *Margin*: mean less random's. "
        "*Spread*: standard deviation over the three seeds (the larger of the agent's and random's). A task counts as "
        f"beaten where the margin exceeds twice the spread and the worst seed exceeds random's best: {beaten} of "
        f"{len(tasks)}. {conditions(records[0])}; `python -m bench.run quickstart`.",
    ]


GROUP = Group(
    measures="trains three seeds of the quickstart: about a quarter of an hour on two cores",
    gates=("data/test_rollout.py", "learning/test_objectives.py", "learning/test_learner.py", "training/test_train.py"),
    cases=(quickstart_seeds,),
    tables=(Table("quickstart", write_table, ("quickstart_returns",), "README.md", "first"),),
    long=True,
)
