"""Who waits for whom, where actors collect while a learner learns."""

from __future__ import annotations

from dataclasses import dataclass

from twohot.config import TrainConfig


@dataclass(frozen=True)
class Balance:
    """One number, updates for each environment step, kept from both sides.

    A run of one process has taken `(epoch + 1) x steps_per_epoch` steps when an epoch's updates are done. With f the
    fraction of the epoch's updates that are done, actors may have taken at most `max_ahead` epochs of steps more than
    `epoch + f` epochs have; and for its next update, to fraction f', the learner wants all but `max_behind` epochs
    of those that `epoch + f'` epochs have.

    Attributes:
        steps: environment steps of an epoch. first, epochs: the first epoch that collects, and the end.
        ahead, behind: as `ray.max_ahead` and `ray.max_behind`.
    """

    steps: int
    first: int
    epochs: int
    ahead: float
    behind: float

    @classmethod
    def of(cls, config: TrainConfig) -> Balance:
        """Of a run, or of a learner's part of it."""
        collect, ray = config.collect, config.ray
        steps = collect.environments * collect.steps_per_epoch
        return cls(steps, collect.first_epoch, config.epochs, ray.max_ahead, ray.max_behind)

    def bounds(self, epoch: int, done: float, then: float) -> tuple[float, float]:
        """Steps for which the learner waits, and those at which actors do.

        Args:
            epoch: that goes on. done, then: fractions of its updates that are done, and are with the next one.
        """
        if epoch < self.first:
            return 0.0, 0.0
        wanted = self._steps(epoch + then - self.behind)
        return wanted, max(wanted, min(self._steps(epoch + done + self.ahead), self._steps(self.epochs)))

    def begun(self, epoch: int) -> float:
        """Steps that epochs before this one have."""
        return self._steps(epoch)

    def _steps(self, epochs: float) -> float:
        return max(0.0, epochs - self.first) * self.steps
