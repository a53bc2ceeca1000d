"""bsuite's scores of runs, from every episode that they learnt from; or of what bsuite's own agents have logged.

    python -m bench.bsuite RUN [RUN ...] [--csv FOLDER]

The runs are those of one agent: one for each id, or one for several; runs of another seed are another score. Episodes
count in the order in which they ended in any of a run's actors, up to the number that bsuite scores; what a checkpoint
cut off is no episode. They are read from the replay of a run's last checkpoint, which has to hold them all
(`--replay.capacity-steps`). In place of a run, a folder seed_N of bsuite's own logs will do.

Prints for each experiment its score by bsuite's own analysis, the score of each scale alone, and the slope of that over
the scale's decimal logarithm: means over seeds, and 95 % intervals by the bootstrap. `--csv` writes a folder for each
seed, with a file for each id, as bsuite's own notebook reads them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from twohot.config.files import load_config
from twohot.envs.suites.bsuite import experiment, results, reward_scale, score
from twohot.errors import NoRunError, TwohotError
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.runs.replay import DIRECTORY, SAVED
from twohot.runs.scores import interval

LOG = "bsuite_id_-_"
"""How bsuite calls its logs."""


def read(path: Path) -> tuple[int, pd.DataFrame]:
    """A seed, and its episodes in bsuite's columns."""
    if not any(path.glob(f"{LOG}*.csv")):
        return of_run(path)
    tables = []
    for log in sorted(path.glob(f"{LOG}*.csv")):
        name, _, setting = log.stem.removeprefix(LOG).rpartition("-")
        tables.append(pd.read_csv(log).assign(bsuite_id=f"{name}/{setting}"))
    return int(path.name.removeprefix("seed_")), pd.concat(tables)


def of_run(run: Path) -> tuple[int, pd.DataFrame]:
    """A run's seed, and the episodes of its tasks, each in the order in which they ended.

    Raises:
        NoRunError: it has no checkpoint. ValueError: its replay has lost the first episodes.
    """
    config = load_config(run / "config.json")
    last = checkpoint.latest(run)
    if last is None:
        raise NoRunError(f"{run}: no checkpoint yet")
    returns: dict[str, list[float]] = {task: [] for task in config.environment.tasks}
    on_disk = config.replay.storage == "disk"
    with Replay.open(run / DIRECTORY) if on_disk else Replay.load(last / SAVED) as replay:
        table = replay.table()
        if len(table["id"]) and table["id"][0] != 0:
            raise ValueError(
                f"{run}: the replay has lost its first episodes: train with a larger replay.capacity_steps"
            )
        for index, task, own in zip(table["id"], table["task"], table["return"], strict=True):
            if replay.get(int(index))["terminated"][-1]:
                returns[config.environment.tasks[task]].append(float(own))
    return config.seed, pd.concat([results(task, own) for task, own in returns.items()])


def as_many_episodes(table: pd.DataFrame) -> pd.DataFrame:
    """What all ids of an experiment have: up to the last episode of the shortest."""
    last = table.groupby("bsuite_id")["episode"].max()
    shortest = last.groupby(lambda task: experiment(str(task))[0]).min()
    return table[table["episode"] <= table["bsuite_id"].map(lambda task: shortest[experiment(task)[0]])]


def by_scale(table: pd.DataFrame) -> dict[float, float]:
    """scale -> score of the ids of that scale, which belong to one experiment."""
    return {
        float(scale): next(iter(score(own).values()))  # type: ignore[arg-type]  # a scale is a number
        for scale, own in table.groupby(table["bsuite_id"].map(reward_scale))
    }


def slope(scores: dict[float, float]) -> float:
    """Of the score over the decimal logarithm of the scale: what a factor of 10 adds to the score."""
    return float(np.polyfit(np.log10(list(scores)), list(scores.values()), 1)[0])


def mean(values: Sequence[float]) -> str:
    """The mean of seeds, and its interval."""
    middle, low, high = interval([np.asarray(values)])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def write_logs(folder: Path, seed: int, table: pd.DataFrame) -> None:
    """One file for each id."""
    (folder / f"seed_{seed}").mkdir(parents=True, exist_ok=True)
    for task, own in table.groupby("bsuite_id"):
        file = folder / f"seed_{seed}" / f"{LOG}{str(task).replace('/', '-')}.csv"
        own.drop(columns="bsuite_id").dropna(axis="columns").to_csv(file, index=False)


def print_scores(seeds: dict[int, pd.DataFrame]) -> None:
    """The scores of each experiment."""
    names = {seed: table["bsuite_id"].map(lambda task: experiment(task)[0]) for seed, table in seeds.items()}
    for name in sorted({name for found in names.values() for name in found}):
        own = [table[names[seed] == name] for seed, table in seeds.items() if (names[seed] == name).any()]
        episodes = sorted({int(table["episode"].max()) for table in own})
        print(f"{name}: score {mean([score(table)[name] for table in own])}; {len(own)} seeds, {episodes} episodes")
        scales = [by_scale(table) for table in own]
        if all(len(found) == 1 for found in scales):
            continue
        for scale in sorted({scale for found in scales for scale in found}):
            print(f"  rewards x {scale:g}: {mean([found[scale] for found in scales if scale in found])}")
        print(f"  slope: {mean([slope(found) for found in scales if len(found) > 1])}")


def main() -> None:
    """Read the runs, print their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path, help="folder for what bsuite would have logged")
    options = parser.parse_args()
    tables: dict[int, list[pd.DataFrame]] = defaultdict(list)
    for run in options.runs:
        seed, table = read(run)
        again = set(table["bsuite_id"]) & {task for other in tables[seed] for task in other["bsuite_id"]}
        if again:
            parser.error(f"{run}: {', '.join(sorted(again))} with seed {seed} is in another of the runs too")
        tables[seed].append(table)
    seeds = {seed: as_many_episodes(pd.concat(found)) for seed, found in sorted(tables.items())}
    for seed, table in seeds.items():
        if options.csv is not None:
            write_logs(options.csv, seed, table)
    print_scores(seeds)


if __name__ == "__main__":
    try:
        main()
    except (TwohotError, ValueError) as error:
        raise SystemExit(f"bench.bsuite: {error}") from error
