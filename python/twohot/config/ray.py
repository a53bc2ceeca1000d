"""Settings of processes that Ray starts: actors, and learners."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twohot.config.checks import require, require_kinds


@dataclass(frozen=True)
class RayConfig:
    """Actors and learners in processes of Ray's (`--actors`, `--learners`)."""

    address: str = ""
    """Cluster to join: auto, or HOST:PORT; empty starts Ray on this machine alone."""
    max_restarts: int = 3
    """Times that all learners are started again, from the newest checkpoint, where one has died."""
    cpus_per_actor: float = 1.0
    """CPUs of the cluster that each actor takes; on this machine alone they are not counted."""
    block_seconds: float = 0.2
    """Seconds of playing for each call of an actor: longer ones cost the learner's machine less, policies are older."""
    publish_every: int = 0
    """Updates from one publication of the policy to the next; 0 publishes it at the beginning of each epoch."""
    max_ahead: float = 1.0
    """Epochs of steps that actors may be ahead of the updates, where they wait; inf: they never wait."""
    max_behind: float = 0.0
    """Epochs of steps that actors may be behind the updates, where the learner waits; inf: it never waits."""
    max_lag: int = 10
    """Publications by which the policy of what an actor brings may be behind the newest; what is older is dropped."""
    stuck_seconds: float = 120.0
    """Seconds without an answer after which an actor is taken to be stuck, and another begins in its place."""

    def __post_init__(self) -> None:
        require_kinds(self, "ray.")
        for name in ("cpus_per_actor", "block_seconds", "stuck_seconds"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"ray.{name}: expected a number above 0, got {value}")
        for name in ("max_restarts", "publish_every", "max_behind", "max_lag"):
            require(getattr(self, name) >= 0, f"ray.{name}: expected at least 0, got {getattr(self, name)}")
        require(
            self.block_seconds <= self.stuck_seconds / 2,
            f"ray.block_seconds: expected at most half of ray.stuck_seconds ({self.stuck_seconds:g}), since no "
            f"answer comes sooner; got {self.block_seconds}",
        )
        require(self.max_ahead > 0, f"ray.max_ahead: expected a number above 0, got {self.max_ahead}")
