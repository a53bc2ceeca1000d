"""Settings of what is played."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from twohot.config.checks import require, require_kinds
from twohot.config.renamed import renamed_settings


@renamed_settings("environment")
@dataclass(frozen=True)
class EnvironmentConfig:
    """Which tasks are played, and how."""

    suite: str = "popgym"
    """Benchmark suite of the tasks that name none; `twohot envs` lists them."""
    tasks: tuple[str, ...] = ("RepeatPreviousEasy",)
    """Tasks played by one agent without labels; each trial draws one uniformly. Tasks of several suites are named
    suite:task, such as procgen:coinrun-easy; those whose spaces go together make up a domain."""
    reward_multipliers: tuple[float, ...] = ()
    """Factor on each task's reward, in the order of the tasks; empty means 1 for all."""
    attempts: int = 1
    """Attempts at one hidden task in a trial; memory is carried over them."""
    unscored_attempts: int = 0
    """Leading attempts whose reward is shown but counts zero."""
    observation_size: int = 0
    """Size that observations are zero-padded to (before context features); 0 means the largest of the tasks."""
    actions: int = 0
    """Number of actions offered; one that a task lacks becomes a random legal one; 0 means the largest of the tasks."""
    context_features: bool = True
    """Append four features: time in the trial, attempt, whether the last action was legal, last multiplied reward."""
    skip_missing: bool = False
    """Leave out the tasks whose suites are not installed, instead of refusing to begin."""

    def __post_init__(self) -> None:
        require_kinds(self, "environment.")
        require(len(self.tasks) > 0, "environment.tasks: expected at least one task, got none")
        require(len(set(self.tasks)) == len(self.tasks), f"environment.tasks: a task is named twice in {self.tasks}")
        require(
            len(self.reward_multipliers) in (0, len(self.tasks)),
            f"environment.reward_multipliers: expected none or one for each of the {len(self.tasks)} tasks, "
            f"got {len(self.reward_multipliers)}",
        )
        require(
            all(math.isfinite(multiplier) for multiplier in self.reward_multipliers),
            f"environment.reward_multipliers: expected finite numbers, got {self.reward_multipliers}",
        )
        for name in ("observation_size", "actions"):
            require(getattr(self, name) >= 0, f"environment.{name}: expected at least 0, got {getattr(self, name)}")
        require(self.attempts >= 1, f"environment.attempts: expected at least 1, got {self.attempts}")
        require(
            0 <= self.unscored_attempts < self.attempts,
            f"environment.unscored_attempts: expected fewer than the {self.attempts} attempts, "
            f"got {self.unscored_attempts}",
        )

    def vector_arguments(self) -> dict[str, Any]:
        """What `twohot.envs.make_vector` is told of it."""
        return {name: value for name, value in asdict(self).items() if name != "skip_missing"}
