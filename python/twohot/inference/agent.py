"""A trained policy in five lines: numpy in, numpy out, without the training stack."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import MultiBinary
from numpy.typing import ArrayLike

from twohot.agent import AgentNetworks
from twohot.config import TrainConfig
from twohot.config.files import from_json
from twohot.errors import TwohotError
from twohot.exact import exact_array, read_array
from twohot.nets.frozen import freeze
from twohot.runs import checkpoint
from twohot.spaces import OBSERVATION, action_dtype, dtype_of, shape_of, space_from_json

if TYPE_CHECKING:
    from twohot.inference.analysis import Values


class ActingError(TwohotError, ValueError):
    """An observation, reward or mask that does not fit; the message says what was expected. The memory is as it was."""


class Agent:
    """A policy with its memory, acting in several environments at once.

    From the last checkpoint of a run, on a CPU:

        agent = twohot.Agent.from_checkpoint("runs/mine")
        environments = agent.make_environments(4)
        observation, _ = environments.reset(seed=0)
        agent.reset(4)
        action = agent.act(observation)

    and so on with `agent.act(observation, reward)`, and `agent.reset(where=done)` where a trial has ended.

    Args:
        networks: trained; the agent acts as they do now, whatever becomes of them. config: of their run.
        device: where to act. seed: of sampled actions.
    """

    def __init__(self, networks: AgentNetworks, config: TrainConfig, *, device: str = "cpu", seed: int = 0) -> None:
        self.networks, self.config, self.device = networks.to(device).eval(), config, torch.device(device)
        self.observation_space, self.action_space = networks.observation_space, networks.action_space
        self._policy, self._generator = freeze(self.networks), torch.Generator().manual_seed(seed)
        self._state: Any = None

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.networks.parameters())
        suite, tasks = self.config.environment.suite, len(self.config.environment.tasks)
        return f"Agent({count:,} parameters on {self.device}, {tasks} tasks of {suite}, {self.action_space})"

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, device: str = "cpu", seed: int = 0) -> Agent:
        """The agent of a run's newest checkpoint, or of one checkpoint.

        Args:
            path: a run directory, or one of its checkpoints (RUN/checkpoints/epoch-...). device, seed: as above.

        Raises:
            CheckpointError: when there is none, or it is corrupt.
        """
        config, networks = load_networks(Path(path))
        return cls(networks, config, device=device, seed=seed)

    def make_environments(self, count: int = 1) -> Any:
        """`count` environments that show what the agent was trained on, as `twohot.envs.make_vector` makes them."""
        from twohot.data.spaces import agent_layout
        from twohot.envs import make_vector

        layout = agent_layout(self.config.environment, self.config.evaluate)
        return make_vector(**asdict(self.config.environment), environments=count, layout=layout)

    def reset(self, environments: int | None = None, *, where: ArrayLike | None = None) -> None:
        """Begin new trials: the agent forgets what it saw.

        Args:
            environments: begin that many (B), whatever was before.
            where: [B] bool, the environments that begin; the others go on. With neither, all begin.

        Raises:
            ActingError: when there is nothing to begin, or `where` is no bool [B].
        """
        if environments is not None:
            try:
                environments = operator.index(environments)
            except TypeError:
                environments = 0
            if environments < 1 or where is not None:
                raise ActingError("reset: expected a whole number of environments from 1 on, or `where`, and not both")
            self._state = self._policy.initial_state(environments)
            dtype = action_dtype(self.action_space)
            self._action = np.zeros((environments, *(self.action_space.shape or ())), dtype)
            self._began = np.ones(environments, bool)
            return
        if self._state is None:
            raise ActingError("reset: expected a number of environments at first")
        try:
            mask = np.ones(len(self._began), bool) if where is None else read_array(where).copy()
        except ValueError as error:
            raise ActingError(f"reset: expected `where` bool {self._began.shape}: {error}") from error
        if mask.dtype != bool or mask.shape != self._began.shape:
            raise ActingError(f"reset: expected `where` bool {self._began.shape}, got {mask.dtype} {mask.shape}")
        self._state.reset(torch.from_numpy(mask).to(self.device))
        self._action[mask] = 0
        self._began |= mask

    @torch.no_grad()
    def act(
        self, observation: ArrayLike | Mapping[str, ArrayLike], reward: ArrayLike | None = None, *, greedy: bool = False
    ) -> np.ndarray:
        """The action of each environment; remembers it, for the policy sees what it did before.

        Arrays, tensors on the CPU and lists of numbers are taken by their values, and exactly: vectors take all numbers
        that float32 holds, floats rounded to it; images, tokens, grids and action masks take integers of their dtype,
        masks also bools. Nothing else is cast. Where an action mask allows nothing, everything is allowed.

        Args:
            observation: [B, ...] of the observation space, or a dict of those.
            reward: [B] raw reward of the last action; not read of environments that have just begun, and where all have
                it may be left out.
            greedy: take the most probable action instead of sampling one.

        Returns:
            [B, *action], of the dtype of the action space, for `environments.step`.

        Raises:
            ActingError: when `reset` has not been called; for an array of another shape, a NaN, or a number that would
                have to be changed. The agent is then as it was before the call.
        """
        if self._state is None:
            raise ActingError("act: expected reset(environments) first")
        if reward is None and not self._began.all():
            raise ActingError("act: expected the reward of the last actions, which the policy sees, got none")
        seen, given = self._seen(observation), self._rewarded(reward)
        action = self._policy.act(
            self._state,
            seen,
            torch.from_numpy(self._action).to(self.device),
            torch.from_numpy(given).to(self.device),
            greedy=greedy,
            generator=self._generator,
        )
        self._began[:] = False
        self._action = action.cpu().numpy().astype(self._action.dtype)
        return self._action.astype(self.action_space.dtype)

    def get_values(self, trajectories: Sequence[Mapping[str, Any]], *, samples: int = 16) -> list[Values]:
        """Values and log-probabilities of trajectories, such as `[replay.get(index)]`: see `trajectory_values`."""
        from twohot.inference.analysis import trajectory_values

        return trajectory_values(self.networks, trajectories, samples=samples)

    def export(self, path: str | Path) -> None:
        """Write the acting step as a program that needs torch alone: see `twohot.inference.export.export_policy`."""
        from twohot.inference.export import export_policy

        export_policy(self.networks, path)

    def _rewarded(self, reward: Any) -> np.ndarray:
        """[B] float32, 0 where a trial has just begun."""
        environments = len(self._began)
        if reward is None:
            return np.zeros(environments, np.float32)
        try:
            array = read_array(reward)
            if array.shape == (environments,) and array.dtype.kind in "biuf":
                array = np.where(self._began, 0, array)
            return exact_array(array, np.dtype(np.float32), (environments,))
        except ValueError as error:
            raise ActingError(f"act: reward of {environments} environments: {error}") from error

    def _seen(self, observation: Any) -> dict[str, torch.Tensor]:
        named = dict(observation) if isinstance(observation, Mapping) else {OBSERVATION: observation}
        environments = len(self._began)
        if set(named) != set(self.observation_space):
            raise ActingError(
                f"act: expected observations {sorted(self.observation_space)}, got {sorted(map(str, named))}"
            )
        tensors = {}
        for name, space in self.observation_space.items():
            try:
                array = exact_array(named[name], dtype_of(space), (environments, *shape_of(space)))
                if isinstance(space, MultiBinary) and not ((array == 0) | (array == 1)).all():
                    raise ValueError("expected 0 or 1 in each entry, got others")
            except ValueError as error:
                raise ActingError(f"act: observation {name!r} of {environments} environments: {error}") from error
            tensors[name] = torch.from_numpy(array).to(self.device)
        return tensors


def load_networks(path: Path) -> tuple[TrainConfig, AgentNetworks]:
    """The configuration and networks of a run's newest checkpoint or of one checkpoint, on the CPU, in eval mode.

    Raises:
        CheckpointError: when there is none, or it is corrupt.
    """
    if (path / "state.json").is_file():
        return _load(path)
    while True:
        found = checkpoint.latest(path)
        if found is None:
            raise checkpoint.CheckpointError(
                f"{path}: no checkpoint here; a run writes one every `checkpoint_every` epochs and at its end"
            )
        try:
            return _load(found)
        except (checkpoint.CheckpointError, OSError):
            if found.exists():  # else a training that goes on has removed it meanwhile, and has newer ones
                raise


def _load(path: Path) -> tuple[TrainConfig, AgentNetworks]:
    state = checkpoint.read_state(path)
    with checkpoint.reading(path):
        config, spaces = from_json(TrainConfig, state["config"]), state["spaces"]
        networks = AgentNetworks(
            config.agent,
            space_from_json(spaces["observation"]),
            space_from_json(spaces["action"], action=True),
            predicts=config.objective.predicts,
        )
        checkpoint.load_module(networks, checkpoint.read_tensors(path, "agent"))
    return config, networks.eval()
