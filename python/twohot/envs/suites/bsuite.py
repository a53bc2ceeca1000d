"""bsuite (Osband et al., ICLR 2020, arXiv 1908.03568): rewards of five scales, and memories of 23 lengths.

Environments and scores are the package's own; `docs/benchmarks/bsuite.md` has the protocol and the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite

if TYPE_CHECKING:
    import pandas as pd

EPISODES = {"bandit": 10_000, "catch": 10_000, "cartpole": 1000, "mountain_car": 1000, "memory_len": 10_000}
"""For how many episodes an agent learns while it is scored."""
SCALES = (0.001, 0.03, 1.0, 30.0, 1000.0)
TASKS = (
    *(f"{game}_scale/{setting}" for game in EPISODES if game != "memory_len" for setting in range(4 * len(SCALES))),
    *(f"memory_len/{setting}" for setting in range(23)),
)
"""bsuite's ids. Those of a scale go by fours, of which each is another seed."""


def experiment(task: str) -> tuple[str, str]:
    """The experiment that an id belongs to, and its game: "catch_scale" and "catch" of "catch_scale/3"."""
    name = task.partition("/")[0]
    return name, name.removesuffix("_scale")


def reward_scale(task: str) -> float:
    """By what the rewards of an id are multiplied."""
    name, _, setting = task.partition("/")
    return SCALES[int(setting) // 4] if name.endswith("_scale") else 1.0


class BsuiteEnv(gym.Env[Any, Any]):
    """An environment of bsuite in gymnasium's interface: an end whose discount is 0 is terminated, another truncated.

    All random numbers come from the seed of `reset`, but the order of a bandit's arms, which its id decides. The last
    info of an episode says whether its outcome was right ("success"), where a game can only be won or lost.

    Args:
        task: bsuite's id.
    """

    def __init__(self, task: str) -> None:
        from bsuite import load, sweep

        name, game = experiment(task)
        self._env: Any = load(name, sweep.SETTINGS[task])
        self._game: Any = getattr(self._env, "raw_env", self._env)
        self._told = game in ("catch", "memory_len")
        seen = self._env.observation_spec()
        low, high = float(getattr(seen, "minimum", -np.inf)), float(getattr(seen, "maximum", np.inf))
        self.observation_space = spaces.Box(low, high, seen.shape, np.float32)
        self.action_space = spaces.Discrete(self._env.action_spec().num_values)
        self._drawn_by: np.random.Generator | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if self._drawn_by is not self.np_random:
            self._drawn_by = self.np_random
            self._game._rng = np.random.RandomState(self.np_random.bit_generator)
        return self._env.reset().observation, {}

    def step(self, action: int):
        step = self._env.step(action)
        ends, success = step.last(), {"success": step.reward > 0} if self._told else {}
        return step.observation, float(step.reward), ends and not step.discount, ends and bool(step.discount), success


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`; the splits are one, and there are no pictures."""
    return BsuiteEnv(task)


def results(task: str, returns: Sequence[float] | np.ndarray) -> pd.DataFrame:
    """What bsuite would have logged of episodes that ended one after the other: one row for each.

    Args:
        task: bsuite's id. returns: of each episode, with rewards as the environment gave them, from the first episode
            of training on; those after the last that counts are left out.

    Returns:
        bsuite's columns: `bsuite_id`, `episode`, `episode_return`, `total_return`; and what the score of the task's
        experiment is made of, of all episodes so far: `total_regret`, `raw_return` and `best_episode`, or
        `total_perfect`.
    """
    import pandas as pd

    _, game = experiment(task)
    own = np.asarray(returns, np.float64)[: EPISODES[game]]
    raw = own / reward_scale(task)
    rows: dict[str, Any] = {
        "bsuite_id": task,
        "episode": np.arange(1, len(own) + 1),
        "episode_return": own,
        "total_return": own.cumsum(),
    }
    if game in ("cartpole", "mountain_car"):
        rows["raw_return"] = raw.cumsum()
        if game == "cartpole":
            rows["best_episode"] = np.maximum.accumulate(raw)
    else:
        rows["total_regret"] = (1 - raw).cumsum()
        if game == "memory_len":
            rows["total_perfect"] = (raw > 0).cumsum()
    return pd.DataFrame(rows)


def score(table: pd.DataFrame) -> dict[str, float]:
    """The scores of bsuite, from 0 to 1, by the package's own analysis.

    Args:
        table: rows of `results`, or of bsuite's own logs, of all ids together. Where ids of an experiment are missing,
            its score is that of the others.

    Returns:
        experiment -> score: of a scale experiment, the mean over its scales less half of their standard deviation.

    Raises:
        ValueError: ids of one experiment end with different episodes, of which bsuite would take but the last.
    """
    from bsuite.logging.logging_utils import join_metadata

    found = {}
    names = table["bsuite_id"].map(lambda task: experiment(task)[0])
    for name, own in table.groupby(names):
        last = {task: int(rows["episode"].max()) for task, rows in own.groupby("bsuite_id")}
        if len(set(last.values())) != 1:
            raise ValueError(f"{name}: expected as many episodes of each id, got {last}")
        analysis = import_module(f"bsuite.experiments.{name}.analysis")
        found[str(name)] = float(analysis.score(join_metadata(own)))
    return found


SUITE = Suite(
    name="bsuite",
    summary="bsuite: bandit, catch, cartpole and mountain car with rewards of five scales; a bit to remember for 1 to "
    "100 steps.",
    requires=("bsuite",),
    install="pip install 'twohot[bsuite]'",
    tasks=TASKS,
    make=make,
)
