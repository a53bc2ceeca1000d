"""What algorithms that are not learnt return in the bandits and MDPs of the suite `rl2`, beside what is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.baselines.exploration import (
    ExplorationBonus,
    KnownMdp,
    OptimisticModel,
    PosteriorSampling,
    Uniform,
    finite_gittins,
    gittins,
    optimal_bandit,
    play,
    thompson,
    ucb1,
)
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.tables import conditions, table
from twohot.envs.suites.rl2 import CORE, TASKS

BANDIT_TRIALS, MDP_TRIALS, TRIED = 10_000, 1_000, 300
"""Trials that are reported; those by which a constant is chosen are others."""
PUBLISHED_TRIALS = 1000
_STEPS = np.geomspace(1e-4, 1.0, 21)
UNIFORM, EXACT, KNOWN = "uniform", "exact optimum", "all known"
BANDITS = (UNIFORM, "Thompson", "UCB1", "Gittins", "finite horizon", EXACT)
MDPS = (UNIFORM, "PSRL", "OPSRL", "UCRL2", "BEB", KNOWN)
PUBLISHED: dict[str, dict[str, float]] = {
    "bandit-10x5": {UNIFORM: 5.0, "Thompson": 5.7, "UCB1": 6.7, "Gittins": 6.6, "RL^2": 6.7, "SNAIL": 6.6},
    "bandit-10x50": {UNIFORM: 5.1, "Thompson": 5.2, "UCB1": 6.6, "Gittins": 6.5, "RL^2": 6.8, "SNAIL": 6.7},
    "bandit-100x5": {UNIFORM: 49.9, "Thompson": 74.7, "UCB1": 78.0, "Gittins": 78.3, "RL^2": 78.7, "SNAIL": 79.1},
    "bandit-100x10": {UNIFORM: 49.9, "Thompson": 76.7, "UCB1": 82.4, "Gittins": 82.8, "RL^2": 83.5, "SNAIL": 83.5},
    "bandit-100x50": {UNIFORM: 49.8, "Thompson": 64.5, "UCB1": 84.3, "Gittins": 85.2, "RL^2": 84.9, "SNAIL": 85.1},
    "mdp-10": {
        UNIFORM: 100.1,
        "PSRL": 138.1,
        "OPSRL": 144.1,
        "UCRL2": 146.6,
        "BEB": 150.2,
        "RL^2": 156.2,
        "SNAIL": 159.1,
    },
    "mdp-25": {
        UNIFORM: 250.2,
        "PSRL": 408.8,
        "OPSRL": 425.2,
        "UCRL2": 424.1,
        "BEB": 427.8,
        "RL^2": 445.7,
        "SNAIL": 447.2,
    },
}
"""Mean returns of 1000 trials in the tables of Duan et al. (2016) and Mishra et al. (2018), RL^2 with a GRU."""


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's forms, by the constant that tells them apart; the one that returns most is reported."""

    forms: Mapping[str, Callable[..., Any]]


def algorithms(task: str) -> dict[str, Algorithm]:
    """Those that a task is played by, with constants of the published tables' grids that did well in first looks."""
    problem = TASKS[task]
    if not problem.is_bandit:
        return {
            UNIFORM: Algorithm({"": Uniform}),
            "PSRL": Algorithm({"": PosteriorSampling}),
            "OPSRL": Algorithm({f"{count} samples": partial(PosteriorSampling, samples=count) for count in (10,)}),
            "UCRL2": Algorithm(
                {f"scaling {scaling:.2g}": partial(OptimisticModel, scaling=scaling) for scaling in _STEPS[17:19]}
            ),
            "BEB": Algorithm(
                {f"beta {beta:.2g}": partial(ExplorationBonus, beta=beta) for beta in 200 * _STEPS[14:16]}
            ),
            KNOWN: Algorithm({"": KnownMdp}),
        }
    return {
        UNIFORM: Algorithm({"": Uniform}),
        "Thompson": Algorithm({"": thompson}),
        "UCB1": Algorithm({f"c {c:.1f}": ucb1(c) for c in (0.1, 0.2, 0.3, 0.4)}),
        "Gittins": Algorithm(
            {f"discount {discount}": gittins(problem.steps, discount) for discount in (0.9, 0.99, 0.999)}
        ),
        "finite horizon": Algorithm({"": finite_gittins((1.0,) * problem.steps)}),
    }


def row(task: str, name: str, constant: str, returns: np.ndarray) -> Row:
    """A mean return, as `p50`, with one standard error to each side of it."""
    mean, deviation = float(returns.mean()), float(returns.std())
    error = deviation / np.sqrt(len(returns))
    published, met = PUBLISHED[task].get(name), ""
    if published is not None:
        # Theirs is a mean of fewer trials, and rounded.
        allowed = 2 * np.hypot(error, deviation / np.sqrt(PUBLISHED_TRIALS)) + 0.05
        met = "yes" if abs(mean - published) <= allowed else "no"
    return Row(
        *(task, name, constant, mean - error, mean, mean + error, "return", f"{len(returns)} trials"),
        target="" if published is None else f"{published}",
        met=met,
    )


def unlearnt_returns() -> list[Row]:
    """Every algorithm on the presets' tasks: the constant that did best in other trials, then its mean return."""
    rows = []
    for task in CORE:
        for name, algorithm in algorithms(task).items():
            constant = next(iter(algorithm.forms))
            if len(algorithm.forms) > 1:
                tried = {form: play(task, make, TRIED, 0).mean() for form, make in algorithm.forms.items()}
                constant = max(tried, key=lambda form: tried[form])
            trials = BANDIT_TRIALS if TASKS[task].is_bandit else MDP_TRIALS
            rows.append(row(task, name, constant, play(task, algorithm.forms[constant], trials, 1)))
            print(f"  {rows[-1].case} {name} {constant}: {rows[-1].p50:.2f}", flush=True)
        if TASKS[task].is_bandit and TASKS[task].steps == 10:
            best = optimal_bandit(10, TASKS[task].actions)
            rows.append(Row(task, EXACT, "", best, best, best, "return", "dynamic programming"))
    return rows


def write_table(records: list[Record]) -> list[str]:
    """Bandits, then MDPs: our mean and its error, the published one in brackets, and the learnt ones that are."""
    lines = []
    for names in (BANDITS, MDPS):
        body = []
        for task in CORE:
            own = {record["provider"]: record for record in records if record["case"] == task}
            if not set(own) & (set(names) - {UNIFORM}):
                continue
            cells = [_cell(own[name]) if name in own else "" for name in names]
            body.append([f"`{task}`", *cells, *(f"{PUBLISHED[task][name]}" for name in ("RL^2", "SNAIL"))])
        lines += [*table(["task", *names, "RL^2 (GRU)", "SNAIL"], body), ""]
    differing = [record for record in records if record["met"] == "no"]
    named = ", ".join(f"{record['provider']} in `{record['case']}`" for record in differing) or "none"
    lines.append(
        f"Mean returns with their standard errors, of {BANDIT_TRIALS:,} trials (bandits) and {MDP_TRIALS:,} (MDPs); in "
        "brackets those published, which are means of 1000 trials, as are RL^2 and SNAIL. *Finite horizon*: the index "
        "for the pulls that are left (Niño-Mora 2011). *Exact optimum*: dynamic programming over all that can have "
        "been seen. *All known*: value iteration on the MDP itself. Constants were chosen by other trials. Further "
        f"from the published mean than twice the error of the difference: {named}. "
        f"{conditions(records[0])}; `python -m bench.run rl2`."
    )
    return lines


def _cell(record: Record) -> str:
    mean, error = float(record["p50"]), float(record["p50"]) - float(record["p20"])
    text = f"{mean:.2f}" if error == 0 else f"{mean:.2f} ± {error:.2f}"
    return f"{text} ({record['target']})" if record["target"] else text


GROUP = Group(
    measures="plays bandits and MDPs by algorithms that are not learnt: ten minutes on one core",
    gates=("envs/test_rl2.py", "bench/test_exploration.py"),
    cases=(unlearnt_returns,),
    tables=(Table("rl2", write_table, ("rl2",), "docs/benchmarks/rl2.md", "first"),),
    long=True,
)
