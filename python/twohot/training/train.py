"""The training loop: collect, store, sample, learn, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import from_json, load_config, save_config, save_json, to_json
from twohot.data.experience import Experience
from twohot.data.rollout import Policy, Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import agent_layout, replay_schema
from twohot.envs import Layout, TrialVector, check_split, get_suite, make_vector, reset_seeds
from twohot.info import START_NAME, describe_run, read_start
from twohot.learning import statistics, update_norms
from twohot.learning.learner import Learner
from twohot.nets.frozen import freeze
from twohot.replay import Replay
from twohot.replay.relabel import Relabel
from twohot.rl.exploration import Exploration, Schedule
from twohot.runs import checkpoint
from twohot.runs import replay as run_replay
from twohot.runs.metrics import MetricsWriter
from twohot.runs.ownership import OWNER_NAME, owned
from twohot.runs.scores import EVALUATION_NAME, Kind, TaskScore, report, score_metrics
from twohot.spaces import SpaceError, space_to_json
from twohot.text import printable
from twohot.training.epoch import Epoch
from twohot.training.evaluate import evaluate_all
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.progress import Progress

STATISTICS_EVERY = 10
"""Updates between two samples of the statistics of an update; a row of metrics is the mean of an epoch's samples."""
NETWORK_STREAM, EXPLORATION_STREAM, POLICY_STREAM = 1, 2, 3
"""Separate the random streams of a run's seed (spawn keys of numpy's SeedSequence)."""
FREE_SETTINGS = frozenset({"epochs", "checkpoint_minutes"})
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

    In the main thread, SIGINT, SIGTERM and SIGHUP end what is going on between two steps, save the run, and raise
    `Interrupted`; a second signal is handled as it was before the call.

    Raises:
        ConfigurationError: when the directory already holds a run, or the configuration cannot run.
        OwnedRunError: when another process works in the directory.
        Interrupted: by a signal; the run can be resumed.
    """
    config = resolve(config)
    _require_new(run)
    with Interruption() as interruption, owned(run):
        _require_new(run)  # nor was it begun while the lock was awaited
        with closing(Session(config, run, interruption)) as session:
            save_json(describe_run(), run / START_NAME)
            save_config(config, run / "config.json")
            session.start()
            session.loop(progress)


def _require_utf8(run: Path) -> None:
    try:
        str(run).encode()
    except UnicodeEncodeError:  # neither TensorBoard nor the replay's files can be there
        raise ConfigurationError(f"{printable(run)}: expected a directory whose name is UTF-8") from None


def _require_new(run: Path) -> None:
    _require_utf8(run)
    if (run / "config.json").exists():
        raise ConfigurationError(f"{run}: holds a run already; continue it with: {checkpoint.resume_command(run)}")
    # What a process leaves that is killed before it has written its configuration does not count.
    ours = {OWNER_NAME, START_NAME}
    if run.exists() and (
        not run.is_dir() or any(path.name not in ours and path.suffix != ".partial" for path in run.iterdir())
    ):
        raise ConfigurationError(f"{run}: expected a new or an empty directory for the run")


def resume(run: Path, progress: Progress, epochs: int | None = None, checkpoint_minutes: float | None = None) -> None:
    """Continue a run from its newest checkpoint, or from the beginning where it has none.

    With the same number of epochs, the run ends (on a CPU) with the weights of one that was never interrupted, unless
    that checkpoint was an unplanned one: then it is as good a run, but another one. One made longer than it was planned
    equals a run planned that long only where its old end was a multiple of `checkpoint_every`, for the actors restart
    at every checkpoint, and the end of a run is one. A run that has finished is left as it is.

    Args:
        run: the run's directory. epochs: a new total of epochs, at least those begun; None keeps the old one.
        checkpoint_minutes: in the place of the configuration's; None keeps it.

    Raises:
        ConfigurationError, CheckpointError: as their messages say; the run is as it was.
        OwnedRunError, Interrupted: as for `train`.
    """
    _require_utf8(run)
    if not (run / "config.json").is_file():
        load_config(run / "config.json")  # says what is missing, and makes no directory
    with Interruption() as interruption, owned(run):
        config = load_config(run / "config.json")
        usable_device(config.device)
        found = checkpoint.latest(run)
        state = checkpoint.read_state(found) if found else None
        if checkpoint_minutes is not None:
            config = replace(config, checkpoint_minutes=checkpoint_minutes)
        done = begun = 0
        if found and state:
            with checkpoint.reading(found):
                saved = to_json(from_json(TrainConfig, state["config"]))
                checkpoint.require_same(saved, to_json(config), FREE_SETTINGS)
                done = checkpoint.count(state, "epoch")
                begun = done + (state["unplanned"] not in (None, [0, 0]))
        if epochs is not None:
            if epochs < begun:
                raise ConfigurationError(f"--epochs: expected at least the {begun} that the run has done, got {epochs}")
            config = replace(config, epochs=epochs)
        if done >= config.epochs:
            progress.finished(run, config)
            return
        with closing(Session(config, run, interruption)) as session:
            if found and state:
                session.restore(found, state)
            else:
                session.start()
            _describe_continuations(run, session.continued)
            save_config(config, run / "config.json")
            session.loop(progress)


def _describe_continuations(run: Path, continued: list[int]) -> None:
    """Say in the description of a run where it went on from unplanned checkpoints, if it did."""
    before = read_start(run)
    start = {label: value for label, value in before.items() if label != "continued"}
    if continued:
        where = ", ".join(f"{updates:,}" for updates in continued)
        start["continued"] = f"at update {where}, off plan: a valid run, but not bit for bit the one never stopped"
    if start != before:
        save_json(start, run / START_NAME)


def settings_in_conflict(asked: TrainConfig, stored: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """Settings, with both values, of a configuration that was asked for and one that was resolved, which differ.

    Those in which a resumed run is free do not count, nor those that leave the choice to the machine.
    """
    free = {*FREE_SETTINGS, *({"device"} if asked.device == "auto" else ()), *(() if asked.threads else {"threads"})}
    yield from checkpoint.differences(to_json(asked), to_json(stored), frozenset(free))


class Session:
    """Everything that a run holds in memory, built from its configuration."""

    def __init__(self, config: TrainConfig, run: Path, interruption: Interruption) -> None:
        self.config, self.run, self.interruption = config, run, interruption
        torch.set_num_threads(config.threads)
        torch.manual_seed(seeded_generator(config.seed, NETWORK_STREAM).initial_seed())
        self.layout, self.environments = _make_environments(config)
        spaces = self.environments.single_observation_space, self.environments.single_action_space
        self.device = torch.device(config.device)
        try:
            self.agent = AgentNetworks(config.agent, *spaces).to(self.device).eval()
        except (SpaceError, MemoryError, OverflowError, RuntimeError, TypeError) as error:
            self.environments.close()
            if isinstance(error, SpaceError):
                raise ConfigurationError(f"environment.tasks: {error}") from error
            if _too_large(error):
                raise ConfigurationError(f"agent: too large for this machine ({error!r:.200})") from error
            raise
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
            collect.randomize_epsilon,
            collect.flip_probability,
            collect.flip_steps,
        )
        self.experience = Experience(config, self.agent.observation_space, self.agent.action_space)
        self.replay: Replay | None = None
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
        if self.replay is not None:
            self.replay.close()

    def _rollout(self) -> Rollout:
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
        self.replay = run_replay.create(self.config.replay, self.run, schema, self.config.seed)
        self.rollout = self._rollout()

    def loop(self, progress: Progress) -> None:
        """Train until the configured number of epochs is done, or until a signal."""
        self.metrics = MetricsWriter(self.run, resume_offset=self.metrics_offset)
        with self.metrics, progress, self.interruption.deferred():
            progress.start(self.config, self.epoch, self.current.updates, bool(self.continued))
            self.current.began = time.perf_counter()
            self._await_the_clock()
            if self.metrics_offset == 0:
                self._measure_random()
            try:
                self._epochs(progress)
            except Interrupted:
                progress.interrupted()
                self.rollout.writer.cut()
                self._save(planned=False)
                raise

    def _epochs(self, progress: Progress) -> None:
        config, first = self.config, self.epoch
        for epoch in range(first, config.epochs):
            if epoch == first or epoch % config.checkpoint_every == 0:
                self.rollout.restart(self._reset_seeds())
            collected = self._collect() if epoch >= config.collect.first_epoch else {}
            learned = self._learn(progress) if epoch >= config.warmup_epochs else {}
            last = epoch + 1 == config.epochs
            scores = self._evaluate(last) if last or (epoch + 1) % config.evaluate.every == 0 else {}
            rows = {"collect": collected, "update": learned, "evaluation": scores}
            self._write(rows)
            self.epoch, self.current = epoch + 1, Epoch()
            progress.epoch(self.epoch, self.rollout.environment_steps, self.learner.updates, rows)
            if last or self.epoch % config.checkpoint_every == 0:
                self._save(planned=True)
            self._pause()

    def _reset_seeds(self) -> list[int]:
        """Seeds of the actors' next trials; where the epoch has begun already, not those that it began with."""
        begun = self.current.steps or self.current.updates
        turn = self.epoch + (self.rollout.environment_steps + 1 << 32 if begun else 0)
        return reset_seeds(self.config.seed, turn, self.config.collect.environments)

    def _pause(self) -> None:
        """Between two steps or updates: end where a signal has come, and save where the clock asks for it."""
        self.interruption.check()
        if time.monotonic() >= self._save_at:
            self._save(planned=False)

    def _pause_is_due(self) -> bool:
        return self.interruption.heard or time.monotonic() >= self._save_at

    def _await_the_clock(self) -> None:
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
        with closing(batches):
            while current.updates < updates:
                with current.timed("sample"):
                    batch = next(batches).to(self.device)
                with current.timed("update"):
                    looked_at = current.updates % STATISTICS_EVERY == 0
                    weights = [parameter.detach().clone() for parameter in self.learner.parameters] if looked_at else []
                    losses, norm = self.learner.step(batch)
                    if looked_at:
                        last = self.learner.pieces(batch)[-1]
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
                facts = {"trials": trials, "seed": self.config.seed, "greedy": greedy}
                save_json(report({str(self.run): scores}, **facts), self.run / EVALUATION_NAME)
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

    def _write(self, rows: dict[str, dict[str, Any]]) -> None:
        self.seconds += self.current.seconds()
        if rows["update"]:
            rows["update"] |= self.current.time_shares()
        for kind, row in rows.items():
            if row:
                self.metrics.write(kind, self.rollout.environment_steps, self.learner.updates, self.seconds, row)

    def _save(self, *, planned: bool) -> None:
        """Write a checkpoint; an unplanned one disturbs nothing, and only where something was done since the last."""
        self._await_the_clock()
        current, where = self.current, (self.epoch, self.current.steps, self.current.updates)
        if not planned and where == self._saved:
            return
        if planned:
            self.rollout.writer.cut()
        else:
            self.experience.drawn()
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
            "metrics_offset": self.metrics.offset(),
            "data": self.experience.random_state,
            "exploration": {
                "generator": self.exploration.generator.bit_generator.state,
                "multiplier": self.exploration.multiplier.tolist(),
            },
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
            checkpoint.load_optimizer(self.learner.optimizer, checkpoint.read_tensors(path, "optimizer"))
            self.replay = run_replay.load(self.config.replay, self.run, path, state["replay"])
            self.rollout = self._rollout()
            random = checkpoint.read_tensors(path, "random")
            torch.set_rng_state(random["torch"])
            self.rollout.generator.set_state(random["policy"])
            if "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
            self.experience.random_state = state["data"]
            self.exploration.generator.bit_generator.state = state["exploration"]["generator"]
            self.exploration.multiplier[:] = state["exploration"]["multiplier"]
            self.epoch, self.seconds = checkpoint.count(state, "epoch"), float(state["seconds"])
            self.learner.updates = checkpoint.count(state, "updates")
            self.rollout.environment_steps = checkpoint.count(state, "environment_steps")
            self.metrics_offset = checkpoint.count(state, "metrics_offset")
            self.continued = [int(updates) for updates in state["continued"]]
            if state["unplanned"] is None:
                self._evicted_files = state["replay"]["evicted"]
            else:
                self._evicted_files = state["evicted"]
                self.continued.append(self.learner.updates)
                sums = checkpoint.read_tensors(path, "statistics")
                sums = {name: value.to(self.device) for name, value in sums.items()}
                self.current = Epoch.from_json(state["current"], *state["unplanned"], sums, self.config.environment)
            self._saved = (self.epoch, self.current.steps, self.current.updates)


def _too_large(error: Exception) -> bool:
    """Whether this is what torch and Python say of a size for which there is no memory, or no number."""
    known = ("allocate memory", "out of memory", "Overflow when unpacking", "negative dimension", "numel")
    return isinstance(error, (MemoryError, OverflowError)) or any(words in str(error) for words in known)


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
    except (ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, ValueError) and type(error) is not ValueError:
            raise
        raise ConfigurationError(f"environment: {error or 'too large for this machine'}") from error
    for split in config.evaluate.splits:
        check_split(config.environment.suite, split)
    return layout, vector
