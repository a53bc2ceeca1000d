"""A session with several domains: an agent of one member for each, environments and replay of one for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from torch import Tensor

from twohot.agent import Member, MixedNetworks
from twohot.config import ConfigurationError, TrainConfig
from twohot.data.domains import Domain, apportion, domains_of
from twohot.data.rollout import Player, UniformPolicy, seeded_generator
from twohot.data.rollouts import Rollouts
from twohot.data.spaces import replay_schema
from twohot.envs import TrialEnvironments
from twohot.learning import mixed_statistics, statistics
from twohot.learning.mixed_batch import MixedBatch
from twohot.nets.frozen_members import freeze_members
from twohot.replay import Replay
from twohot.rl.exploration import Exploration
from twohot.runs import replay as run_replay
from twohot.runs.replay import Replays
from twohot.runs.scores import Kind, TaskScore
from twohot.training.build import make_environments, make_exploration, make_mixed_networks
from twohot.training.evaluate import evaluate_domain
from twohot.training.session import POLICY_STREAM, Session

DOMAIN_STREAM = 0
"""Stands before the index of a domain in the spawn keys of what is its own; no rank but the first has streams so."""


class MixedSession(Session):
    """Everything that a run with several domains holds in memory; see `Session`."""

    agent: Any  # a MixedNetworks
    layout: Any  # of each domain its own: `domains`
    environments: Any  # `Vectors`
    exploration: Any  # `Explorations`
    experience: Any  # `MixedExperience`
    rollout: Any  # `Rollouts`
    _replay: Any  # `Replays`

    def _make_environments(self) -> tuple[Any, Any]:
        try:
            self.domains = {domain.name: domain for domain in domains_of(self.config)}
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise ConfigurationError(f"environment: {error}") from error
        vectors = Vectors()
        try:
            for name, domain in self.domains.items():
                _, vectors.each[name] = make_environments(domain.config, layout=domain.layout)
        except BaseException:
            vectors.close()
            raise
        return None, vectors

    def _make_agent(self) -> MixedNetworks:  # pyright: ignore[reportIncompatibleMethodOverride] of several domains
        members = {
            name: Member(
                tuple(self.domains[name].tasks.values()),
                vector.single_observation_space,
                vector.single_action_space,
                self.domains[name].config.environment.suite,
            )
            for name, vector in self.environments.each.items()
        }
        predicts = self.config.objective.predicts
        return make_mixed_networks(self.config.agent, members, self.device, predicts=predicts)

    def _make_exploration(self) -> Any:
        members = self.agent.each()
        return Explorations(
            {
                name: make_exploration(domain.config, members[name].action_space, (DOMAIN_STREAM, index))
                for index, (name, domain) in enumerate(self.domains.items())
            },
            make_exploration(self.config, next(iter(members.values())).action_space),
        )

    def _make_experience(self) -> Any:
        return MixedExperience(self.config, self.domains)

    def _make_replay(self) -> Any:
        return Replays(
            {
                name: run_replay.create(domain.config.replay, self.run, self._schema(name), self.config.seed, name)
                for name, domain in self.domains.items()
            }
        )

    def _schema(self, name: str) -> Any:
        member = self.agent[name]
        return replay_schema(member.observation_space, member.action_space)

    def remove_replay(self) -> None:
        for name in self.domains:
            run_replay.remove(self.run, name)

    def _load_replay(self, path: Path, saved: dict[str, Any]) -> int:
        self._replay = Replays(
            {
                name: run_replay.load(domain.config.replay, self.run, path, saved["domains"][name], name)
                for name, domain in self.domains.items()
            }
        )
        return 0

    def _make_rollout(self, steps: int = 0) -> Any:
        index_of = {name: index for index, name in enumerate(self.config.environment.tasks)}
        players, tasks = {}, {}
        for index, (name, domain) in enumerate(self.domains.items()):
            players[name] = Player(
                self.environments.each[name],
                generator=seeded_generator(self.config.seed, POLICY_STREAM, DOMAIN_STREAM, index),
                device=self.device,
                writer=self._replay.each[name].writer(domain.config.collect.environments),
                exploration=self.exploration.each[name],
            )
            tasks[name] = [index_of[domain.tasks[task]] for task in domain.config.environment.tasks]
        return Rollouts(players, self._policy(), tasks)

    def _take_policy(self) -> None:
        self.rollout.policies = self._policy()

    def _sampled_step(self, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        computed, norm = self.learner.step_with_parts(batch)
        names = {id(member): name for name, member in self.agent.each().items()}
        found = []
        for part, losses in computed:
            domain = self.domains[names[id(part.agent)]]
            tasks = tuple(domain.tasks[task] for task in domain.config.environment.tasks)
            found.append((statistics(losses, part.agent, part.batch, tasks), part.batch.mask.sum()))
        return mixed_statistics(found), norm

    def _policy(self) -> Any:
        return freeze_members(self.agent.each())

    def _uniform_policy(self) -> Any:
        return {name: UniformPolicy(member.action_space) for name, member in self.agent.each().items()}

    def _play(self, policy: Any, *, kind: Kind | None = None, **options: Any) -> list[TaskScore]:
        options |= {"seed": self.config.seed, "kind": kind}
        scores = []
        for name, domain in self.domains.items():
            workers = self.environments.each[name].workers
            scores += evaluate_domain(policy[name], domain, workers=workers, **options)
        return scores


class Vectors:
    """The environments of each domain."""

    def __init__(self) -> None:
        self.each: dict[str, TrialEnvironments] = {}

    def close(self) -> None:
        """End the processes of all."""
        with ExitStack() as stack:  # all are closed, whichever cannot be
            for vector in self.each.values():
                stack.callback(vector.close)


class Explorations:
    """The exploration of each domain, and the schedule that all follow together."""

    def __init__(self, each: dict[str, Exploration], together: Exploration) -> None:
        self.each, self.schedule = each, together.schedule

    def state_dict(self) -> dict[str, Any]:
        """As `Exploration.state_dict`, by domain."""
        return {name: each.state_dict() for name, each in self.each.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name, each in self.each.items():
            each.load_state_dict(state[name])


class MixedExperience:
    """What a run with several domains learns from: its own trajectories."""

    def __init__(self, config: TrainConfig, domains: Mapping[str, Domain]) -> None:
        self._balance, self._domains = config.replay.balance, domains

    def sampler(self, own: Replays) -> MixedSampler | None:
        """What to draw batches from now: of the domains that have stored a trajectory; None before any."""
        replays = {name: replay for name, replay in own.each.items() if replay.stats().trajectories}
        return MixedSampler(replays, self._weights(replays)) if replays else None

    def _weights(self, replays: Mapping[str, Replay]) -> list[float]:
        if self._balance == "step":
            return [float(replay.stats().steps) for replay in replays.values()]
        configs = [self._domains[name].config for name in replays]
        tasks = [len(config.environment.tasks) for config in configs]
        if self._balance == "task":
            return [float(count) for count in tasks]
        suites = [config.environment.suite for config in configs]
        of_suite = {suite: sum(n for n, other in zip(tasks, suites, strict=True) if other == suite) for suite in suites}
        return [count / of_suite[suite] for count, suite in zip(tasks, suites, strict=True)]

    def drawn(self) -> None:
        """There is nothing beside the replays' own random streams."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `state_dict` returned it."""


class MixedSampler:
    """Draws batches of several domains, each with the same share of the windows of every batch."""

    def __init__(self, replays: Mapping[str, Replay], weights: list[float]) -> None:
        self._replays, self._weights = replays, weights

    def loader(
        self, batch_size: int, length: int, *, batches: int, relabel: None = None, **options: Any
    ) -> Iterator[MixedBatch]:
        """As `Replay.loader`."""
        rows = apportion(batch_size, self._weights)
        with ExitStack() as stack:
            loaders: dict[str, Any] = {
                name: stack.enter_context(closing(_loader(replay, count, length, batches=batches, **options)))
                for count, (name, replay) in zip(rows, self._replays.items(), strict=True)
            }
            for _ in range(batches):
                yield MixedBatch({name: next(loader) for name, loader in loaders.items()})


def _loader(replay: Replay, *sizes: int, **options: Any) -> Any:
    """A loader, which is a generator and so can be closed."""
    return replay.loader(*sizes, **options)
