"""Settings of the networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from twohot.config.checks import require, require_kinds
from twohot.config.renamed import renamed_settings
from twohot.losses import ValueBins


@renamed_settings("agent")
@dataclass(frozen=True)
class AgentConfig:
    """The networks."""

    width: int = 256
    """E, size of the embeddings and of h."""
    timestep_encoder: str = "default"
    """Network that encodes a step: default, which takes any observation, or a name that you registered."""
    images: Literal["impala", "nature", "drq"] = "impala"
    """Convolutional network for images."""
    grids: Literal["convolutional", "linear"] = "convolutional"
    """Network for grids of integers: two convolutions and a linear layer, or the linear layer alone."""
    random_shift: int = 4
    """Largest shift of images, in pixels, drawn at random in training (DrQ); 0 leaves them."""
    random_shift_fraction: float = 0.75
    """Fraction of the sequences of a batch whose images are shifted."""
    random_shift_by: Literal["step", "window"] = "step"
    """Draw a shift for each step, or one for all images of a window."""
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
    excluded_keys: tuple[str, ...] = ("action_mask",)
    """Keys of a Dict observation that are kept from the encoder."""
    memory: str = "transformer"
    """Trajectory encoder: transformer, gru, set (a Gaussian belief over transitions without their order, of which the
    policy sees a sample, as in PEARL), feedforward or identity (both without memory), or a name that you registered."""
    latent_size: int = 16
    """Z, dimensions of the set memory's belief."""
    latent_steps: int = 0
    """Steps of a trial after which the sample of the set memory's belief is drawn anew, such as those of an attempt; in
    between it moves with the belief alone. 0 draws one for the whole trial."""
    input_projection: bool = False
    """A linear layer between the timestep encoder and the Transformer."""
    positions: Literal["fixed", "learned", "rotary"] = "fixed"
    """How the Transformer knows a step's time in its trial: sines, a table, or rotated queries and keys."""
    learned_positions: int = 0
    """Times in the table of learned positions; all later ones share the last row; 0 means the context."""
    layers: int = 3
    """Layers of the Transformer, the GRU or the feed-forward network; hidden ones from a transition to what it adds to
    the set memory's belief."""
    heads: int = 8
    """H, attention heads; must divide the width."""
    feed_forward: int = 1024
    """Hidden units of the Transformer's feed-forward part, of the feed-forward network, or of the set memory."""
    dropout: float = 0.05
    """Dropout of the trajectory encoder, in training only; the set memory has none."""
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
    logit_scale: float = 1.0
    """Factor on the initial weights before the logits of critics that classify; a larger one lets memory learn sooner
    what tells actions apart."""
    critic_actions: Literal["inputs", "outputs"] = "inputs"
    """How scalar critics know a Discrete action: as an input, or by an output for each one. Other actions are inputs in
    both."""
    soften_stored_actions: bool = False
    """Critics see a discrete action from the replay as a one-hot vector clipped to [probability_floor,
    probability_ceiling] and normalised again; sampled actions stay one-hot."""
    critic_action_clip: float = 1.0
    """Critics see the entries of an action (continuous, binary or one-hot) clipped to +- this."""
    popart_deviation: tuple[float, float] = (1e-4, 1e6)
    """Smallest and largest deviation that PopArt divides by, in units of the multiplied return."""
    continuous: Literal["tanh_gaussian", "beta", "gaussian_mixture"] = "tanh_gaussian"
    """The policy's distribution over continuous actions."""
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
        require_kinds(self, "agent.")
        for name in ("width", "layers", "heads", "feed_forward", "context", "encoder_hidden", "encoder_layers"):
            require(getattr(self, name) >= 1, f"agent.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("head_hidden", "head_layers", "critics", "mixture_components", "latent_size"):
            require(getattr(self, name) >= 1, f"agent.{name}: expected at least 1, got {getattr(self, name)}")
        require(
            self.width % self.heads == 0,
            f"agent.heads: expected a divisor of the width {self.width}, got {self.heads}",
        )
        for name in ("hl_gauss_sigma", "logit_scale", "gumbel_temperature"):
            require(0 < getattr(self, name) < math.inf, f"agent.{name}: expected > 0, got {getattr(self, name)}")
        require(
            self.critic_actions == "inputs" or self.critic == "scalar",
            f"agent.critic_actions: expected inputs for the critic {self.critic}, got {self.critic_actions}",
        )
        require(
            0 < self.critic_action_clip <= 1,
            f"agent.critic_action_clip: expected (0, 1], got {self.critic_action_clip}",
        )
        require(0 < self.density_clip < 1, f"agent.density_clip: expected (0, 1), got {self.density_clip}")
        require(
            isinstance(self.popart_deviation, (tuple, list))
            and len(self.popart_deviation) == 2
            and 0 < self.popart_deviation[0] <= self.popart_deviation[1] < math.inf,
            f"agent.popart_deviation: expected two numbers with 0 < smallest <= largest, got {self.popart_deviation}",
        )
        require(
            not self.input_projection or self.memory not in ("gru", "feedforward", "set", "identity"),
            f"agent.input_projection: expected the memory transformer, got {self.memory}",
        )
        require(self.width % 2 == 0, f"agent.width: expected an even width, got {self.width}")
        require(
            self.positions != "rotary" or self.width // self.heads % 2 == 0,
            f"agent.positions: expected an even width / heads for rotary ones, got {self.width} / {self.heads}",
        )
        require(self.vocabulary >= 2, f"agent.vocabulary: expected at least 2, got {self.vocabulary}")
        for name in ("random_shift", "learned_positions", "latent_steps"):
            require(getattr(self, name) >= 0, f"agent.{name}: expected at least 0, got {getattr(self, name)}")
        require(
            0 <= self.random_shift_fraction <= 1,
            f"agent.random_shift_fraction: expected [0, 1], got {self.random_shift_fraction}",
        )
        require(0 <= self.dropout < 1, f"agent.dropout: expected [0, 1), got {self.dropout}")
        for discount in self.discounts:
            require(0 <= discount < 1, f"agent.discount: expected discounts in [0, 1), got {discount}")
        require(
            0 < self.probability_floor < self.probability_ceiling <= 1,
            "agent.probability_floor: expected 0 < floor < ceiling <= 1, "
            f"got {self.probability_floor} and {self.probability_ceiling}",
        )

    @property
    def discounts(self) -> tuple[float, ...]:
        """The G discounts; the last one acts."""
        return (*self.training_discounts, self.discount)
