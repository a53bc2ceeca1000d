"""An agent that was trained in several domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from twohot.agent import MixedNetworks
from twohot.config import TrainConfig
from twohot.inference.agent import Agent
from twohot.inference.errors import ActingError, UnsaidTaskError
from twohot.text import did_you_mean

if TYPE_CHECKING:
    from twohot.inference.environment_policy import EnvironmentPolicy


class MixedAgent(Agent):
    """What `Agent` is where it was trained in several domains; `for_task` gives the one that acts in a task.

    Attributes:
        domains: the names of the tasks of each, by its name.
    """

    networks: Any  # MixedNetworks

    def __init__(self, networks: MixedNetworks, config: TrainConfig, *, device: str = "cpu", seed: int = 0) -> None:
        from twohot.data.domains import domain_config  # which loads suites

        self.networks, self.config, self.device = networks.to(device).eval(), config, torch.device(device)
        self.source = None
        self.domains = {name: member.tasks for name, member in networks.about.items()}
        members = networks.each()
        configs = {
            name: domain_config(config, tasks, networks.about[name].suite) for name, tasks in self.domains.items()
        }
        self._agents = {name: Agent(members[name], each, device=device, seed=seed) for name, each in configs.items()}

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.networks.parameters())
        return f"Agent({count:,} parameters, {', '.join(self.domains)}: act with for_task(NAME))"

    def for_task(self, task: str) -> Agent:
        from twohot.envs import plain_name

        for name, tasks in self.domains.items():
            if task in tasks:
                suite = self.networks.about[name].suite
                return self._agents[name].for_task(plain_name(task, suite, self.config.environment.suite))
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
        found: dict[str, EnvironmentPolicy | UnsaidTaskError] = {}
        refused = []
        for name, agent in self._agents.items():
            try:
                found[name] = agent.wrap(env, seed=seed)
            except UnsaidTaskError as error:  # the spaces fit
                found[name] = error
            except ActingError as error:
                refused.append(f"{name}: {error}")
        if not found:
            raise ActingError(f"wrap: the environment fits into no domain of the agent ({'; '.join(refused)})")
        if len(found) > 1:
            raise ActingError(f"wrap: expected task=..., for the spaces fit into several domains, {', '.join(found)}")
        ((name, policy),) = found.items()
        if isinstance(policy, UnsaidTaskError):
            raise UnsaidTaskError(f"{name}: {policy}")
        return policy

    def encode(self, task: Any, observation: Any, **about: Any) -> Any:
        """As `Agent.encode`, of one of the tasks; an environment's spaces are looked at by an agent `for_task`."""
        return self.for_task(task).encode(task, observation, **about) if isinstance(task, str) else self._unsaid()

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

    act = reset = make_environments = get_values = _unsaid
    observation_space = action_space = property(_unsaid)  # pyright: ignore[reportAssignmentType] as each domain's own


Agent._of_several = MixedAgent
