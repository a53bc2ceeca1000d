"""The training loop: collect, store, sample, learn, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.agent.saved import spaces_of
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import save_config, save_json, to_json
from twohot.data.experience import Experience
from twohot.data.rollout import Policy, Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import Layout, TrialEnvironments, get_suite, reset_seeds
from twohot.learning import statistics, update_norms
from twohot.learning.learner import Learner
from twohot.nets.frozen import freeze
from twohot.replay import Batch, Replay
from twohot.replay.relabel import Relabel
from twohot.rl.exploration import Exploration
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import Kind as RowKind
from twohot.runs.metrics import MetricsWriter
from twohot.runs.scores import EVALUATION_NAME, Kind, TaskScore, report, score_metrics
from twohot.runs.writers import Writer
from twohot.training.actors import Actors
from twohot.training.build import make_environments, make_exploration, make_networks
from twohot.training.callbacks import Callback, EpochEnd, own_metrics
from twohot.training.epoch import Epoch
from twohot.training.evaluate import evaluate_all
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.progress import Progress
from twohot.training.ranks import RankError, Ranks

STATISTICS_EVERY = 10
"""Updates between two samples of an update's statistics; a row of metrics is the mean of an epoch's samples."""
NETWORK_STREAM, POLICY_STREAM = 1, 3
"""Random streams of a run's seed, beside that of exploration (spawn keys of numpy's SeedSequence)."""


class Session:
    """Everything that a run holds in memory, built from its configuration."""

    def __init__(self, config: TrainConfig, run: Path, interruption: Interruption, ranks: Ranks | None = None) -> None:
        self.config, self.run, self.interruption = config, run, interruption
        self.ranks = ranks or Ranks()
        self.part = self.ranks.part(config)
        """The configuration with this process's part of batch, actors and replay."""
        torch.set_num_threads(config.threads)
        torch.manual_seed(seeded_generator(config.seed, NETWORK_STREAM).initial_seed())
        self.device = self.ranks.device(config.device)
        self.layout, self.environments = self._make_environments()
        try:
            self.agent = self._make_agent()
        except Exception:
            self.environments.close()
            raise
        self.learner = Learner(self.agent, config.objective, config.optimizer, self.ranks.group)
        if not self.ranks.is_first:
            torch.manual_seed(seeded_generator(config.seed, NETWORK_STREAM, *self.ranks.stream).initial_seed())
        self.exploration = self._make_exploration()
        self.experience = self._make_experience()
        self._replay: Replay | None = None
        self.epoch, self.current = 0, Epoch()
        self.seconds = 0.0
        self.metrics_offset = 0
        self.continued: list[int] = []
        """Updates done at each unplanned checkpoint that the run has gone on from."""
        self._evicted_files: list[str] = []
        self._saved = (0, 0, 0)  # where the last checkpoint was, or nothing was done
        self._saves = 0
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

    def _make_environments(self) -> tuple[Layout, TrialEnvironments]:
        return make_environments(self.part, (self.ranks.rank, self.ranks.size))

    def _make_agent(self) -> AgentNetworks:
        spaces = self.environments.single_observation_space, self.environments.single_action_space
        config = self.config
        return make_networks(config.agent, *spaces, self.device, predicts=config.objective.predicts)

    def _make_exploration(self) -> Exploration:
        return make_exploration(self.part, self.agent.action_space, self.ranks.stream)

    def _make_experience(self) -> Experience:
        spaces = self.agent.observation_space, self.agent.action_space
        return Experience(self.config, *spaces, self.ranks.stream)

    def _make_replay(self) -> Replay:
        schema = replay_schema(self.agent.observation_space, self.agent.action_space)
        return run_replay.create(self.part.replay, self.run, schema, self.config.seed, self.ranks.rank)

    def remove_replay(self) -> None:
        """Remove the files of a replay, if there are any."""
        run_replay.remove(self.run, self.ranks.rank)

    def _make_rollout(self, steps: int = 0) -> Rollout | Actors:
        """What collects, in a run that has taken so many steps."""
        return Rollout(
            self.environments,
            freeze(self.agent),
            generator=seeded_generator(self.config.seed, POLICY_STREAM, *self.ranks.stream),
            device=self.device,
            writer=self.replay.writer(self.part.collect.environments),
            exploration=self.exploration,
            rollouts=self.ranks.size,
        )

    def start(self) -> None:
        """Begin with an empty replay."""
        self._replay = self._make_replay()
        self.rollout = self._make_rollout()

    def loop(
        self, progress: Progress, callbacks: Sequence[Callback] = (), writers: Sequence[Writer] | None = None
    ) -> None:
        """Train until the configured number of epochs is done, a callback stops, or a signal comes."""
        self.metrics = MetricsWriter(self.run, self.metrics_offset, writers) if self.ranks.is_first else None
        with self.metrics or nullcontext(), progress, self.interruption.deferred():
            progress.start(self.config, self.epoch, self.current.updates, bool(self.continued))
            self.current.began = time.perf_counter()
            self._set_timer()
            try:
                if self.metrics_offset == 0:
                    with suppress(Interrupted):  # all end together, here below
                        if self.metrics is not None:
                            self._measure_random(self.metrics)
                    self._pause()
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
            collected |= self._collected_meanwhile()
            last = epoch + 1 == config.epochs
            scores = self._evaluate(last) if last or (epoch + 1) % config.evaluate.every == 0 else {}
            rows: dict[RowKind, dict[str, Any]] = {"collect": collected, "update": learned, "evaluation": scores}
            self.epoch = epoch + 1
            rows = self._end_epoch(rows, progress)
            (stopped,) = self.ranks.largest(self._call(callbacks, rows) and not last)
            if stopped:
                self._end_epoch({"collect": {}, "update": {}, "evaluation": self._evaluate(last=True)}, progress)
                self.config = replace(config, epochs=self.epoch)
            if last or stopped or self.epoch % config.checkpoint_every == 0:
                self._save(planned=True)
            if stopped:
                if self.ranks.is_first:
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
        if self.metrics is None:
            return False
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
        mine = self.part.collect.environments
        return reset_seeds(self.config.seed, round_, self.config.collect.environments)[mine * self.ranks.rank :][:mine]

    def _pause(self) -> None:
        """Between two steps or updates: end where a signal has come, and save where the clock asks for it.

        All ranks come here together, and do the same.
        """
        number, save = self.ranks.largest(self.interruption.heard or 0, time.monotonic() >= self._save_at)
        if number:
            raise Interrupted(number)
        if save:
            self._save(planned=False)

    def _pause_is_due(self) -> bool:
        return self.interruption.heard is not None or time.monotonic() >= self._save_at

    def _set_timer(self) -> None:
        minutes = self.config.checkpoint_minutes
        self._save_at = time.monotonic() + 60 * minutes if minutes else math.inf

    def _collect(self) -> dict[str, Any]:
        current, collect = self.current, self.config.collect
        self._take_policy()
        assert not isinstance(self.rollout, Actors)
        while self.ranks.largest(current.steps < collect.steps_per_epoch)[0]:
            before = self.rollout.environment_steps
            with current.timed("collect"), run_replay.capacity_checked():
                current.trials += self.rollout.collect(collect.steps_per_epoch - current.steps, self._pause_is_due)
            current.steps += (self.rollout.environment_steps - before) // collect.environments
            self._pause()
        return {
            **current.trial_metrics(self.config.environment),
            "collect/trials": len(current.trials),
            "collect/epsilon": self.exploration.schedule(self.rollout.environment_steps),
            "collect/steps_per_second": current.steps * collect.environments / current.clock["collect"],
        }

    def _take_policy(self) -> None:
        """Collect by the agent as it is now."""
        assert isinstance(self.rollout, Rollout)
        self.rollout.policy = freeze(self.agent)

    def _collected_meanwhile(self) -> dict[str, Any]:
        """Metrics of what was collected while the epoch learned."""
        return {}

    def _before_update(self) -> None:
        """Called before each update."""

    def _learn(self, progress: Progress) -> dict[str, Any]:
        config, current, updates = self.config, self.current, self.config.updates_per_epoch
        source = self.experience.sampler(self.replay)
        if updates == 0 or self.ranks.largest(source is None)[0]:
            return {}
        assert source is not None
        batches = source.loader(
            self.part.batch_size,
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
                self._before_update()
                with current.timed("sample"):
                    batch = next(batches).to(self.device)
                with current.timed("update"):
                    is_sampled = current.updates % STATISTICS_EVERY == 0
                    weights = (
                        [parameter.detach().clone() for parameter in self.learner.parameters] if is_sampled else []
                    )
                    if is_sampled:
                        found, norm = self._sampled_step(batch)
                        current.add_sample({**found, **update_norms(weights, self.agent), "gradient/norm": norm})
                    else:
                        self.learner.step(batch)
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

    def _sampled_step(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """An update; its statistics, and the norm of its gradients."""
        losses, norm = self.learner.step(batch, ungrouped=True)
        last = self.learner.microbatches(batch)[-1]
        return statistics(losses, self.agent, last, self.config.environment.tasks), norm

    def _relabel(self) -> Relabel | None:
        """The suite's hindsight, with random numbers of this epoch alone, so that a resumed run need not save them."""
        if not self.config.replay.relabel:
            return None
        relabel = get_suite(self.config.environment.suite).relabel
        if relabel is None:
            raise ConfigurationError(f"replay.relabel: the suite {self.config.environment.suite!r} knows no hindsight")
        begun = (self.current.updates,) if self.current.updates else ()
        return relabel(self.config.environment, (self.config.seed, self.epoch, *begun, *self.ranks.stream))

    def _evaluate(self, last: bool) -> dict[str, Any]:
        if self.ranks.size == 1:
            return self._evaluate_here(last, self._pause)
        scores = {}
        if self.ranks.is_first:
            with suppress(Interrupted):  # all end together, here below
                scores = self._evaluate_here(last, self.interruption.check)
        self._pause()
        return scores

    def _evaluate_here(self, last: bool, check: Callable[[], None]) -> dict[str, Any]:
        evaluation = self.config.evaluate
        trials, greedy = evaluation.final_trials if last else evaluation.trials, evaluation.greedy
        with self.current.timed("evaluate"):
            scores = self._play(self._policy(), trials=trials, device=str(self.device), greedy=greedy, check=check)
            if last:
                settings = {"trials": trials, "seed": self.config.seed, "greedy": greedy}
                save_json(report({str(self.run): scores}, **settings), self.run / EVALUATION_NAME)
        return score_metrics(scores)

    def _measure_random(self, metrics: MetricsWriter) -> None:
        trials = self.config.evaluate.final_trials
        scores = self._play(self._uniform_policy(), trials=trials, kind="random", check=self.interruption.check)
        metrics.write("random", 0, 0, 0.0, score_metrics(scores))

    def _policy(self) -> Policy:
        """That of the agent as it is now."""
        return freeze(self.agent)

    def _uniform_policy(self) -> Policy:
        return UniformPolicy(self.agent.action_space)

    def _play(self, policy: Policy, *, kind: Kind | None = None, **options: Any) -> list[TaskScore]:
        config = self.config
        options |= {"layout": self.layout, "seed": config.seed, "kind": kind}
        options["workers"] = self.environments.workers
        return evaluate_all(policy, config.environment, config.evaluate, **options)

    def _write(self, rows: dict[RowKind, dict[str, Any]]) -> dict[RowKind, dict[str, Any]]:
        self.seconds += self.current.seconds()
        if rows["update"]:
            rows["update"] |= self.current.time_fractions()
        if self.metrics is None:
            return rows
        metrics, where = self.metrics, (self.rollout.environment_steps, self.learner.updates, self.seconds)
        return {kind: metrics.write(kind, *where, row).metrics if row else {} for kind, row in rows.items()}

    def _save(self, *, planned: bool) -> None:
        """Write a checkpoint; an unplanned one disturbs nothing, and only where something was done since the last."""
        self._set_timer()
        current, where = self.current, (self.epoch, self.current.steps, self.current.updates)
        if not planned and not self.ranks.largest(where != self._saved)[0]:
            return
        if planned:
            self.rollout.cut()
            if self.learner.ranks is not None and (differing := self.learner.ranks.differing(self.agent)):
                raise RankError(
                    f"{', '.join(differing[:3])}: not the same on all ranks; statistics of networks of your own have "
                    "to be those of all (twohot.tensors.SharedStatistics)"
                )
        else:
            self.experience.drawn()
        rollout = self.rollout.state_dict()
        mine = {"random": {"torch": torch.get_rng_state(), "policy": rollout["generator"]}}
        if self.device.type == "cuda":
            mine["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        my_state = {"data": self.experience.state_dict(), "exploration": self.exploration.state_dict()}
        if not planned:
            mine["statistics"] = {name: value.clone() for name, value in current.sums.items()}
            my_state |= {"steps": current.steps, "current": current.to_json(), "evicted": self._evicted_files}
        if self.metrics is None:
            self._save_part(mine, my_state)
        else:
            learner = self.learner.state_dict()
            tensors = {"agent": self.agent.state_dict(), "optimizer": learner["moments"], **mine}
            state = {
                "config": to_json(self.config),
                "spaces": spaces_of(self.agent),
                "updates": learner["updates"],
                "environment_steps": rollout["environment_steps"],
                "seconds": self.seconds,
                "metrics_offset": self.metrics.offset(),
                "continued": self.continued,
                **my_state,
            }
            others = None if self.ranks.size == 1 else self._save_others
            unplanned = None if planned else where[1:]
            checkpoint.save(self.run, self.epoch, tensors, state, self.replay, unplanned, others)
        self.ranks.wait()
        self._saved = where
        if planned and self.replay.directory is not None:  # two are kept: what the older one needs stays
            self.replay.reclaim(self._evicted_files)
            self._evicted_files = self.replay.evicted_files()

    def _save_others(self, partial: Path) -> list[dict[str, Any]]:
        """Of the first rank: lets the others write into the directory of a checkpoint, and returns their states."""
        self._saves += 1
        self.ranks.tell(f"save {self._saves}", str(partial))
        return [self.ranks.hear(f"saved {self._saves}", rank) for rank in range(1, self.ranks.size)]

    def _save_part(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        self._saves += 1
        partial = Path(self.ranks.tell(f"save {self._saves}"))
        state = checkpoint.save_part(partial, self.ranks.rank, tensors, state, self.replay)
        self.ranks.say(f"saved {self._saves}", state)

    def _load_replay(self, path: Path, saved: dict[str, Any]) -> int:
        """Put the replay back; returns how many steps it has beyond those of the checkpoint."""
        self._replay = run_replay.load(self.part.replay, self.run, path, saved, self.ranks.rank)
        return 0

    def restore(self, path: Path, state: dict[str, Any]) -> None:
        """Put back everything that `_save` took.

        Raises:
            CheckpointError: for a checkpoint of another configuration, or one whose parts do not fit together.
        """
        with checkpoint.reading(path):
            checkpoint.require_same({"spaces": state["spaces"]}, {"spaces": spaces_of(self.agent)}, frozenset())
            learners = 1 + len(state.get("ranks", ()))
            if learners != self.ranks.size:
                raise checkpoint.CheckpointError(
                    f"{path}: was written by {learners} learners, each with a replay of its own: continue it with as "
                    f"many (torchrun --nproc-per-node {learners}), not with {self.ranks.size}"
                )
            mine, suffix = state, ""
            if not self.ranks.is_first:
                mine, suffix = state["ranks"][self.ranks.rank - 1], f"-{self.ranks.rank}"
            checkpoint.load_module(self.agent, checkpoint.read_tensors(path, "agent"))
            moments, updates = checkpoint.read_tensors(path, "optimizer"), checkpoint.count(state, "updates")
            self.learner.load_state_dict({"moments": moments, "updates": updates})
            steps = checkpoint.count(state, "environment_steps") + self._load_replay(path, mine["replay"])
            self.rollout = self._make_rollout(steps)
            random = checkpoint.read_tensors(path, f"random{suffix}")
            torch.set_rng_state(random["torch"])
            self.rollout.load_state_dict({"environment_steps": steps, "generator": random["policy"]})
            if "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
            self.experience.load_state_dict(mine["data"])
            self.exploration.load_state_dict(mine["exploration"])
            self.epoch, self.seconds = checkpoint.count(state, "epoch"), float(state["seconds"])
            self.metrics_offset = checkpoint.count(state, "metrics_offset")
            self.continued = [int(updates) for updates in state["continued"]]
            if state["unplanned"] is None:
                self._evicted_files = mine["replay"]["evicted"]
            else:
                self._evicted_files = mine["evicted"]
                self.continued.append(self.learner.updates)
                sums = checkpoint.read_tensors(path, f"statistics{suffix}")
                sums = {name: value.to(self.device) for name, value in sums.items()}
                steps, updates = state["unplanned"]
                steps = mine.get("steps", steps)
                self.current = Epoch.from_json(mine["current"], steps, updates, sums, self.config.environment)
            self._saved = (self.epoch, self.current.steps, self.current.updates)
