"""A trained policy in five lines: numpy in, numpy out."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from gymnasium.spaces import MultiBinary
from numpy.typing import ArrayLike

from twohot.agent import AgentNetworks, MixedNetworks
from twohot.config import TrainConfig
from twohot.exact import exact_array, read_array
from twohot.inference.errors import ActingError
from twohot.inference.networks import load_networks
from twohot.nets.frozen import freeze
from twohot.spaces import OBSERVATION, action_dtype, dtype_of, shape_of

if TYPE_CHECKING:
    from gymnasium import Wrapper

    from twohot.inference.analysis import Values
    from twohot.inference.environment_policy import EnvironmentPolicy, View


class Agent:
    """A policy with its memory, acting in several environments at once.

    From the last checkpoint of a run, on a CPU:

        agent = twohot.Agent.from_checkpoint("runs/mine")
        environments = agent.make_environments(4)
        observation, _ = environments.reset(seed=0)
        agent.reset(4)
        action = agent.act(observation)

    and so on with `agent.act(observation, reward)`; where trials have ended, `agent.reset(where=ended)` and
    `observation, _ = twohot.envs.reset_where(environments, ended)`.

    One trained in several domains acts in each by `agent.for_task(NAME)`.

    Args:
        networks: trained; the agent acts as they do now, whatever becomes of them. config: of their run.
        device: where to act. seed: of sampled actions.

    Attributes:
        source: the run, checkpoint or folder that it was read from; None for networks that were given.
    """

    networks: AgentNetworks
    _of_several: ClassVar[type[Agent]]
    """`MixedAgent`, whose module sets it."""

    def __new__(cls, networks: AgentNetworks | MixedNetworks | None = None, *_: Any, **__: Any) -> Agent:
        """A `MixedAgent` of mixed networks."""
        return object.__new__(cls._of_several if cls is Agent and isinstance(networks, MixedNetworks) else cls)

    def __init__(self, networks: AgentNetworks, config: TrainConfig, *, device: str = "cpu", seed: int = 0) -> None:
        self.networks, self.config, self.device = networks.to(device).eval(), config, torch.device(device)
        self.observation_space, self.action_space = networks.observation_space, networks.action_space
        self._policy, self._state = freeze(self.networks), cast("Any", None)
        self.source: Path | None = None
        self._views: dict[str, View] = {}
        self._task: str | None = None  # the only one that it plays
        self.seed(seed)

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
        agent = cls(cast("Any", networks), config, device=device, seed=seed)
        agent.source = Path(path)
        return agent

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> Agent:
        """An agent that `save_pretrained` or `push_to_hub` wrote; nothing that is read is executed.

        Args:
            source: a folder, or where there is none of that name the name of a repository on the Hugging Face Hub.
            revision: branch, tag or commit. token: of a private repository, if not the one that is logged in.
            device, seed: as above.

        Raises:
            PretrainedError: there is none, or it cannot be read.
        """
        from twohot.inference import hub

        folder = hub.find(source, revision=revision, token=token)
        config, networks = hub.load(folder)
        agent = cls(cast("Any", networks), config, device=device, seed=seed)
        agent.source = folder
        return agent

    def save_pretrained(self, folder: str | Path, *, name: str = "", license: str = "") -> Path:  # noqa: A002
        """Write the agent into a folder: weights (safetensors), configuration (JSON), and a model card (README.md).

        The card has the scores and curves of the run that the agent was read from.

        Args:
            folder: made where it is not there; files of these names are written anew.
            name: what the card calls the agent; the folder's. license: such as "mit".

        Returns:
            The folder.
        """
        from twohot.inference import hub

        return hub.save_pretrained(self, folder, name=name, license=license)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        message: str = "",
        license: str = "",  # noqa: A002
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub (`pip install 'twohot[hub]'`).

        Args:
            repo: "owner/name", or a name of your own; made where it is not there. private: whether it is made so.
            token: if not the one that is logged in. revision: a branch that is there. message: of the commit.
            license: such as "mit", which the card says.

        Returns:
            The address of the commit.

        Raises:
            PretrainedError: what the Hub refused.
        """
        from twohot.inference import hub

        return hub.push_to_hub(
            self, repo, private=private, token=token, revision=revision, message=message, license=license
        )

    def make_environments(self, count: int = 1) -> Any:
        """`count` environments that show what the agent was trained on, as `twohot.envs.make_vector` makes them."""
        from twohot.data.spaces import agent_layout
        from twohot.envs import make_vector
        from twohot.inference.environment_policy import multiplier

        environment = self.config.environment
        layout = agent_layout(environment, self.config.evaluate)
        if self._task is not None:
            factor = multiplier(self, self._task)
            environment = replace(environment, tasks=(self._task,), reward_multipliers=(factor,))
        return make_vector(**environment.vector_arguments(), environments=count, layout=layout)

    def for_task(self, task: str) -> Agent:
        """The agent as it acts in one of its tasks: of an agent with several domains, one that sees this one's spaces.

            agent = twohot.Agent.from_checkpoint(run).for_task("gym:Pendulum-v1")

        Args:
            task: its name in the run, or "suite:task".

        Raises:
            ActingError: the agent has no such task.
        """
        from twohot.inference.environment_policy import multiplier

        multiplier(self, task)  # knows the tasks
        agent = copy(self)
        agent._task, agent._state = self._plain(task), None
        agent._generator = self._generator.clone_state()
        return agent

    def _plain(self, task: str) -> str:
        """The name of a task of the agent's suite, which may be named with it."""
        from twohot.envs import plain_name

        suite = self.config.environment.suite
        return plain_name(task, suite, suite)

    def seed(self, seed: int) -> None:
        """Begin the random stream of sampled actions anew."""
        self._generator = torch.Generator().manual_seed(seed)

    def wrap(self, env: Any, *, task: str | None = None, seed: int = 0) -> EnvironmentPolicy:
        """The policy in an environment of your own, which shows it observations as they are and takes its own actions:

            policy = agent.wrap(env)
            observation, _ = env.reset(seed=0)
            reward, ended = None, False
            for _ in range(1000):
                action = policy.act(observation, reward, ended)
                observation, reward, terminated, truncated, _ = env.step(action)
                if ended := terminated or truncated:
                    observation, _ = env.reset()

        Args:
            env: anything with gymnasium's `observation_space` and `action_space`; a list of such; or a `VectorEnv`.
                Only its spaces are looked at. They have to fit into the agent's, as a task's do.
            task: which of the agent's tasks it is; only needed where their reward multipliers differ.
            seed: of sampled actions.

        Raises:
            ActingError: the spaces do not fit, or `task` is needed or unknown.
        """
        from twohot.inference.environment_policy import EnvironmentPolicy

        return EnvironmentPolicy(self, env, task=task or self._task, seed=seed)

    def encode(
        self,
        task: Any,
        observation: Any,
        *,
        step: int = 0,
        attempt: int = 0,
        legal: bool = True,
        last_reward: float = 0.0,
    ) -> Any:
        """What the agent sees of one raw observation: padded, with context features, as in training; for `act`, [None].

        Args:
            task: a task of the agent's suite, which is made once to know its spaces; or an environment, of which
                nothing but the spaces is looked at.
            observation: as the environment gives it.
            step: since the trial began. attempt: that it belongs to. legal: whether the environment has the last
                action. last_reward: as the environment gave it.

        Returns:
            An array, or a dict of arrays, of the agent's observation space.

        Raises:
            ActingError: the task's spaces do not fit the agent, or the observation is not finite.
            ObservationError: the observation is not in the task's own space.
        """
        from twohot.inference.environment_policy import View, context, multiplier

        task = self._plain(task) if isinstance(task, str) else task
        factor = multiplier(self, task if isinstance(task, str) else self._task)
        if not isinstance(task, str):
            view = View(self, task.observation_space, task.action_space, task)
        elif task in self._views:
            view = self._views[task]
        else:
            from twohot.envs import make_task

            env = cast("Wrapper", make_task(self.config.environment.suite, task))
            try:
                view = self._views[task] = View(self, env.env.observation_space, env.action_space, task)
            finally:
                env.close()
        features = context(self.config.environment.attempts, factor, step, attempt, legal, last_reward)
        seen = view.see(observation, features)
        return seen[OBSERVATION] if set(seen) == {OBSERVATION} else seen

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
        """Write the acting step as a program that needs torch alone, or as an ONNX model to a path that ends so.

        See `twohot.inference.export.export_policy`.
        """
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
