"""The grid world: steps/s beside XLand-MiniGrid, into the replay, and the time of a rule set."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from bench.harness.group import ROOT, Group, Table
from bench.harness.measure import Record, Row, interleaved, percentiles
from bench.tables import conditions, figure_row, goals_table, table

ENVS, STEPS, ROUNDS = 256, 2000, 7
BATCHES = (256, 1024, 4096)
UNIT = "steps/s"
TRIED = 1000
RETURNS = (
    *("simple-r1-7x7-steps10", "simple-r1-7x7-depth1-steps10", "simple-r1-7x7-depth2-steps10"),
    *("trivial-r1-7x7-steps30", "small-r1-7x7-steps30", "small-r4-13x13", "medium-r4-13x13-steps250"),
    "deep-r4-13x13-steps300",
)
OURS = "twohot, 256 environments"


def small_world() -> list[Row]:
    """9 x 9, one room, one rule: steps/s of random actions, beside XLand-MiniGrid, one core."""
    return _beside("9 x 9, one rule", 9, 1, {"max_depth": 1, "distractors": 3}, 3_000_000, 8.0)


def large_world() -> list[Row]:
    """13 x 13, four rooms, nine rules: the same."""
    return _beside("13 x 13, 4 rooms, 9 rules", 13, 4, {"max_depth": 5, "distractors": 3, "dead_ends": 4}, 1_500_000)


def _beside(
    name: str, size: int, rooms: int, generator: dict[str, int], at_least: float, ratio: float | None = None
) -> list[Row]:
    from twohot.envs.xgrid import Benchmark, XGridVector

    benchmark = Benchmark(min_depth=generator["max_depth"], **generator)
    vector = XGridVector(ENVS, benchmark, height=size, width=size, rooms=rooms)
    vector.reset(seed=0)
    random = np.random.default_rng(0)

    def ours() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            vector.step(random.integers(6, size=ENVS))
        return ENVS * STEPS / (time.perf_counter() - start)

    rules = int(np.count_nonzero(vector.rule_set(0).rules[:, 0]))
    shape = f"{size} x {size}, {rooms} rooms, {rules} rules, view 5 x 5, autoreset, random actions drawn in turn"
    with ExitStack() as closing:
        providers: dict[str, Callable[[], float]] = {OURS: ours}
        rows = []
        if find_spec("xminigrid") is None:
            rows = [Row(name, "XLand-MiniGrid", "not installed", 0, 0, 0, "")]
        else:
            folder = Path(closing.enter_context(tempfile.TemporaryDirectory()))
            goals, rule_arrays, objects, _ = benchmark.arrays(0, 1024)
            most = int((objects[..., 0] > 0).sum(1).max())
            used = {"rules": rule_arrays[:, :rules], "objects": objects[:, :most]}
            np.savez(folder / "arrays.npz", goals=goals, **used)
            for envs in BATCHES:
                command = ["bench/baselines/xland_minigrid.py", *map(str, (envs, size, rooms)), folder / "arrays.npz"]
                providers[f"XLand-MiniGrid, {envs} environments"] = _asked(closing, [sys.executable, *command])
        core = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(core)})
        closing.callback(os.sched_setaffinity, 0, core)
        figures = interleaved(providers, ROUNDS)
    best = max((np.median(figures[each]) for each in providers if each != OURS), default=0.0)
    measured = float(np.median(figures[OURS]))
    rows += [
        Row(
            *(name, each, "collect", *percentiles(values), UNIT, shape),
            speedup="" if each == OURS else round(measured / float(np.median(values)), 1),
        )
        for each, values in figures.items()
    ]
    rows.append(_goal(name, measured, at_least, UNIT))
    if ratio is not None and best:
        rows.append(_goal(f"{name}: x XLand-MiniGrid at its best batch", float(measured / best), ratio, "x"))
    return rows


def _asked(closing: ExitStack, command: list[str | Path]) -> Callable[[], float]:
    """A process that measures a round when it is asked."""
    process = closing.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    closing.callback(process.kill)
    answers = process.stdout
    if answers.readline() != "ready\n":
        raise RuntimeError(f"expected {command[1]} to get ready, it ended with {process.wait()}")

    def ask() -> float:
        print(file=process.stdin, flush=True)
        return float(answers.readline())

    return ask


def into_replay() -> list[Row]:
    """Attempts of 256 environments of the suite into the replay, with the uniformly random policy."""
    from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
    from twohot.data.spaces import replay_schema
    from twohot.envs import make_vector, reset_seeds
    from twohot.replay import Replay
    from twohot.spaces import as_dict_space

    torch.set_num_threads(1)
    steps, task = 500, "small-r1-9x9"
    vector = make_vector("xgrid", (task,), environments=ENVS, attempts=4)
    space = vector.single_action_space
    schema = replay_schema(as_dict_space(vector.single_observation_space), space)
    replay = Replay.create(schema, capacity_steps=4 * ENVS * steps)
    player = Rollout(vector, UniformPolicy(space), generator=seeded_generator(0, 0), writer=replay.writer(ENVS))
    player.restart(reset_seeds(0, 0, ENVS))

    def rate() -> float:
        start = time.perf_counter()
        player.collect(steps)
        return ENVS * steps / (time.perf_counter() - start)

    values = interleaved({task: rate}, 2 * ROUNDS)[task]
    shape = f"{ENVS} environments, 4 attempts, uniform policy"
    return [
        Row("into replay", task, "collect", *percentiles(values), UNIT, shape),
        _goal("through attempts into the replay", float(np.median(values)), 500_000, UNIT),
    ]


def rule_sets() -> list[Row]:
    """The time of one rule set of each benchmark, and of a million of them."""
    from twohot.envs.xgrid import BENCHMARKS

    rows, slowest = [], 0.0
    for name, benchmark in BENCHMARKS.items():

        def once(benchmark=benchmark) -> float:
            start = time.perf_counter()
            benchmark.arrays(0, 20_000)
            return (time.perf_counter() - start) / 20_000 * 1e6

        values = interleaved({name: once}, ROUNDS)[name]
        rows.append(Row("a rule set", name, "make", *percentiles(values), "us", "of 20,000 in a row"))
        slowest = max(slowest, float(np.median(values)))
    rows.append(_goal("a rule set made, slowest benchmark", slowest, 20, "us", at_most=True))
    return rows


def returns() -> list[Row]:
    """Returns of an attempt at held-out tasks: uniformly random actions, and an expert that is told the rules."""
    from bench.baselines.xgrid_expert import Expert, LostError
    from twohot.envs.suites.xgrid import parse
    from twohot.envs.xgrid import XGridVector

    rows = []
    for task in RETURNS:
        options = parse(task)
        del options["reset_step"]  # of the suite
        vector = XGridVector(TRIED, **options, split="test")
        vector.reset(seed=0)
        random, scores = np.random.default_rng(0), np.full(TRIED, np.nan)
        while np.isnan(scores).any():
            _, reward, terminated, truncated, _ = vector.step(random.integers(6, size=TRIED))
            first = (terminated | truncated) & np.isnan(scores)
            scores[first] = reward[first]
        told = []
        one = XGridVector(1, **options, split="test", autoreset_mode=AutoresetMode.DISABLED)
        for seed in range(TRIED):
            one.reset(seed=seed)
            expert = Expert(one)
            with suppress(LostError):
                expert.play()
            told.append(expert.reward)
        for name, values in (("uniformly random", scores), ("told the rules", np.array(told))):
            mean, error = float(np.mean(values)), float(np.std(values) / np.sqrt(TRIED))
            shape = f"mean of {TRIED} attempts, and one standard error on either side"
            rows.append(Row(f"return, {task}", name, "play", mean - error, mean, mean + error, "", shape))
    return rows


def _goal(name: str, measured: float, target: float, unit: str, at_most: bool = False) -> Row:
    met = measured <= target if at_most else measured >= target
    asked = f"{'at most' if at_most else 'at least'} {target:,.4g}" if target < 1000 else f"at least {target:,.0f}"
    return Row("goal", name, "collect", *[measured] * 3, unit, target=asked, met="yes" if met else "no")


def write_table(records: list[Record]) -> list[str]:
    """Each figure, what twohot is beside it, and the goals; nothing where returns alone were measured."""
    body = []
    for row in (row for row in records if row["case"] != "goal" and row["unit"]):
        what, median, spread, unit, _ = figure_row(row)
        body.append([what, median, spread, unit, f"{row['speedup']} x" if row["speedup"] else ""])
    if not body:
        return []
    return [
        *table(["what", "median", "p20 to p80", "unit", "twohot"], body),
        "",
        *goals_table([row for row in records if row["case"] == "goal"]),
        "",
        "One core; rounds in turn, XLand-MiniGrid in a process for each number of environments, all steps of "
        f"a round in one compiled loop; ours through gymnasium's interface, a call a step. Ours draws a new rule set "
        f"at each reset, XLand-MiniGrid replays its own. {conditions(records[0])}. "
        "`python -m bench.run xgrid`.",
    ]


def write_returns(records: list[Record]) -> list[str]:
    """Random play and the expert on each task: the same on every processor, so the newest rows."""
    scores: dict[str, dict[str, str]] = {f"return, {task}": {} for task in RETURNS}
    for row in (row for row in records if row["mode"] == "play" and row["case"] in scores):
        error = float(row["p80"]) - float(row["p50"])
        scores[row["case"]][row["provider"]] = f"{float(row['p50']):.3f} ± {error:.3f}"
    names = ("uniformly random", "told the rules")
    body = [
        [f"`{case.removeprefix('return, ')}`", *(own[name] for name in names)] for case, own in scores.items() if own
    ]
    return [
        *table(["task", *names], body),
        "",
        f"Mean return of the first attempt at {TRIED:,} held-out tasks, ± one standard error. "
        "`python -m bench.run xgrid --only returns`.",
    ]


def write_kinds(_: list[Record]) -> list[str]:
    """All rules and goals, by their numbers."""
    from twohot.envs.xgrid import ACTIONS, GOALS, RULES

    lines = []
    for what, kinds in (("rule", RULES), ("goal", GOALS)):
        body = []
        for number, kind in enumerate(kinds):
            actions = "any" if kind.actions == ACTIONS else ", ".join(kind.actions)
            body.append([str(number), kind.name, ", ".join(kind.inputs), actions, kind.sentence])
        head, line, *others = table(["", what, "inputs", "after", "what it says"], body)
        lines += [head, line.replace("---:", "---"), *others, ""]  # all is text
    return lines[:-1]


GROUP = Group(
    measures="steps/s of the grid world beside XLand-MiniGrid: three minutes on one core",
    gates=("envs/test_xgrid.py", "envs/test_xgrid_xminigrid.py"),
    cases=(small_world, large_world, into_replay, rule_sets, returns),
    tables=(
        Table("xgrid", write_table, ("xgrid",), "docs/xgrid.md"),
        Table("xgrid_returns", write_returns, ("xgrid",), "docs/xgrid.md", "all"),
        Table("xgrid_kinds", write_kinds, ("xgrid",), "docs/xgrid.md", "all"),
    ),
    long=True,
)
