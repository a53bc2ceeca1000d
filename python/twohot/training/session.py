"""The training loop: collect, store, sample, learn, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import save_config, save_json, to_json
from twohot.data.experience import Experience
from twohot.data.rollout import Policy, Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import get_suite, reset_seeds
from twohot.learning import statistics, update_norms
from twohot.learning.learner import Learner
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.replay.relabel import Relabel
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import Kind as RowKind
from twohot.runs.metrics import MetricsWriter
from twohot.runs.scores import EVALUATION_NAME, Kind, TaskScore, report, score_metrics
from twohot.runs.writers import Writer
from twohot.spaces import space_to_json
from twohot.training.build import make_environments, make_exploration, make_networks
from twohot.training.callbacks import Callback, EpochEnd, own_metrics
from twohot.training.epoch import Epoch
from twohot.training.evaluate import evaluate_all
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.progress import Progress

STATISTICS_EVERY = 10
"""Updates between two samples of an update's statistics; a row of metrics is the mean of an epoch's samples."""
NETWORK_STREAM, POLICY_STREAM = 1, 3
"""Random streams of a run's seed, beside that of exploration (spawn keys of numpy's SeedSequence)."""


class Session:
    """Everything that a run holds in memory, built from its configuration."""

    def __init__(self, config: TrainConfig, run: Path, interruption: Interruption) -> None:
        self.config, self.run, self.interruption = config, run, interruption
        torch.set_num_threads(config.threads)
        torch.manual_seed(seeded_generator(config.seed, NETWORK_STREAM).initial_seed())
        self.layout, self.environments = make_environments(config)
        spaces = self.environments.single_observation_space, self.environments.single_action_space
        self.device = torch.device(config.device)
        try:
            self.agent = make_networks(config.agent, *spaces, self.device, predicts=config.objective.predicts)
        except Exception:
            self.environments.close()
            raise
        self.learner = Learner(self.agent, config.objective, config.optimizer)
        self.exploration = make_exploration(config, self.agent.action_space)
        self.experience = Experience(config, self.agent.observation_space, self.agent.action_space)
        self._replay: Replay | None = None
        self.epoch, self.current = 0, Epoch()
        self.seconds = 0.0
        self.metrics_offset = 0
        self.continued: list[int] = []
        """Updates done at each unplanned checkpoint that the run has gone on from."""
        self._evicted_files: list[str] = []
        self._saved = (0, 0, 0)  # where the last checkpoint was, or nothing was done
        self._save_at = math.inf

    def close(self) -> None:
        """End the environments' processes, and let go of the replay."""
        self.environments.close()
        if self._replay is not None:
            self._replay.close()

    @property
    def replay(self) -> Replay:
        """What the run has collected, after `start` or `restore`."""
        assert self._replay is not None
        return self._replay

    def _make_rollout(self) -> Rollout:
        return Rollout(
            self.environments,
            freeze(self.agent),
            generator=seeded_generator(self.config.seed, POLICY_STREAM),
            device=self.device,
            writer=self.replay.writer(self.config.collect.environments),
            exploration=self.exploration,
        )

    def start(self) -> None:
        """Begin with an empty replay."""
        schema = replay_schema(self.agent.observation_space, self.agent.action_space)
        self._replay = run_replay.create(self.config.replay, self.run, schema, self.config.seed)
        self.rollout = self._make_rollout()

    def loop(
        self, progress: Progress, callbacks: Sequence[Callback] = (), writers: Sequence[Writer] | None = None
    ) -> None:
        """Train until the configured number of epochs is done, a callback stops, or a signal comes."""
        self.metrics = MetricsWriter(self.run, self.metrics_offset, writers)
        with self.metrics, progress, self.interruption.deferred():
            progress.start(self.config, self.epoch, self.current.updates, bool(self.continued))
            self.current.began = time.perf_counter()
            self._set_timer()
            if self.metrics_offset == 0:
                self._measure_random()
            try:
                self._epochs(progress, callbacks)
            except Interrupted:
                progress.interrupted()
                self.rollout.cut()
                self._save(planned=False)
                raise

    def _epochs(self, progress: Progress, callbacks: Sequence[Callback]) -> None:
        config, first = self.config, self.epoch
        for epoch in range(first, config.epochs):
            if epoch == first or epoch % config.checkpoint_every == 0:
                self.rollout.restart(self._reset_seeds())
            collected = self._collect() if epoch >= config.collect.first_epoch else {}
            learned = self._learn(progress) if epoch >= config.warmup_epochs else {}
            last = epoch + 1 == config.epochs
            scores = self._evaluate(last) if last or (epoch + 1) % config.evaluate.every == 0 else {}
            rows: dict[RowKind, dict[str, Any]] = {"collect": collected, "update": learned, "evaluation": scores}
            self.epoch = epoch + 1
            rows = self._end_epoch(rows, progress)
            stopped = self._call(callbacks, rows) and not last
            if stopped:
                self._end_epoch({"collect": {}, "update": {}, "evaluation": self._evaluate(last=True)}, progress)
                self.config = replace(config, epochs=self.epoch)
            if last or stopped or self.epoch % config.checkpoint_every == 0:
                self._save(planned=True)
            if stopped:
                save_config(self.config, self.run / "config.json")
                return
            self._pause()

    def _end_epoch(self, rows: dict[RowKind, dict[str, Any]], progress: Progress) -> dict[RowKind, dict[str, Any]]:
        """Log and show these rows; they are returned as they were logged."""
        rows = self._write(rows)
        self.current = Epoch()
        progress.epoch(self.epoch, self.rollout.environment_steps, self.learner.updates, rows)
        return rows

    def _call(self, callbacks: Sequence[Callback], rows: dict[RowKind, dict[str, Any]]) -> bool:
        """Call the callbacks and log what they return; whether one of them stops the training."""
        steps, updates = self.rollout.environment_steps, self.learner.updates
        end = EpochEnd(self.epoch, rows, steps, updates, self.run, self.config, self.agent)
        for callback in callbacks:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                metrics = own_metrics(callback, callback(end))
            if metrics:
                self.metrics.write("own", steps, updates, self.seconds, metrics)
        return end.stopped

    def _reset_seeds(self) -> list[int]:
        """Seeds of the actors' next trials; where the epoch has begun already, not those that it began with."""
        begun = self.current.steps or self.current.updates
        round_ = self.epoch + (self.rollout.environment_steps + 1 << 32 if begun else 0)
        return reset_seeds(self.config.seed, round_, self.config.collect.environments)

    def _pause(self) -> None:
        """Between two steps or updates: end where a signal has come, and save where the clock asks for it."""
        self.interruption.check()
        if time.monotonic() >= self._save_at:
            self._save(planned=False)

    def _pause_is_due(self) -> bool:
        return self.interruption.heard or time.monotonic() >= self._save_at

    def _set_timer(self) -> None:
        minutes = self.config.checkpoint_minutes
        self._save_at = time.monotonic() + 60 * minutes if minutes else math.inf

    def _collect(self) -> dict[str, Any]:
        current, collect = self.current, self.config.collect
        self.rollout.policy = freeze(self.agent)
        while current.steps < collect.steps_per_epoch:
            before = self.rollout.environment_steps
            with current.timed("collect"):
                try:
                    current.trials += self.rollout.collect(collect.steps_per_epoch - current.steps, self._pause_is_due)
                except ValueError as error:
                    if "whole capacity of the replay" not in str(error):
                        raise
                    raise ConfigurationError(f"replay.capacity_steps: too small for one trial ({error})") from error
            current.steps += (self.rollout.environment_steps - before) // collect.environments
            self._pause()
        return {
            **current.trial_metrics(self.config.environment),
            "collect/trials": len(current.trials),
            "collect/epsilon": self.exploration.schedule(self.rollout.environment_steps),
            "collect/steps_per_second": current.steps * collect.environments / current.clock["collect"],
        }

    def _learn(self, progress: Progress) -> dict[str, Any]:
        config, current, updates = self.config, self.current, self.config.updates_per_epoch
        source = self.experience.sampler(self.replay)
        if updates == 0 or source is None:
            return {}
        batches = source.loader(
            config.batch_size,
            config.window,
            batches=updates - current.updates,
            by=config.replay.by,
            relabel=self._relabel(),
            torch=True,
            pin_memory=self.device.type == "cuda",
        )
        assert isinstance(batches, Generator)
        with closing(batches):
            while current.updates < updates:
                with current.timed("sample"):
                    batch = next(batches).to(self.device)
                with current.timed("update"):
                    is_sampled = current.updates % STATISTICS_EVERY == 0
                    weights = (
                        [parameter.detach().clone() for parameter in self.learner.parameters] if is_sampled else []
                    )
                    losses, norm = self.learner.step(batch, ungrouped=is_sampled)
                    if is_sampled:
                        last = self.learner.microbatches(batch)[-1]
                        found = statistics(losses, self.agent, last, config.environment.tasks)
                        current.add_sample({**found, **update_norms(weights, self.agent), "gradient/norm": norm})
                current.updates += 1
                progress.update(self.learner.updates)
                self._pause()
        self.experience.drawn()
        stats = self.replay.stats()
        centers = {"value/bin_centers": config.agent.bins.values()} if "value/bin_histogram" in current.sums else {}
        return {
            **current.means(),
            **centers,
            "learning_rate": self.learner.learning_rate(),
            "updates_per_second": updates / current.clock["update"],
            "replay/trajectories": stats.trajectories,
            "replay/steps": stats.steps,
        }

    def _relabel(self) -> Relabel | None:
        """The suite's hindsight, with random numbers of this epoch alone, so that a resumed run need not save them."""
        if not self.config.replay.relabel:
            return None
        relabel = get_suite(self.config.environment.suite).relabel
        if relabel is None:
            raise ConfigurationError(f"replay.relabel: the suite {self.config.environment.suite!r} knows no hindsight")
        begun = (self.current.updates,) if self.current.updates else ()
        return relabel(self.config.environment, (self.config.seed, self.epoch, *begun))

    def _evaluate(self, last: bool) -> dict[str, Any]:
        evaluation = self.config.evaluate
        trials, greedy = evaluation.final_trials if last else evaluation.trials, evaluation.greedy
        with self.current.timed("evaluate"):
            policy = freeze(self.agent)
            scores = self._play(policy, trials=trials, device=self.config.device, greedy=greedy, check=self._pause)
            if last:
                settings = {"trials": trials, "seed": self.config.seed, "greedy": greedy}
                save_json(report({str(self.run): scores}, **settings), self.run / EVALUATION_NAME)
        return score_metrics(scores)

    def _measure_random(self) -> None:
        policy, trials = UniformPolicy(self.agent.action_space), self.config.evaluate.final_trials
        scores = self._play(policy, trials=trials, kind="random", check=self.interruption.check)
        self.metrics.write("random", 0, 0, 0.0, score_metrics(scores))

    def _play(self, policy: Policy, *, kind: Kind | None = None, **options: Any) -> list[TaskScore]:
        config = self.config
        options |= {"layout": self.layout, "seed": config.seed, "kind": kind}
        options["workers"] = self.environments.workers
        return evaluate_all(policy, config.environment, config.evaluate, **options)

    def _write(self, rows: dict[RowKind, dict[str, Any]]) -> dict[RowKind, dict[str, Any]]:
        self.seconds += self.current.seconds()
        if rows["update"]:
            rows["update"] |= self.current.time_fractions()
        where = self.rollout.environment_steps, self.learner.updates, self.seconds
        return {kind: self.metrics.write(kind, *where, row).metrics if row else {} for kind, row in rows.items()}

    def _save(self, *, planned: bool) -> None:
        """Write a checkpoint; an unplanned one disturbs nothing, and only where something was done since the last."""
        self._set_timer()
        current, where = self.current, (self.epoch, self.current.steps, self.current.updates)
        if not planned and where == self._saved:
            return
        if planned:
            self.rollout.cut()
        else:
            self.experience.drawn()
        learner, rollout = self.learner.state_dict(), self.rollout.state_dict()
        tensors = {
            "agent": self.agent.state_dict(),
            "optimizer": learner["moments"],
            "random": {"torch": torch.get_rng_state(), "policy": rollout["generator"]},
        }
        if self.device.type == "cuda":
            tensors["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "config": to_json(self.config),
            "spaces": self._spaces(),
            "updates": learner["updates"],
            "environment_steps": rollout["environment_steps"],
            "seconds": self.seconds,
            "metrics_offset": self.metrics.offset(),
            "data": self.experience.state_dict(),
            "exploration": self.exploration.state_dict(),
            "continued": self.continued,
        }
        if not planned:
            tensors["statistics"] = {name: value.clone() for name, value in current.sums.items()}
            state |= {"current": current.to_json(), "evicted": self._evicted_files}
        checkpoint.save(self.run, self.epoch, tensors, state, self.replay, None if planned else where[1:])
        self._saved = where
        if planned and self.replay.directory is not None:  # two are kept: what the older one needs stays
            self.replay.reclaim(self._evicted_files)
            self._evicted_files = self.replay.evicted_files()

    def _spaces(self) -> dict[str, Any]:
        agent = self.agent
        return {"observation": space_to_json(agent.observation_space), "action": space_to_json(agent.action_space)}

    def restore(self, path: Path, state: dict[str, Any]) -> None:
        """Put back everything that `_save` took.

        Raises:
            CheckpointError: for a checkpoint of another configuration, or one whose parts do not fit together.
        """
        with checkpoint.reading(path):
            checkpoint.require_same({"spaces": state["spaces"]}, {"spaces": self._spaces()}, frozenset())
            checkpoint.load_module(self.agent, checkpoint.read_tensors(path, "agent"))
            moments, updates = checkpoint.read_tensors(path, "optimizer"), checkpoint.count(state, "updates")
            self.learner.load_state_dict({"moments": moments, "updates": updates})
            self._replay = run_replay.load(self.config.replay, self.run, path, state["replay"])
            self.rollout = self._make_rollout()
            random = checkpoint.read_tensors(path, "random")
            torch.set_rng_state(random["torch"])
            steps = checkpoint.count(state, "environment_steps")
            self.rollout.load_state_dict({"environment_steps": steps, "generator": random["policy"]})
            if "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
            self.experience.load_state_dict(state["data"])
            self.exploration.load_state_dict(state["exploration"])
            self.epoch, self.seconds = checkpoint.count(state, "epoch"), float(state["seconds"])
            self.metrics_offset = checkpoint.count(state, "metrics_offset")
            self.continued = [int(updates) for updates in state["continued"]]
            if state["unplanned"] is None:
                self._evicted_files = state["replay"]["evicted"]
            else:
                self._evicted_files = state["evicted"]
                self.continued.append(self.learner.updates)
                sums = checkpoint.read_tensors(path, "statistics")
                sums = {name: value.to(self.device) for name, value in sums.items()}
                steps, updates = state["unplanned"]
                self.current = Epoch.from_json(state["current"], steps, updates, sums, self.config.environment)
            self._saved = (self.epoch, self.current.steps, self.current.updates)
