"""Configuration: frozen dataclasses, which through tyro are the command line; `config_files.py` saves them.

Every field is documented where it stands; `twohot train PRESET --help` prints the same text.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Literal, get_args, get_origin, get_type_hints

from twohot.errors import TwohotError
from twohot.losses import ValueBins

LIMIT = 2**63
"""What every whole number in a configuration is below."""
MOST_THREADS = 1024


class ConfigurationError(TwohotError):
    """A configuration that cannot run; the message says which setting, what it must be, and what it is.

    No ValueError: tyro would catch one and print it in its own words.
    """


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)


def _require_kinds(settings: object, where: str = "") -> None:
    """That switches are bools, numbers are numbers, and choices are among theirs: programs are not checked by tyro."""
    for name, (expected, fits) in _kinds(type(settings)).items():
        value = getattr(settings, name)
        _require(fits(value), f"{where}{name}: expected {expected}, got {value!r}")


@cache
def _kinds(cls: type) -> dict[str, tuple[str, Callable[[object], bool]]]:
    """Of the settings that are no text, tuple or dataclass: what is expected, and whether a value is that."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            found[name] = f"one of {', '.join(choices)}", lambda value, choices=choices: value in choices
        elif kinds[0] is bool:
            found[name] = "True or False", lambda value: isinstance(value, bool)
        elif kinds[0] in (int, float):
            expected, number = ("an integer", Integral) if kinds[0] is int else ("a number", Real)
            allowed = (number, *kinds[1:])
            found[name] = expected, lambda x, allowed=allowed: isinstance(x, allowed) and not isinstance(x, bool)
    return found


@dataclass(frozen=True)
class EnvironmentConfig:
    """Which tasks are played, and how."""

    suite: str = "popgym"
    """Benchmark suite; `twohot envs` lists them."""
    tasks: tuple[str, ...] = ("RepeatPreviousEasy",)
    """Tasks played by one agent without labels; each trial draws one uniformly."""
    reward_multipliers: tuple[float, ...] = ()
    """Factor on each task's reward, in the order of the tasks; empty means 1 for all."""
    attempts: int = 1
    """Attempts at one hidden task in a trial; memory is carried over them."""
    free_attempts: int = 0
    """Leading attempts whose reward is shown but counts zero."""
    observation_size: int = 0
    """Size that observations are zero-padded to (before context features); 0 means the largest of the tasks."""
    actions: int = 0
    """Number of actions offered; one that a task lacks becomes a random legal one; 0 means the largest of the tasks."""
    context_features: bool = True
    """Append four features: time in the trial, attempt, whether the last action was legal, last multiplied reward."""

    def __post_init__(self) -> None:
        _require_kinds(self, "environment.")
        _require(len(self.tasks) > 0, "environment.tasks: expected at least one task, got none")
        _require(len(set(self.tasks)) == len(self.tasks), f"environment.tasks: a task is named twice in {self.tasks}")
        _require(
            len(self.reward_multipliers) in (0, len(self.tasks)),
            f"environment.reward_multipliers: expected none or one for each of the {len(self.tasks)} tasks, "
            f"got {len(self.reward_multipliers)}",
        )
        _require(
            all(math.isfinite(multiplier) for multiplier in self.reward_multipliers),
            f"environment.reward_multipliers: expected finite numbers, got {self.reward_multipliers}",
        )
        for name in ("observation_size", "actions"):
            _require(getattr(self, name) >= 0, f"environment.{name}: expected at least 0, got {getattr(self, name)}")
        _require(self.attempts >= 1, f"environment.attempts: expected at least 1, got {self.attempts}")
        _require(
            0 <= self.free_attempts < self.attempts,
            f"environment.free_attempts: expected fewer than the {self.attempts} attempts, got {self.free_attempts}",
        )


@dataclass(frozen=True)
class AgentConfig:
    """The networks."""

    width: int = 256
    """E, size of the embeddings and of h."""
    timestep_encoder: str = "default"
    """Network that encodes a step: default, which takes any observation, or a name that you registered."""
    images: Literal["impala", "nature", "drq"] = "impala"
    """Convolutional network for images."""
    random_shift: int = 4
    """Images are moved by up to so many pixels, at random, in training; 0 leaves them."""
    random_shift_share: float = 0.75
    """Share of the sequences of a batch whose images are moved."""
    random_shift_by: Literal["step", "window"] = "step"
    """Move the images of each step by themselves, or all of a window alike."""
    vocabulary: int = 256
    """Different tokens in observations named tokens..., with 0, which is padding; larger ones count as the largest."""
    normalize: bool = True
    """Normalise vectors, and the previous reward, by running statistics."""
    normalization: Literal["all_steps", "moving_average"] = "all_steps"
    """Statistics of that: of all steps seen, with results clipped to +-10; or moving averages (rate 1e-4), with results
    clipped to +-10 000, where a feature whose deviation is at most 0.01 is centred alone."""
    previous_action: bool = True
    """Show the previous action."""
    previous_reward: bool = True
    """Show the previous reward."""
    hidden_entries: tuple[str, ...] = ("action_mask",)
    """Entries of a dict observation that the encoder does not see."""
    memory: str = "transformer"
    """Trajectory encoder: transformer, gru, feedforward or identity (both without memory), or a name that you
    registered."""
    input_projection: bool = False
    """A linear layer between the timestep encoder and the Transformer."""
    positions: Literal["fixed", "learned", "rotary"] = "fixed"
    """How the Transformer knows a step's time in its trial: sines, a table, or rotated queries and keys."""
    learned_positions: int = 0
    """Times in the table of learned positions; all later ones share the last row; 0 means the context."""
    layers: int = 3
    """Layers of the Transformer, the GRU or the feed-forward network."""
    heads: int = 8
    """H, attention heads; must divide the width."""
    feed_forward: int = 1024
    """Hidden units of the Transformer's feed-forward part, or of the feed-forward network."""
    dropout: float = 0.05
    """Dropout of the trajectory encoder, in training only."""
    recompute: bool = False
    """Compute each layer of the Transformer again in the backward pass, instead of keeping what it needs there: a third
    more time for the Transformer, and its activations take next to no memory."""
    context: int = 256
    """L, steps that the policy looks back on."""
    encoder_hidden: int = 512
    """Hidden units of the timestep encoder."""
    encoder_layers: int = 2
    """Hidden layers of the timestep encoder."""
    actor: str = "default"
    """Actor head: default, which takes any action space, or a name that you registered."""
    head_hidden: int = 256
    """Hidden units of actor and critics."""
    head_layers: int = 2
    """Hidden layers of actor and critics."""
    critics: int = 4
    """C, critics in the ensemble."""
    training_discounts: tuple[float, ...] = (0.1, 0.9, 0.95, 0.97, 0.99, 0.995)
    """Discounts learnt beside the one that acts."""
    discount: float = 0.999
    """The discount whose policy acts; it is the last of the G discounts."""
    bins: ValueBins = field(default_factory=ValueBins)
    """Support of the critics' value classes."""
    critic: Literal["two_hot", "hl_gauss", "scalar"] = "two_hot"
    """The critics: independent of the scale of the return (classes with two-hot or HL-Gauss labels), or dependent on it
    (a scalar, regressed in PopArt's normalisation)."""
    hl_gauss_sigma: float = 0.75
    """Standard deviation of HL-Gauss labels, in bin widths."""
    critic_actions: Literal["inputs", "outputs"] = "inputs"
    """How scalar critics know a Discrete action: as an input, or by an output for each one. Other actions are inputs in
    both."""
    soften_stored_actions: bool = False
    """Critics see a discrete action from the replay as a one-hot vector clipped to [probability_floor,
    probability_ceiling] and normalised again; sampled actions stay one-hot."""
    critic_action_clip: float = 1.0
    """Critics see the entries of an action (continuous, binary or one-hot) clipped to +- this."""
    popart_deviation: tuple[float, float] = (1e-4, 1e6)
    """Least and greatest deviation that PopArt divides by, in units of the multiplied return."""
    continuous: Literal["tanh_gaussian", "beta", "gaussian_mixture"] = "tanh_gaussian"
    """The policy's distribution where actions are numbers."""
    mixture_components: int = 5
    """Components of a Gaussian mixture."""
    density_clip: float = 0.999999
    """Continuous actions are clipped to +- this in log-probabilities, whose density may be infinite at 1."""
    gumbel_temperature: float = 1.0
    """Temperature of the Gumbel-softmax through which the policy gradient reaches sampled discrete actions."""
    probability_floor: float = 0.001
    """Lowest probability of an action, before all are normalised again."""
    probability_ceiling: float = 0.99
    """Highest probability of an action, before all are normalised again."""

    def __post_init__(self) -> None:
        _require_kinds(self, "agent.")
        for name in ("width", "layers", "heads", "feed_forward", "context", "encoder_hidden", "encoder_layers"):
            _require(getattr(self, name) >= 1, f"agent.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("head_hidden", "head_layers", "critics", "mixture_components"):
            _require(getattr(self, name) >= 1, f"agent.{name}: expected at least 1, got {getattr(self, name)}")
        _require(
            self.width % self.heads == 0,
            f"agent.heads: expected a divisor of the width {self.width}, got {self.heads}",
        )
        for name in ("hl_gauss_sigma", "gumbel_temperature"):
            _require(0 < getattr(self, name) < math.inf, f"agent.{name}: expected > 0, got {getattr(self, name)}")
        _require(
            self.critic_actions == "inputs" or self.critic == "scalar",
            f"agent.critic_actions: expected inputs for the critic {self.critic}, got {self.critic_actions}",
        )
        _require(
            0 < self.critic_action_clip <= 1,
            f"agent.critic_action_clip: expected (0, 1], got {self.critic_action_clip}",
        )
        _require(0 < self.density_clip < 1, f"agent.density_clip: expected (0, 1), got {self.density_clip}")
        _require(
            isinstance(self.popart_deviation, (tuple, list))
            and len(self.popart_deviation) == 2
            and 0 < self.popart_deviation[0] <= self.popart_deviation[1] < math.inf,
            f"agent.popart_deviation: expected two numbers with 0 < least <= greatest, got {self.popart_deviation}",
        )
        _require(
            not self.input_projection or self.memory not in ("gru", "feedforward", "identity"),
            f"agent.input_projection: expected the memory transformer, got {self.memory}",
        )
        _require(self.width % 2 == 0, f"agent.width: expected an even width, got {self.width}")
        _require(
            self.positions != "rotary" or self.width // self.heads % 2 == 0,
            f"agent.positions: expected an even width / heads for rotary ones, got {self.width} / {self.heads}",
        )
        _require(self.vocabulary >= 2, f"agent.vocabulary: expected at least 2, got {self.vocabulary}")
        for name in ("random_shift", "learned_positions"):
            _require(getattr(self, name) >= 0, f"agent.{name}: expected at least 0, got {getattr(self, name)}")
        _require(
            0 <= self.random_shift_share <= 1,
            f"agent.random_shift_share: expected a share in [0, 1], got {self.random_shift_share}",
        )
        _require(0 <= self.dropout < 1, f"agent.dropout: expected a share in [0, 1), got {self.dropout}")
        for discount in self.discounts:
            _require(0 <= discount < 1, f"agent.discount: expected discounts in [0, 1), got {discount}")
        _require(
            0 < self.probability_floor < self.probability_ceiling <= 1,
            "agent.probability_floor: expected 0 < floor < ceiling <= 1, "
            f"got {self.probability_floor} and {self.probability_ceiling}",
        )

    @property
    def discounts(self) -> tuple[float, ...]:
        """The G discounts; the last one acts."""
        return (*self.training_discounts, self.discount)


@dataclass(frozen=True)
class ObjectiveConfig:
    """Targets and losses; `agent.critic` chooses the critic's, `actor` the actor's.

    AMAGO-2 is a two-hot critic with the independent actor, AMAGO a scalar critic with the dependent actor. Plain
    behaviour cloning is the filter "none" with a critic weight of 0; no critic is then evaluated.
    """

    actor: Literal["independent", "dependent"] = "independent"
    """The actor's loss: independent of the scale of the return (imitation of approved actions), or dependent on it (the
    critics' value, which is climbed, beside a little imitation)."""
    imitation_weight: float | None = None
    """Weight of the imitation of approved actions; None takes 1 for the independent actor, and AMAGO's 0.1 for the
    dependent one."""
    policy_gradient_weight: float | None = None
    """Weight of the climb of the critics; None takes 0 for the independent actor, 1 for the dependent one."""
    filter: Literal["binary", "exponential", "leaky_ramp", "none"] = "binary"
    """Which stored actions are imitated: those of a positive advantage, each by exp(beta x advantage), each by a leaky
    ramp of the advantage, or all alike."""
    filter_beta: float = 1.0
    """beta of the exponential filter, per unit of the multiplied return."""
    filter_maximum: float | None = 20.0
    """Largest weight of the exponential filter; None for no bound."""
    filter_adds_binary: bool = False
    """Add 1 to the weight of the leaky ramp where the advantage is positive."""
    multi_binary_log_prob: Literal["sum", "mean"] = "sum"
    """What imitation takes as the log-probability of a MultiBinary action: the sum over its entries, or their mean."""
    reward_multiplier: float = 10.0
    """m, factor on every reward in the targets."""
    critic_weight: float = 10.0
    """Weight of the critic loss beside the actor loss."""
    critic_subset: int = 2
    """Critics drawn (with replacement) for a target."""
    critic_reduction: Literal["auto", "mean", "min"] = "auto"
    """What is made of them; auto takes the minimum where the actor climbs the critics, else the mean."""
    n_step: int = 1
    """Longest horizon of a target: rewards summed before the bootstrap."""
    action_samples: int = 3
    """K, actions sampled for the value of a state in the advantage; 0 takes the exact expectation over all actions."""
    target_action_samples: int = 3
    """K of the target's value; 0 takes the exact expectation."""
    policy_gradient_samples: int | None = None
    """Actions sampled where the actor climbs the critics (choices are straight-through); 0 takes the exact expectation;
    None takes it where actions can be enumerated, else one sample."""
    policy_gradient_order: Literal["minimum_first", "mean_first"] = "minimum_first"
    """What the policy gradient takes first: the minimum over the critics for each action, or the mean over the actions
    for each critic."""
    target_rate: float = 0.003
    """tau, step of the moving average that the target heads follow."""
    target_update: Literal["after_step", "before_step"] = "after_step"
    """Move the target heads after the optimiser's step, or before it, towards the weights that the step changes."""

    def __post_init__(self) -> None:
        _require_kinds(self, "objective.")
        for name in ("critic_subset", "n_step"):
            _require(getattr(self, name) >= 1, f"objective.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("action_samples", "target_action_samples", "policy_gradient_samples"):
            samples = getattr(self, name)
            _require(samples is None or samples >= 0, f"objective.{name}: expected at least 0, got {samples}")
        for name in ("reward_multiplier", "critic_weight"):
            _require(math.isfinite(getattr(self, name)), f"objective.{name}: expected a finite number")
        for name in ("imitation_weight", "policy_gradient_weight", "filter_beta"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < math.inf, f"objective.{name}: expected at least 0, got {value}")
        maximum = self.filter_maximum
        _require(maximum is None or 0 < maximum < math.inf, f"objective.filter_maximum: expected > 0, got {maximum}")
        _require(any(self.actor_weights), "objective: expected a positive weight of imitation or policy gradient")
        _require(0 < self.target_rate <= 1, f"objective.target_rate: expected (0, 1], got {self.target_rate}")

    @property
    def actor_weights(self) -> tuple[float, float]:
        """(imitation, policy gradient): the weights, with None resolved."""
        imitation, gradient = (1.0, 0.0) if self.actor == "independent" else (0.1, 1.0)
        return (
            imitation if self.imitation_weight is None else self.imitation_weight,
            gradient if self.policy_gradient_weight is None else self.policy_gradient_weight,
        )

    @property
    def reduction(self) -> Literal["mean", "min"]:
        """`critic_reduction`, with auto resolved."""
        if self.critic_reduction == "auto":
            return "min" if self.actor_weights[1] else "mean"
        return self.critic_reduction

    @property
    def needs_critics(self) -> bool:
        """Whether any loss asks for a value; not so for plain behaviour cloning."""
        return self.critic_weight != 0 or self.filter != "none" or self.actor_weights[1] != 0


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 1e-4
    """Step size after the warm-up."""
    weight_decay: float = 1e-3
    """Decoupled weight decay."""
    gradient_clip: float = 1.0
    """Largest global gradient norm."""
    warmup_updates: int = 500
    """Updates over which the step size rises linearly from zero."""
    warmup_from_zero: bool = False
    """Begin the warm-up with a learning rate of 0, so that the first update moves nothing."""
    decay_updates: int = 0
    """Updates, counted from the first, over which the step size falls linearly to `decay_to` of itself; 0 keeps it."""
    decay_to: float = 0.1
    """Share of the step size that is left after decay_updates."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products of an update; parameters, sums and losses are float32 in both."""
    accumulate: int = 1
    """Pieces that a batch is cut into, whose gradients are added up: so many times less memory for activations. Must
    divide the batch size."""
    compile: bool = False
    """Compile the losses with torch.compile; the first update then takes a minute or more."""

    def __post_init__(self) -> None:
        _require_kinds(self, "optimizer.")
        _require(0 < self.learning_rate < math.inf, f"optimizer.learning_rate: expected > 0, got {self.learning_rate}")
        for name in ("weight_decay", "warmup_updates", "decay_updates"):
            _require(
                0 <= getattr(self, name) < math.inf, f"optimizer.{name}: expected at least 0, got {getattr(self, name)}"
            )
        _require(0 < self.decay_to <= 1, f"optimizer.decay_to: expected a share in (0, 1], got {self.decay_to}")
        _require(self.gradient_clip > 0, f"optimizer.gradient_clip: expected > 0, got {self.gradient_clip}")
        _require(self.accumulate >= 1, f"optimizer.accumulate: expected at least 1, got {self.accumulate}")


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
    """Exploration at the beginning: share of random actions, or standard deviation of the noise on actions that are
    numbers in [-1, 1]; before the trial's random multiplier."""
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
    random_multiplier: bool = True
    """Multiply epsilon by a number drawn from U(0, 1) for each trial."""
    flip: float = 0.15
    """Probability of each button (MultiBinary actions) to be flipped in an action that explores."""
    flip_steps: int = 1
    """Steps for which the same buttons stay flipped."""

    def __post_init__(self) -> None:
        _require_kinds(self, "collect.")
        for name in ("environments", "steps_per_epoch", "flip_steps"):
            _require(getattr(self, name) >= 1, f"collect.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("first_epoch", "epsilon_steps", "trial_epsilon_steps"):
            _require(getattr(self, name) >= 0, f"collect.{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("epsilon_start", "epsilon_end", "trial_epsilon_start", "trial_epsilon_end", "flip"):
            _require(0 <= getattr(self, name) <= 1, f"collect.{name}: expected [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class ReplayConfig:
    """What is remembered, and how it is drawn."""

    capacity_steps: int = 10_000_000
    """Steps kept; the oldest trajectories leave first."""
    by: Literal["trajectory", "step", "recency", "task"] = "trajectory"
    """Draw windows uniformly over trajectories, over steps, newest first, or over tasks and then their trajectories."""
    storage: Literal["memory", "disk"] = "memory"
    """Where trajectories are kept: in memory, copied into each checkpoint; or in files of the run, which may be larger
    than the memory and cost a checkpoint nothing."""
    threads: int = 2
    """Threads that pack large batches."""
    relabel: bool = False
    """Change drawn trajectories with hindsight, in suites that know how (maze_runner)."""

    def __post_init__(self) -> None:
        _require_kinds(self, "replay.")
        _require(self.capacity_steps >= 1, f"replay.capacity_steps: expected at least 1, got {self.capacity_steps}")
        _require(self.threads >= 1, f"replay.threads: expected at least 1, got {self.threads}")
        _require(self.threads <= MOST_THREADS, f"replay.threads: expected at most {MOST_THREADS}, got {self.threads}")


@dataclass(frozen=True)
class DataConfig:
    """Recorded trajectories to learn from."""

    sources: tuple[str, ...] = ()
    """Replay directories (such as RUN/replay), minari:ID, npz:PATH or amago:PATH."""
    weights: tuple[float, ...] = ()
    """Weight of each source in a batch; empty means equal ones."""
    own_share: float = 0.5
    """Share of a batch that is drawn from the run's own trajectories, once there are any."""

    def __post_init__(self) -> None:
        _require_kinds(self, "data.")
        _require(
            len(self.weights) in (0, len(self.sources)),
            f"data.weights: expected none or one for each of the {len(self.sources)} sources, got {len(self.weights)}",
        )
        _require(
            all(0 <= weight < math.inf for weight in self.weights) and (not self.weights or sum(self.weights) > 0),
            f"data.weights: expected numbers of at least 0, not all 0, got {self.weights}",
        )
        _require(0 <= self.own_share <= 1, f"data.own_share: expected a share in [0, 1], got {self.own_share}")


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
        _require_kinds(self, "evaluate.")
        for name in ("every", "trials", "final_trials", "step_limit"):
            _require(getattr(self, name) >= 1, f"evaluate.{name}: expected at least 1, got {getattr(self, name)}")
        _require(
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
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        _require_kinds(self)
        for name in ("epochs", "batch_size", "window", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("seed", "updates_per_epoch", "warmup_epochs", "threads"):
            _require(getattr(self, name) >= 0, f"{name}: expected at least 0, got {getattr(self, name)}")
        _require(self.threads <= MOST_THREADS, f"threads: expected at most {MOST_THREADS}, got {self.threads}")
        for part in (self, *(value for value in vars(self).values() if is_dataclass(value))):
            for name, value in vars(part).items():
                fits = not isinstance(value, int) or value < LIMIT
                _require(fits, f"{name}: expected a number below 2^63, got {value}")
        _require(
            0 <= self.checkpoint_minutes < math.inf,
            f"checkpoint_minutes: expected at least 0, got {self.checkpoint_minutes}",
        )
        _require(
            self.batch_size % self.optimizer.accumulate == 0,
            f"optimizer.accumulate: expected a divisor of the batch size {self.batch_size}, "
            f"got {self.optimizer.accumulate}",
        )
        _require(
            self.window <= self.agent.context,
            f"window: expected at most the agent's context of {self.agent.context} steps, got {self.window} "
            "(raise --agent.context, or train on shorter windows)",
        )
        both = sorted(set(self.evaluate.held_out_tasks) & set(self.environment.tasks))
        _require(not both, f"evaluate.held_out_tasks: {', '.join(both)} would be trained on")
        _require(
            self.collect.first_epoch == 0 or len(self.data.sources) > 0,
            f"collect.first_epoch: expected data.sources for the {self.collect.first_epoch} epochs before, got none",
        )
        _require(
            self.agent.context <= self.replay.capacity_steps,
            f"agent.context: expected at most replay.capacity_steps = {self.replay.capacity_steps}, "
            f"got {self.agent.context}",
        )
