"""Settings of a run: collecting, replay, recorded data, evaluation; and all settings together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, is_dataclass
from typing import Literal

from twohot.config.agent import AgentConfig
from twohot.config.checks import LIMIT, MAX_THREADS, require, require_kinds
from twohot.config.environment import EnvironmentConfig
from twohot.config.objective import ObjectiveConfig, OptimizerConfig
from twohot.config.ray import RayConfig
from twohot.config.renamed import renamed_settings


@renamed_settings("collect")
@dataclass(frozen=True)
class CollectConfig:
    """Actors and their exploration."""

    environments: int = 12
    """Actors stepped together, one policy call a step."""
    steps_per_epoch: int = 1000
    """Steps of each actor in an epoch."""
    first_epoch: int = 0
    """Epochs before the first one that collects, which learn from recorded data alone (`data.sources`); as many as the
    run has make it offline."""
    workers: Literal["auto", "in-process", "processes"] = "auto"
    """Step the actors in this process, or in one process for each CPU; auto times a few steps of each."""
    assignment: Literal["sampled", "fixed"] = "sampled"
    """Each trial draws its task uniformly; or tasks are dealt out to the actors in turn, once and for all."""
    epsilon_start: float = 1.0
    """Exploration at the beginning: probability of a random action, or standard deviation of the noise on continuous
    actions in [-1, 1]; before the trial's random factor."""
    epsilon_end: float = 0.05
    """Exploration at the end of the schedule."""
    epsilon_steps: int = 1_000_000
    """Environment steps (of all actors together) over which epsilon falls."""
    trial_epsilon_start: float = 0.8
    """What epsilon falls to within a trial at the beginning, where trial_epsilon_steps is not 0."""
    trial_epsilon_end: float = 0.01
    """What epsilon falls to within a trial at the end of the schedule."""
    trial_epsilon_steps: int = 0
    """Steps of a trial over which its epsilon falls (bilevel exploration); 0 keeps it the same."""
    randomize_epsilon: bool = True
    """Multiply epsilon by a number drawn from U(0, 1) for each trial."""
    epsilon_where: Literal["everywhere", "asked"] = "everywhere"
    """Explore at every step; or where the environment asks for it, as a T-Maze does at its junction, which is hardly
    ever reached with random steps before it."""
    epsilon_duration: float = 1.0
    """Steps that an explored action, or the noise on continuous ones, is kept for on average: each further one with
    probability 1 - 1 / epsilon_duration (temporally extended epsilon-greedy). Epsilon stays the share of the steps that
    explore. Buttons (MultiBinary) have flip_steps."""
    flip_probability: float = 0.15
    """Probability of each button (MultiBinary actions) to be flipped in an action that explores."""
    flip_steps: int = 1
    """Steps for which the same buttons stay flipped."""

    def __post_init__(self) -> None:
        require_kinds(self, "collect.")
        for name in ("environments", "steps_per_epoch", "flip_steps"):
            require(getattr(self, name) >= 1, f"collect.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("first_epoch", "epsilon_steps", "trial_epsilon_steps"):
            require(getattr(self, name) >= 0, f"collect.{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("epsilon_start", "epsilon_end", "trial_epsilon_start", "trial_epsilon_end", "flip_probability"):
            require(0 <= getattr(self, name) <= 1, f"collect.{name}: expected [0, 1], got {getattr(self, name)}")
        duration = self.epsilon_duration
        require(1 <= duration < math.inf, f"collect.epsilon_duration: expected at least 1, got {duration}")


@dataclass(frozen=True)
class ReplayConfig:
    """What is remembered, and how it is drawn."""

    capacity_steps: int = 10_000_000
    """Steps kept; the oldest trajectories leave first."""
    by: Literal["trajectory", "step", "recency", "task"] = "trajectory"
    """Draw windows uniformly over trajectories, over steps, newest first, or over tasks and then their trajectories."""
    balance: Literal["task", "step", "suite"] = "task"
    """Share each batch among the domains of an agent of several: by how many tasks they train, by how many steps they
    have stored, or alike for each suite."""
    storage: Literal["memory", "disk"] = "memory"
    """Where trajectories are kept: in memory, copied into each checkpoint; or in files of the run, which may be larger
    than the memory and cost a checkpoint nothing."""
    threads: int = 2
    """Threads that pack large batches."""
    relabel: bool = False
    """Change drawn trajectories with hindsight, in suites that know how (maze_runner)."""

    def __post_init__(self) -> None:
        require_kinds(self, "replay.")
        require(self.capacity_steps >= 1, f"replay.capacity_steps: expected at least 1, got {self.capacity_steps}")
        require(self.threads >= 1, f"replay.threads: expected at least 1, got {self.threads}")
        require(self.threads <= MAX_THREADS, f"replay.threads: expected at most {MAX_THREADS}, got {self.threads}")


@renamed_settings("data")
@dataclass(frozen=True)
class DataConfig:
    """Recorded trajectories to learn from."""

    sources: tuple[str, ...] = ()
    """Replay directories (such as RUN/replay), minari:ID, npz:PATH or amago:PATH."""
    weights: tuple[float, ...] = ()
    """Weight of each source in a batch; empty means equal ones."""
    own_fraction: float = 0.5
    """Fraction of a batch that is drawn from the run's own trajectories, once there are any."""

    def __post_init__(self) -> None:
        require_kinds(self, "data.")
        require(
            len(self.weights) in (0, len(self.sources)),
            f"data.weights: expected none or one for each of the {len(self.sources)} sources, got {len(self.weights)}",
        )
        require(
            all(0 <= weight < math.inf for weight in self.weights) and (not self.weights or sum(self.weights) > 0),
            f"data.weights: expected numbers of at least 0, not all 0, got {self.weights}",
        )
        require(0 <= self.own_fraction <= 1, f"data.own_fraction: expected [0, 1], got {self.own_fraction}")


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation without exploration noise."""

    every: int = 10
    """Epochs between evaluations; one more takes place at the end."""
    trials: int = 8
    """Trials of each task in an evaluation during training."""
    final_trials: int = 32
    """Trials of each task in the last evaluation, and of the uniformly random policy that it is compared with."""
    greedy: bool = False
    """Take the most probable action instead of sampling one from the policy."""
    held_out_tasks: tuple[str, ...] = ()
    """Tasks of the suite that are evaluated but never trained on."""
    splits: tuple[str, ...] = ("train",)
    """Levels, seeds or goals that are evaluated: train, test or both; `twohot envs` says which a suite has."""
    step_limit: int = 20_000
    """Steps after which a trial of an evaluation is cut off and counted as it stands."""

    def __post_init__(self) -> None:
        require_kinds(self, "evaluate.")
        for name in ("every", "trials", "final_trials", "step_limit"):
            require(getattr(self, name) >= 1, f"evaluate.{name}: expected at least 1, got {getattr(self, name)}")
        require(
            len(self.splits) > 0
            and set(self.splits) <= {"train", "test"}
            and len(set(self.splits)) == len(self.splits),
            f"evaluate.splits: expected train, test or both, got {self.splits}",
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    seed: int = 0
    """Seed of everything random in the run."""
    epochs: int = 100
    """Epochs; each collects, then learns."""
    updates_per_epoch: int = 1000
    """Gradient steps in an epoch."""
    warmup_epochs: int = 0
    """Leading epochs that only collect."""
    batch_size: int = 24
    """B, windows in a batch."""
    window: int = 256
    """L, steps in a training window; at most the context."""
    checkpoint_every: int = 10
    """Epochs between checkpoints; there, in every run, the actors restart on new seeds."""
    checkpoint_minutes: float = 0.0
    """Minutes from one checkpoint to an unplanned one, which saves all but open trials; 0 saves none by the clock. A
    run that goes on from one is valid, but not bit for bit the one that was never stopped."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes cuda where there is one, else cpu."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    actors: int = 0
    """Processes that collect while the learner learns, which share `collect.environments` (needs Ray); 0: one process
    collects, then learns."""
    learners: int = 1
    """Processes of Ray's that share each update, with a GPU or `threads` CPUs each; 1: this process is the learner, or
    torchrun starts several."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        require_kinds(self)
        for name in ("epochs", "batch_size", "window", "checkpoint_every", "learners"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("seed", "updates_per_epoch", "warmup_epochs", "threads", "actors"):
            require(getattr(self, name) >= 0, f"{name}: expected at least 0, got {getattr(self, name)}")
        require(self.threads <= MAX_THREADS, f"threads: expected at most {MAX_THREADS}, got {self.threads}")
        for part in (self, *(value for value in vars(self).values() if is_dataclass(value))):
            for name, value in vars(part).items():
                fits = not isinstance(value, int) or value < LIMIT
                require(fits, f"{name}: expected a number below 2^63, got {value}")
        require(
            0 <= self.checkpoint_minutes < math.inf,
            f"checkpoint_minutes: expected at least 0, got {self.checkpoint_minutes}",
        )
        require(
            self.batch_size % self.optimizer.accumulation_steps == 0,
            f"optimizer.accumulation_steps: expected a divisor of the batch size {self.batch_size}, "
            f"got {self.optimizer.accumulation_steps}",
        )
        require(
            self.window <= self.agent.context,
            f"window: expected at most the agent's context of {self.agent.context} steps, got {self.window} "
            "(raise --agent.context, or train on shorter windows)",
        )
        require(
            self.actors == 0 or self.collect.environments % self.actors == 0,
            f"actors: expected a divisor of collect.environments = {self.collect.environments}, got {self.actors}",
        )
        require(
            self.actors % self.learners == 0,
            f"actors: expected a multiple of the {self.learners} learners, got {self.actors}",
        )
        both = sorted(set(self.evaluate.held_out_tasks) & set(self.environment.tasks))
        require(not both, f"evaluate.held_out_tasks: {', '.join(both)} would be trained on")
        require(
            self.collect.first_epoch == 0 or len(self.data.sources) > 0,
            f"collect.first_epoch: expected data.sources for the {self.collect.first_epoch} epochs before, got none",
        )
        require(
            self.agent.context <= self.replay.capacity_steps,
            f"agent.context: expected at most replay.capacity_steps = {self.replay.capacity_steps}, "
            f"got {self.agent.context}",
        )
