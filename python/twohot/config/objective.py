"""Settings of the targets, the losses and the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from twohot.config.checks import require, require_kinds
from twohot.config.renamed import renamed_settings


@dataclass(frozen=True)
class ObjectiveConfig:
    """Targets and losses; `agent.critic` chooses the critic's, `actor` the actor's.

    AMAGO-2 is a two-hot critic with the independent actor, AMAGO a scalar critic with the dependent actor. Plain
    behaviour cloning is the filter "none" with a critic weight of 0; no critic is then evaluated.
    """

    actor: Literal["independent", "dependent"] = "independent"
    """The actor's loss: independent of the scale of the return (imitation of the actions that the filter accepts), or
    dependent on it (the critics' value, which it maximises, beside a little imitation)."""
    imitation_weight: float | None = None
    """Weight of imitation; None takes 1 for the independent actor, and AMAGO's 0.1 for the dependent one."""
    policy_gradient_weight: float | None = None
    """Weight of the policy gradient, which maximises the critics' value; None takes 0 for the independent actor, 1 for
    the dependent one."""
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
    prediction_weight: float = 0.0
    """Weight of predicting the next step's observation (its vectors) and reward from memory and action, as VariBAD does
    for the whole trial; 0 predicts nothing, with no network for it."""
    kl_weight: float = 0.01
    """Weight of the divergence of the set memory's belief from a unit Gaussian."""
    critic_subset: int = 2
    """Critics drawn (with replacement) for a target."""
    critic_reduction: Literal["auto", "mean", "min"] = "auto"
    """How the subset is reduced: auto is min for a policy-gradient actor, mean otherwise."""
    n_step: int = 1
    """Longest horizon of a target: rewards summed before the bootstrap."""
    action_samples: int = 3
    """K, actions sampled for the value of a state in the advantage; 0 takes the exact expectation over all actions."""
    target_action_samples: int = 3
    """K of the target's value; 0 takes the exact expectation."""
    policy_gradient_samples: int | None = None
    """Actions sampled for the policy gradient (discrete ones are straight-through); 0 takes the exact expectation;
    None takes it where actions can be enumerated, else one sample."""
    policy_gradient_order: Literal["minimum_first", "mean_first"] = "minimum_first"
    """What the policy gradient takes first: the minimum over the critics for each action, or the mean over the actions
    for each critic."""
    target_rate: float = 0.003
    """tau, step of the moving average that the target heads follow."""
    target_update: Literal["after_step", "before_step"] = "after_step"
    """Move the target heads after the optimiser's step, or before it, towards the weights that the step changes."""

    def __post_init__(self) -> None:
        require_kinds(self, "objective.")
        for name in ("critic_subset", "n_step"):
            require(getattr(self, name) >= 1, f"objective.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("action_samples", "target_action_samples", "policy_gradient_samples"):
            samples = getattr(self, name)
            require(samples is None or samples >= 0, f"objective.{name}: expected at least 0, got {samples}")
        for name in ("reward_multiplier", "critic_weight"):
            require(math.isfinite(getattr(self, name)), f"objective.{name}: expected a finite number")
        for name in ("imitation_weight", "policy_gradient_weight", "filter_beta", "prediction_weight", "kl_weight"):
            value = getattr(self, name)
            require(value is None or 0 <= value < math.inf, f"objective.{name}: expected at least 0, got {value}")
        maximum = self.filter_maximum
        require(maximum is None or 0 < maximum < math.inf, f"objective.filter_maximum: expected > 0, got {maximum}")
        require(any(self.actor_weights), "objective: expected a positive weight of imitation or policy gradient")
        require(0 < self.target_rate <= 1, f"objective.target_rate: expected (0, 1], got {self.target_rate}")

    @property
    def actor_weights(self) -> tuple[float, float]:
        """(imitation, policy gradient): the weights, with None resolved."""
        imitation, gradient = (1.0, 0.0) if self.actor == "independent" else (0.1, 1.0)
        return (
            imitation if self.imitation_weight is None else self.imitation_weight,
            gradient if self.policy_gradient_weight is None else self.policy_gradient_weight,
        )

    @property
    def predicts(self) -> bool:
        """Whether an agent has to have a network that predicts the next step."""
        return self.prediction_weight > 0

    def auxiliary_weight(self, name: str) -> float:
        """Of a loss that is neither the actor's nor the critic's, "<part of the agent>/<loss>"; 1 where none is set."""
        if name == "trajectory_encoder/kl":
            return self.kl_weight
        return self.prediction_weight if name.startswith("prediction/") else 1.0

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


@renamed_settings("optimizer")
@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 1e-4
    """Learning rate after the warm-up."""
    weight_decay: float = 1e-3
    """Decoupled weight decay."""
    gradient_clip: float = 1.0
    """Largest global gradient norm."""
    warmup_updates: int = 500
    """Updates over which the learning rate rises linearly from zero."""
    warmup_from_zero: bool = False
    """Begin the warm-up with a learning rate of 0, so that the first update moves nothing."""
    decay_updates: int = 0
    """Updates, counted from the first, over which the learning rate falls linearly to `decay_to` of it; 0 keeps it."""
    decay_to: float = 0.1
    """Fraction of the learning rate that is left after decay_updates."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products of an update; parameters, sums and losses are float32 in both."""
    accumulation_steps: int = 1
    """Microbatches of a batch, whose gradients are added up: activations take that many times less memory. Must divide
    the batch size."""
    group_by_length: bool = False
    """Compute windows of similar length together, without the padding behind them: faster where trials differ much in
    length, the same update to rounding. Of no effect on a GPU and with `compile`."""
    compile: bool = False
    """Compile the losses with torch.compile; the first update then takes a minute or more."""

    def __post_init__(self) -> None:
        require_kinds(self, "optimizer.")
        require(0 < self.learning_rate < math.inf, f"optimizer.learning_rate: expected > 0, got {self.learning_rate}")
        for name in ("weight_decay", "warmup_updates", "decay_updates"):
            require(
                0 <= getattr(self, name) < math.inf, f"optimizer.{name}: expected at least 0, got {getattr(self, name)}"
            )
        require(0 < self.decay_to <= 1, f"optimizer.decay_to: expected a fraction in (0, 1], got {self.decay_to}")
        require(self.gradient_clip > 0, f"optimizer.gradient_clip: expected > 0, got {self.gradient_clip}")
        require(
            self.accumulation_steps >= 1,
            f"optimizer.accumulation_steps: expected at least 1, got {self.accumulation_steps}",
        )
