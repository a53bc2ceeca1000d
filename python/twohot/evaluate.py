"""Evaluation: every task, without exploration noise, by attempt, from seeds of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from twohot.config import EnvironmentConfig
from twohot.envs import make_vector
from twohot.rollout import Policy, Rollout, Trial, seeded_generator

EVALUATION_STREAM = 7_001
"""Separates the seeds of evaluations from those of training."""
ENVIRONMENTS = 64
"""Trials played side by side at most."""


@dataclass(frozen=True)
class TaskScore:
    """One task's trials: raw returns and lengths by attempt, each [trials, attempts]."""

    task: str
    returns: np.ndarray
    lengths: np.ndarray
    free_attempts: int

    @property
    def counted(self) -> np.ndarray:
        """[trials] return of the attempts that count, summed."""
        return self.returns[:, self.free_attempts :].sum(1)

    def metrics(self, kind: str) -> dict[str, float]:
        """Scalars by the names defined in `twohot.metrics`; `kind` is "evaluation" or "random"."""
        counted = self.counted
        result = {f"{kind}/return/{self.task}": float(counted.mean())}
        if len(counted) > 1:
            result[f"{kind}/return_std_error/{self.task}"] = float(counted.std(ddof=1) / np.sqrt(len(counted)))
        if kind == "evaluation":
            result[f"{kind}/length/{self.task}"] = float(self.lengths.sum(1).mean())
        if self.returns.shape[1] > 1:
            for attempt, value in enumerate(self.returns.mean(0), start=1):
                result[f"{kind}/return/{self.task}/attempt_{attempt}"] = float(value)
        return result


def evaluate(
    policy: Policy,
    environment: EnvironmentConfig,
    *,
    trials: int,
    seed: int,
    device: str = "cpu",
    greedy: bool = False,
) -> list[TaskScore]:
    """Play `trials` whole trials of every task.

    Args:
        policy: acts; an `Agent` should be in eval mode. environment: the tasks and their protocol.
        trials: of each task, at least 1. seed: of environments and sampled actions; the same seed plays the same
            trials, and nothing outside of this call is disturbed.
        greedy: take the most probable action.

    Returns:
        One `TaskScore` for each task, in the configuration's order.
    """
    jobs = np.repeat(np.arange(len(environment.tasks)), trials)
    finished: list[Trial] = []
    for start in range(0, len(jobs), ENVIRONMENTS):
        chunk = jobs[start : start + ENVIRONMENTS]
        finished += _play(
            policy,
            environment,
            chunk,
            np.random.SeedSequence(seed, spawn_key=(EVALUATION_STREAM, start)),
            device,
            greedy,
        )
    scores = []
    for index, name in enumerate(environment.tasks):
        mine = [trial for trial in finished if trial.task == index]
        returns = np.stack([trial.attempt_returns for trial in mine]).astype(np.float64)
        lengths = np.stack([trial.attempt_lengths for trial in mine])
        scores.append(TaskScore(name, returns, lengths, environment.free_attempts))
    return scores


def _play(
    policy: Policy,
    environment: EnvironmentConfig,
    tasks: np.ndarray,
    seeds: np.random.SeedSequence,
    device: str,
    greedy: bool,
) -> list[Trial]:
    """One trial of each entry of `tasks`, side by side."""
    vector = make_vector(**asdict(environment), environments=len(tasks))
    words = seeds.generate_state(len(tasks) + 1, np.uint64).tolist()
    try:
        rollout = Rollout(vector, policy, generator=seeded_generator(words[0], 0), device=device, greedy=greedy)
        rollout.restart(words[1:], [environment.tasks[task] for task in tasks])
        finished: dict[int, Trial] = {}
        while len(finished) < len(tasks):
            for trial in rollout.collect(1):
                finished.setdefault(trial.row, trial)
    finally:
        vector.close()
    return list(finished.values())
