"""An agent that was trained in several domains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch

from twohot.agent import MixedNetworks
from twohot.config import TrainConfig
from twohot.data.domains import domain_config
from twohot.envs import split_name
from twohot.inference.agent import Agent
from twohot.inference.environment_policy import EnvironmentPolicy
from twohot.inference.errors import ActingError
from twohot.text import did_you_mean


class MixedAgent(Agent):
    """What `Agent` is where it was trained in several domains; `for_task` gives the one that acts in a task.

    Attributes:
        domains: the names of the tasks of each, by its name.
    """

    networks: Any  # MixedNetworks

    def __init__(self, networks: MixedNetworks, config: TrainConfig, *, device: str = "cpu", seed: int = 0) -> None:
        self.networks, self.config, self.device = networks.to(device).eval(), config, torch.device(device)
        self.source = None
        self.domains = {name: member.tasks for name, member in networks.about.items()}
        members = networks.each()
        self._agents = {
            name: Agent(
                members[name], domain_config(config, tasks, networks.about[name].suite), device=device, seed=seed
            )
            for name, tasks in self.domains.items()
        }

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.networks.parameters())
        return f"Agent({count:,} parameters, {', '.join(self.domains)}: act with for_task(NAME))"

    def for_task(self, task: str) -> Agent:
        for name, tasks in self.domains.items():
            if task in tasks:
                agent = self._agents[name]
                return agent.for_task(split_name(task, agent.config.environment.suite)[1])
        every = [each for tasks in self.domains.values() for each in tasks]
        raise ActingError(f"for_task: {did_you_mean(task, every)}expected one of {', '.join(every)}, got {task!r}")

    def seed(self, seed: int) -> None:
        for agent in self._agents.values():
            agent.seed(seed)

    def wrap(self, env: Any, *, task: str | None = None, seed: int = 0) -> EnvironmentPolicy:
        """As `Agent.wrap`; the domain is that of the task, or without one, the only one that these spaces fit into.

        Raises:
            ActingError: as there; or they fit into several.
        """
        if task is not None:
            return self.for_task(task).wrap(env, seed=seed)
        found: dict[str, EnvironmentPolicy] = {}
        refused = []
        for name, agent in self._agents.items():
            try:
                found[name] = agent.wrap(env, seed=seed)
            except ActingError as error:
                refused.append(f"{name}: {error}")
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise ActingError(f"wrap: expected task=..., for the spaces fit into several domains, {', '.join(found)}")
        raise ActingError(f"wrap: the environment fits into no domain of the agent ({'; '.join(refused)})")

    def export(self, path: str | Path) -> None:
        """Write a program for each domain: "policy.pt2" becomes "policy-gym.pt2" and so on."""
        path = Path(path)
        for name, agent in self._agents.items():
            agent.export(path.with_name(f"{path.stem}-{name}{path.suffix}"))

    def _unsaid(self, *_: Any, **__: Any) -> NoReturn:
        raise ActingError(
            "expected agent.for_task(NAME) before, for each domain of this agent has its own observations and actions: "
            + "; ".join(f"{name}: {', '.join(tasks)}" for name, tasks in self.domains.items())
        )

    act = reset = encode = make_environments = get_values = _unsaid


Agent._of_several = MixedAgent
