"""The training loop: collect, store, sample, learn, evaluate, save."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twohot import checkpoint, run_replay
from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, TrainConfig
from twohot.config_files import from_json, load_config, save_config, save_json, to_json
from twohot.envs import Layout, TrialVector, check_split, get_suite, make_vector, reset_seeds
from twohot.evaluate import agent_layout, evaluate_all
from twohot.experience import Experience
from twohot.info import describe_run
from twohot.learner import Learner
from twohot.metrics import MetricsWriter
from twohot.objectives import statistics, update_norms
from twohot.progress import Progress
from twohot.replay.relabel import Relabel
from twohot.rl.exploration import Exploration, Schedule
from twohot.rollout import Policy, Rollout, Trial, UniformPolicy, seeded_generator
from twohot.scores import EVALUATION_NAME, Kind, TaskScore, report, score_metrics
from twohot.spaces import SpaceError, replay_schema, space_to_json

STATISTICS_EVERY = 10
"""Updates between two looks at the statistics of an update; a row of metrics is the mean of an epoch's looks."""
NETWORK_STREAM, EXPLORATION_STREAM, POLICY_STREAM = 1, 2, 3
"""Separate the random streams of a run's seed (spawn keys of numpy's SeedSequence)."""
FREE_SETTINGS = frozenset({"epochs"})
"""Settings in which a resumed run may differ from its checkpoint."""


def usable_device(name: str) -> str:
    """The torch device that `name` means, with "auto" resolved.

    Raises:
        ConfigurationError: when it is no CPU or CUDA device, or torch cannot use it here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("neither cpu nor cuda")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"device: expected auto, cpu or a CUDA device that torch can use here, got {name!r} ({reason})"
        ) from error
    return name


def resolve(config: TrainConfig) -> TrainConfig:
    """Replace what depends on the machine ("auto", 0 threads) by what was found, so that the saved file says it."""
    return replace(config, device=usable_device(config.device), threads=config.threads or torch.get_num_threads())


def train(config: TrainConfig, run: Path, progress: Progress) -> None:
    """Run `config` from the beginning in a new directory `run`.

    Raises:
        ConfigurationError: when the directory already holds a run, or the configuration cannot run.
    """
    config = resolve(config)
    if (run / "config.json").exists():
        raise ConfigurationError(f"{run}: holds a run already; continue it with: twohot train --resume {run}")
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ConfigurationError(f"{run}: expected a new or an empty directory for the run")
    session = Session(config, run)
    run.mkdir(parents=True, exist_ok=True)
    save_json(describe_run(), run / "run.json")
    save_config(config, run / "config.json")
    session.start()
    session.loop(progress)


def resume(run: Path, progress: Progress, epochs: int | None = None) -> None:
    """Continue a run from its newest checkpoint, or from the beginning where it has none.

    With the same number of epochs, the run ends (on a CPU) with the weights of one that was never interrupted. One made
    longer than it was planned equals a run planned that long only where its old end was a multiple of
    `checkpoint_every`, for the actors restart at every checkpoint, and the end of a run is one.

    Args:
        run: the run's directory. epochs: a new total of epochs, at least those done; None keeps the old one.

    Raises:
        ConfigurationError, CheckpointError: as their messages say; the run is as it was.
    """
    config = load_config(run / "config.json")
    usable_device(config.device)
    found = checkpoint.latest(run)
    state = checkpoint.read_state(found) if found else None
    if epochs is not None:
        done = state["epoch"] if state else 0
        if epochs < done:
            raise ConfigurationError(f"--epochs: expected at least the {done} that the run has done, got {epochs}")
        config = replace(config, epochs=epochs)
    session = Session(config, run)
    if found and state:
        session.restore(found, state)
    else:
        session.start()
    save_config(config, run / "config.json")
    session.loop(progress)


class Session:
    """Everything that a run holds in memory, built from its configuration."""

    def __init__(self, config: TrainConfig, run: Path) -> None:
        self.config, self.run = config, run
        torch.set_num_threads(config.threads)
        torch.manual_seed(seeded_generator(config.seed, NETWORK_STREAM).initial_seed())
        self.layout, self.environments = _make_environments(config)
        spaces = self.environments.single_observation_space, self.environments.single_action_space
        self.device = torch.device(config.device)
        try:
            self.agent = AgentNetworks(config.agent, *spaces).to(self.device).eval()
        except SpaceError as error:
            self.environments.close()
            raise ConfigurationError(f"environment.tasks: {error}") from error
        self.learner = Learner(self.agent, config.objective, config.optimizer)
        collect = config.collect
        self.exploration = Exploration(
            collect.environments,
            self.agent.action_space,
            Schedule(
                *(collect.epsilon_start, collect.epsilon_end, collect.epsilon_steps),
                *(collect.trial_epsilon_start, collect.trial_epsilon_end, collect.trial_epsilon_steps),
            ),
            np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(EXPLORATION_STREAM,))),
            collect.random_multiplier,
            collect.flip,
            collect.flip_steps,
        )
        self.experience = Experience(config, self.agent.observation_space, self.agent.action_space)
        self.epoch = 0
        self.seconds = 0.0
        self.metrics_offset = 0
        self._evicted_files: list[str] = []
        self._clock: dict[str, float] = defaultdict(float)
        self._ticked = time.perf_counter()

    def _rollout(self) -> Rollout:
        return Rollout(
            self.environments,
            self.agent,
            generator=seeded_generator(self.config.seed, POLICY_STREAM),
            device=self.device,
            writer=self.replay.writer(self.config.collect.environments),
            exploration=self.exploration,
        )

    def start(self) -> None:
        """Begin with an empty replay."""
        schema = replay_schema(self.agent.observation_space, self.agent.action_space)
        self.replay = run_replay.create(self.config.replay, self.run, schema, self.config.seed)
        self.rollout = self._rollout()

    def loop(self, progress: Progress) -> None:
        """Train until the configured number of epochs is done."""
        config = self.config
        metrics = MetricsWriter(self.run, resume_offset=self.metrics_offset)
        with closing(self.environments), metrics, progress:
            progress.start(config, self.epoch)
            self._ticked = time.perf_counter()
            if self.epoch == 0:
                self._measure_random(metrics)
            first = self.epoch
            for epoch in range(first, config.epochs):
                if epoch == first or epoch % config.checkpoint_every == 0:
                    self.rollout.restart(reset_seeds(config.seed, epoch, config.collect.environments))
                collected = self._collect() if epoch >= config.collect.first_epoch else {}
                learned = self._learn(progress) if epoch >= config.warmup_epochs else {}
                self.epoch = epoch + 1
                last = self.epoch == config.epochs
                scores = self._evaluate(last) if last or self.epoch % config.evaluate.every == 0 else {}
                rows = {"collect": collected, "update": learned, "evaluation": scores}
                self._write(metrics, rows)
                progress.epoch(self.epoch, self.rollout.environment_steps, self.learner.updates, rows)
                if last or self.epoch % config.checkpoint_every == 0:
                    self._save(metrics.offset())

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._clock[phase] += time.perf_counter() - start

    def _collect(self) -> dict[str, Any]:
        before = self._clock["collect"]
        with self._timed("collect"):
            try:
                trials = self.rollout.collect(self.config.collect.steps_per_epoch)
            except ValueError as error:
                if "whole capacity of the replay" not in str(error):
                    raise
                raise ConfigurationError(f"replay.capacity_steps: too small for one trial ({error})") from error
        steps = self.config.collect.steps_per_epoch * self.config.collect.environments
        return {
            **_trial_metrics(trials, self.config),
            "collect/trials": len(trials),
            "collect/epsilon": self.exploration.schedule(self.rollout.environment_steps),
            "collect/steps_per_second": steps / (self._clock["collect"] - before),
        }

    def _learn(self, progress: Progress) -> dict[str, Any]:
        config, updates = self.config, self.config.updates_per_epoch
        source = self.experience.sampler(self.replay)
        if updates == 0 or source is None:
            return {}
        sums: dict[str, torch.Tensor] = {}
        counts: dict[str, int] = defaultdict(int)
        started = self._clock["update"]
        batches = source.loader(
            config.batch_size,
            config.window,
            batches=updates,
            by=config.replay.by,
            relabel=self._relabel(),
            torch=True,
            pin_memory=self.device.type == "cuda",
        )
        with closing(batches):
            for update in range(updates):
                with self._timed("sample"):
                    batch = next(batches).to(self.device)
                with self._timed("update"):
                    looked_at = update % STATISTICS_EVERY == 0
                    weights = [parameter.detach().clone() for parameter in self.learner.parameters] if looked_at else []
                    losses, norm = self.learner.step(batch)
                    if looked_at:
                        last = self.learner.pieces(batch)[-1]
                        found = statistics(losses, self.agent, last, config.environment.tasks)
                        found |= update_norms(weights, self.agent)
                        for name, value in {**found, "gradient/norm": norm}.items():
                            sums[name] = sums[name] + value if name in sums else value
                            counts[name] += 1
                progress.update(self.learner.updates)
        self.experience.drawn()
        stats = self.replay.stats()
        centers = {"value/bin_centers": config.agent.bins.values()} if "value/bin_histogram" in sums else {}
        return {
            **{name: (value / counts[name]).cpu() for name, value in sums.items()},
            **centers,
            "learning_rate": self.learner.learning_rate(),
            "updates_per_second": updates / (self._clock["update"] - started),
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
        return relabel(self.config.environment, (self.config.seed, self.epoch))

    def _evaluate(self, last: bool) -> dict[str, Any]:
        evaluation = self.config.evaluate
        trials, greedy = evaluation.final_trials if last else evaluation.trials, evaluation.greedy
        with self._timed("evaluate"):
            scores = self._play(self.agent, trials=trials, device=self.config.device, greedy=greedy)
            if last:
                facts = {"trials": trials, "seed": self.config.seed, "greedy": greedy}
                save_json(report({str(self.run): scores}, **facts), self.run / EVALUATION_NAME)
        return score_metrics(scores)

    def _measure_random(self, metrics: MetricsWriter) -> None:
        policy = UniformPolicy(self.agent.action_space)
        scores = self._play(policy, trials=self.config.evaluate.final_trials, kind="random")
        metrics.write("random", 0, 0, 0.0, score_metrics(scores))

    def _play(self, policy: Policy, *, kind: Kind | None = None, **options: Any) -> list[TaskScore]:
        config = self.config
        options |= {"layout": self.layout, "seed": config.seed, "kind": kind}
        options["workers"] = self.environments.workers
        return evaluate_all(policy, config.environment, config.evaluate, **options)

    def _write(self, metrics: MetricsWriter, rows: dict[str, dict[str, Any]]) -> None:
        now = time.perf_counter()
        elapsed, self._ticked = now - self._ticked, now
        self.seconds += elapsed
        if rows["update"]:
            for phase in ("collect", "sample", "update", "evaluate"):
                rows["update"][f"time/{phase}_share"] = self._clock[phase] / elapsed
        self._clock.clear()
        for kind, row in rows.items():
            if row:
                metrics.write(kind, self.rollout.environment_steps, self.learner.updates, self.seconds, row)

    def _save(self, metrics_offset: int) -> None:
        self.rollout.writer.cut()
        tensors = {
            "agent": self.agent.state_dict(),
            "optimizer": checkpoint.optimizer_tensors(self.learner.optimizer),
            "random": {"torch": torch.get_rng_state(), "policy": self.rollout.generator.get_state()},
        }
        if self.device.type == "cuda":
            tensors["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "config": to_json(self.config),
            "spaces": self._spaces(),
            "updates": self.learner.updates,
            "environment_steps": self.rollout.environment_steps,
            "seconds": self.seconds,
            "metrics_offset": metrics_offset,
            "data": self.experience.random_state,
            "exploration": {
                "generator": self.exploration.generator.bit_generator.state,
                "multiplier": self.exploration.multiplier.tolist(),
            },
        }
        checkpoint.save(self.run, self.epoch, tensors, state, self.replay)
        if self.replay.directory is not None:  # two checkpoints are kept: what the older one needs stays
            self.replay.compact(self._evicted_files)
            self._evicted_files = self.replay.evicted_files()

    def _spaces(self) -> dict[str, Any]:
        agent = self.agent
        return {"observation": space_to_json(agent.observation_space), "action": space_to_json(agent.action_space)}

    def restore(self, path: Path, state: dict[str, Any]) -> None:
        """Put back everything that `_save` took."""
        saved = to_json(from_json(TrainConfig, state["config"]))
        checkpoint.require_same(saved, to_json(self.config), FREE_SETTINGS)
        checkpoint.require_same({"spaces": state["spaces"]}, {"spaces": self._spaces()}, frozenset())
        self.agent.load_state_dict(checkpoint.read_tensors(path, "agent"))
        checkpoint.load_optimizer(self.learner.optimizer, checkpoint.read_tensors(path, "optimizer"))
        try:
            self.replay = run_replay.load(self.config.replay, self.run, path, state["replay"])
        except (ValueError, RuntimeError) as error:
            raise checkpoint.CheckpointError(f"{path}: its replay cannot be read: {error}") from error
        self._evicted_files = state["replay"]["evicted"]
        self.rollout = self._rollout()
        random = checkpoint.read_tensors(path, "random")
        torch.set_rng_state(random["torch"])
        self.rollout.generator.set_state(random["policy"])
        if "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.device)
        self.experience.random_state = state["data"]
        self.exploration.generator.bit_generator.state = state["exploration"]["generator"]
        self.exploration.multiplier = np.array(state["exploration"]["multiplier"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.learner.updates = state["updates"]
        self.rollout.environment_steps = state["environment_steps"]
        self.metrics_offset = state["metrics_offset"]


def _make_environments(config: TrainConfig) -> tuple[Layout, TrialVector]:
    try:
        layout = agent_layout(config.environment, config.evaluate)
        collect = config.collect
        vector = make_vector(
            **asdict(config.environment),
            environments=collect.environments,
            layout=layout,
            assignment=collect.assignment,
            workers=collect.workers,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigurationError(f"environment: {error}") from error
    for split in config.evaluate.splits:
        check_split(config.environment.suite, split)
    return layout, vector


def _trial_metrics(trials: list[Trial], config: TrainConfig) -> dict[str, float]:
    """Mean returns and successes of finished trials, by task and attempt."""
    result: dict[str, float] = {}
    environment = config.environment
    suite = get_suite(environment.suite)
    for index, task in enumerate(environment.tasks):
        mine = [trial for trial in trials if trial.task == index]
        if not mine:
            continue
        by_attempt = np.mean([trial.attempt_returns for trial in mine], axis=0)
        result[f"collect/return/{task}"] = float(by_attempt[environment.free_attempts :].sum())
        if len(by_attempt) > 1:
            for attempt, value in enumerate(by_attempt, start=1):
                result[f"collect/return/{task}/attempt_{attempt}"] = float(value)
        if suite.tells_success or any(trial.success_told for trial in mine):
            successes = [trial.attempt_success[environment.free_attempts :] for trial in mine]
            result[f"collect/success/{task}"] = float(np.mean(successes))
    return result
