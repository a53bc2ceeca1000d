"""What the epoch that is going on has done so far, and the rows of metrics that it will end with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor

from twohot.config import EnvironmentConfig
from twohot.data.rollout import Trial
from twohot.envs import get_suite, split_name
from twohot.runs.metrics import convert

PHASES = ("collect", "sample", "update", "evaluate")
MIN_SECONDS = 1e-9
"""That a phase has taken in which anything was done; metrics divide by it."""


@dataclass
class Epoch:
    """Progress within an epoch; `to_json` and `sums` are what an unplanned checkpoint keeps of it."""

    steps: int = 0
    """Steps of each actor."""
    updates: int = 0
    """Gradient steps."""
    trials: list[Trial] = field(default_factory=list)
    """Those that have ended."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Statistics of updates, by the name of their metric, summed."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many there are in each sum."""
    clock: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds in each of `PHASES`."""
    earlier: float = 0.0
    """Seconds that went into it before this process."""
    began: float = field(default_factory=perf_counter)
    """When this process began with it, on the clock of `perf_counter`."""

    def seconds(self) -> float:
        """What has gone into it."""
        return self.earlier + perf_counter() - self.began

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time of the block for a phase."""
        start = perf_counter()
        yield
        self.clock[phase] += perf_counter() - start

    def add_sample(self, statistics: Mapping[str, Any]) -> None:
        """Count the statistics of an update."""
        for name, value in statistics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """Means of the statistics."""
        return {name: (value / self.counts[name]).cpu() for name, value in self.sums.items()}

    def time_fractions(self) -> dict[str, float]:
        """Metrics of where the time since the epoch's beginning went."""
        seconds = self.seconds()
        return {f"time/{phase}_share": self.clock[phase] / seconds for phase in PHASES}

    def trial_metrics(self, environment: EnvironmentConfig) -> dict[str, float]:
        """Mean returns and successes of the trials, by task and attempt."""
        result: dict[str, float] = {}
        for index, task in enumerate(environment.tasks):
            suite = get_suite(split_name(task, environment.suite)[0])
            mine = [trial for trial in self.trials if trial.task == index]
            if not mine:
                continue
            by_attempt = np.mean([trial.attempt_returns for trial in mine], axis=0)
            result[f"collect/return/{task}"] = float(by_attempt[environment.unscored_attempts :].sum())
            if len(by_attempt) > 1:
                for attempt, value in enumerate(by_attempt, start=1):
                    result[f"collect/return/{task}/attempt_{attempt}"] = float(value)
            if suite.reports_success or any(trial.success_told for trial in mine):
                successes = [trial.attempt_success[environment.unscored_attempts :] for trial in mine]
                result[f"collect/success/{task}"] = float(np.mean(successes))
        return result

    def to_json(self) -> dict[str, Any]:
        """All but the counters and sums, as JSON values."""
        trials = [
            [int(each.env_index), int(each.task), bool(each.success_told), *(array.tolist() for array in _arrays(each))]
            for each in self.trials
        ]
        return {"trials": trials, "counts": self.counts, "clock": dict(self.clock), "seconds": self.seconds()}

    @classmethod
    def from_json(
        cls,
        values: Mapping[str, Any],
        steps: int,
        updates: int,
        sums: dict[str, Tensor],
        environment: EnvironmentConfig,
    ) -> Epoch:
        """What `to_json` described, beside the counters and sums, of a run on these environments.

        Raises:
            KeyError, TypeError, ValueError: it is none, or no row of metrics could be made of it.
        """
        if any(type(number) is not int or number < 0 for number in (steps, updates)):
            raise ValueError(f"expected whole numbers of steps and updates, got {steps!r} and {updates!r}")
        trials = [
            Trial(index, task, np.array(returns), np.array(lengths), np.array(success), told)
            for index, task, told, returns, lengths, success in values["trials"]
        ]
        counts = {name: int(values["counts"][name]) for name in sums}
        if not all(0 < number <= updates for number in counts.values()):
            raise ValueError(f"expected statistics of 1 to {updates} updates, got {counts}")
        clock = defaultdict(float, {phase: float(values["clock"].get(phase, 0.0)) for phase in PHASES})
        for phase, done in ("collect", steps), ("update", updates):
            if done and clock[phase] < MIN_SECONDS:
                raise ValueError(f"clock: expected the seconds in {phase}, got {clock[phase]}")
        restored = cls(steps, updates, trials, sums, counts, clock, float(values["seconds"]))
        convert({**restored.trial_metrics(environment), **restored.means()})
        return restored


def _arrays(trial: Trial) -> tuple[np.ndarray, ...]:
    return trial.attempt_returns, trial.attempt_lengths, trial.attempt_success
