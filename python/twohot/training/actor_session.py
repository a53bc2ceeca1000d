"""A session whose actors collect while it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twohot.config import TrainConfig
from twohot.envs import Layout, TrialEnvironments
from twohot.runs import replay as run_replay
from twohot.spaces import space_to_json
from twohot.training.actors import Actors
from twohot.training.balance import Balance
from twohot.training.build import make_environments
from twohot.training.epoch import MIN_SECONDS
from twohot.training.interruption import Interruption
from twohot.training.progress import Progress
from twohot.training.ranks import Ranks
from twohot.training.session import Session


class ActorSession(Session):
    """Everything that a learner holds in memory, and its actors; see `Session`."""

    def __init__(self, config: TrainConfig, run: Path, interruption: Interruption, ranks: Ranks | None = None) -> None:
        super().__init__(config, run, interruption, ranks)
        self.balance = Balance.of(config)

    @property
    def actors(self) -> Actors:
        """What collects, after `start` or `restore`."""
        assert isinstance(self.rollout, Actors)
        return self.rollout

    def close(self) -> None:
        """End the actors too."""
        if isinstance(getattr(self, "rollout", None), Actors):
            try:
                self.actors.close()
            finally:
                super().close()
        else:
            super().close()

    def _make_environments(self) -> tuple[Layout, TrialEnvironments]:
        """One, for the spaces: the actors have their own."""
        collect = replace(self.part.collect, environments=1, workers="in-process")
        return make_environments(replace(self.part, actors=0, collect=collect))

    def _make_rollout(self, steps: int = 0) -> Actors:
        spaces = [space_to_json(space) for space in (self.agent.observation_space, self.agent.action_space)]
        return Actors(self.config, self.agent, self.replay, steps, self.ranks.rank, self.ranks.size, spaces)

    def _collect(self) -> dict[str, Any]:
        """Let the actors have this epoch's policy; epochs without updates wait for its steps."""
        self.actors.publish(self.agent)
        if self.epoch < self.config.warmup_epochs or self.config.updates_per_epoch == 0:
            self._wait(0.0, 1.0)
            self._pause()
        return {}

    def _wait(self, fraction: float, next_fraction: float) -> None:
        """Until an update, after this fraction of the epoch's updates, may be made.

        One learner saves while it waits, where the clock asks for it; several do so together, after their next update.
        """
        wanted, limit = self.balance.bounds(self.epoch, fraction, next_fraction)
        self.actors.allow(limit)
        alone = self.ranks.size == 1
        while True:
            with self.current.timed("collect"):
                stop = self._pause_is_due if alone else lambda: self.interruption.heard is not None
                self.actors.wait(wanted / self.ranks.size, stop)
            if not alone or self.interruption.heard is not None or not self._pause_is_due():
                return
            self._pause()

    def _before_update(self) -> None:
        done, updates = self.current.updates, self.config.updates_per_epoch
        if self.epoch >= self.config.collect.first_epoch:
            every = self.config.ray.publish_every
            if every and done and done % every == 0:
                self.actors.publish(self.agent)
            self._wait(done / updates, (done + 1) / updates)

    def _learn(self, progress: Progress) -> dict[str, Any]:
        if self.config.updates_per_epoch:
            self._before_update()  # there is a trajectory now, or a signal
            self._pause()
        return super()._learn(progress)

    def _collected_meanwhile(self) -> dict[str, Any]:
        if self.epoch < self.config.collect.first_epoch:
            return {}
        trials, metrics = self.actors.take()
        self.current.trials += trials
        steps = self.actors.environment_steps
        if steps and self.learner.updates:
            metrics["actors/updates_per_step"] = self.learner.updates / steps
        return {
            **self.current.trial_metrics(self.config.environment),
            "collect/trials": len(self.current.trials),
            "collect/epsilon": self.exploration.schedule(steps),
            **metrics,
        }

    def _save(self, *, planned: bool) -> None:
        if self.interruption.heard is not None:
            self.actors.finish()
        current = self.current
        current.steps = max(
            0, int(self.actors.environment_steps - self.balance.begun(self.epoch)) // self.config.collect.environments
        )
        current.clock["collect"] = max(current.clock["collect"], MIN_SECONDS)
        current.trials += self.actors.take_trials()
        with self.actors.still():
            super()._save(planned=planned)

    def start(self) -> None:
        """Begin; what was committed to a disk before there was a checkpoint stays."""
        if self.part.replay.storage == "memory" or not run_replay.is_there(self.run, self.ranks.rank):
            super().start()
            return
        self._replay, steps = run_replay.load_all(self.part.replay, self.run, None, self.ranks.rank)
        self.rollout = self._make_rollout(steps * self.ranks.size)

    def _load_replay(self, path: Path, saved: dict[str, Any]) -> int:
        """What was committed to a disk after the checkpoint stays: the actors' work is not done twice."""
        if self.part.replay.storage == "memory":
            return super()._load_replay(path, saved)
        self._replay, steps = run_replay.load_all(self.part.replay, self.run, saved, self.ranks.rank)
        return steps * self.ranks.size
