"""Actor heads: h_t to a policy over the actions of a space, for every discount at once."""

from __future__ import annotations

import math

import torch
from gymnasium import Space, spaces
from torch import Tensor
from torch.nn import functional

from twohot.nets.actions import enumerate_actions
from twohot.nets.interfaces import ActorNetwork
from twohot.nets.linear import MLP
from twohot.nets.policies import EDGE, Categorical, Categoricals, Policy, ScaledBeta, TanhGaussian, TanhGaussianMixture
from twohot.spaces import shape_of

MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0
"""Bounds of a Gaussian's log standard deviation, before tanh (those of the official AMAGO code)."""


def bounded_log_softmax(logits: Tensor, legal: Tensor | None, floor: float, ceiling: float) -> Tensor:
    """Log-probabilities [..., A], clipped to [floor, ceiling] and normalised again.

    Args:
        logits: [..., A]. legal: [..., A] bool, with an action in each row; the others get probability 0 exactly.
            None for all.
    """
    if legal is None:
        probability = _softmax(logits).clamp(floor, ceiling)
        return (probability / probability.sum(-1, keepdim=True)).log()
    probability = _softmax(logits.masked_fill(~legal, -math.inf)).clamp(floor, ceiling)
    total = probability.masked_fill(~legal, 0).sum(-1, keepdim=True)
    # Filled before the logarithm too: the gradient of log 0 would be NaN.
    return (probability.masked_fill(~legal, 1) / total).log().masked_fill(~legal, -math.inf)


def _softmax(logits: Tensor) -> Tensor:
    """Over the last dimension, made the first: torch is slow along a short last one."""
    return functional.softmax(logits.movedim(-1, 0), dim=0).movedim(0, -1).contiguous()


def _in_float32(x: Tensor) -> Tensor:
    """In float32 at least: probabilities need it where the networks run in bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Actor(ActorNetwork):
    """An MLP from h [..., E] to the parameters of a policy for each discount.

    Args:
        width: E. hidden, layers: of the MLP. discounts: G. outputs: parameters of one policy.
    """

    def __init__(self, width: int, hidden: int, layers: int, discounts: int, outputs: int) -> None:
        super().__init__()
        self.discounts, self.outputs = discounts, outputs
        self.network = MLP(width, hidden, layers, discounts * outputs)

    def policy(self, x: Tensor, legal: Tensor | None) -> Policy:
        """The policy of parameters x [..., outputs] and, for choices, the actions that are legal."""
        raise NotImplementedError

    def forward(self, h: Tensor, action_mask: Tensor | None = None) -> Policy:
        """h [..., E] and which actions are legal [..., actions] to a policy with the batch shape [..., G]."""
        x = self.network(h).unflatten(-1, (self.discounts, self.outputs))
        return self.policy(_in_float32(x), None if action_mask is None else action_mask.bool().unsqueeze(-2))

    def acting(self, h: Tensor, action_mask: Tensor | None = None) -> Policy:
        """h [..., E] to the policy [...] at the last discount, the one that acts."""
        return self.acting_policy(self.network.last_outputs(h, self.outputs), action_mask)

    def acting_policy(self, x: Tensor, action_mask: Tensor | None) -> Policy:
        """The policy [...] of its parameters x [..., outputs]."""
        return self.policy(_in_float32(x), None if action_mask is None else action_mask.bool())


class DiscreteActor(Actor):
    """One choice among A actions.

    Args:
        width, hidden, layers, discounts: as `Actor`. actions: A.
        floor, ceiling: bounds of a probability before it is normalised again; floor keeps every legal action alive.
        temperature: of relaxed choices, as `Categorical`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        discounts: int,
        actions: int,
        *,
        floor: float,
        ceiling: float,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(width, hidden, layers, discounts, actions)
        self.floor, self.ceiling, self.temperature = floor, ceiling, temperature

    def policy(self, x: Tensor, legal: Tensor | None) -> Categorical:
        """As `Actor.policy`; where no action is legal, all are."""
        if legal is not None:
            legal = legal | ~legal.any(-1, keepdim=True)
        return Categorical(bounded_log_softmax(x, legal, self.floor, self.ceiling), self.temperature)


class MultiActor(Actor):
    """Independent choices: MultiDiscrete, or MultiBinary as choices between 0 and 1.

    The legal actions of MultiDiscrete are those of all choices side by side, and those of MultiBinary say which entries
    may be 1. A choice without a legal action has all of them.

    Args:
        width, hidden, layers, discounts: as `Actor`. space: MultiDiscrete or MultiBinary.
        floor, ceiling, temperature: as `DiscreteActor`, of each choice.
    """

    possible: Tensor
    position: Tensor
    inputs: Tensor
    joint_actions: Tensor | None

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        discounts: int,
        space: spaces.MultiDiscrete | spaces.MultiBinary,
        *,
        floor: float,
        ceiling: float,
        temperature: float = 1.0,
    ) -> None:
        binary = isinstance(space, spaces.MultiBinary)
        counts = torch.full(space.shape, 2) if binary else torch.as_tensor(space.nvec)
        super().__init__(width, hidden, layers, discounts, space.shape[0] if binary else int(counts.sum()))
        self.binary, self.floor, self.ceiling, self.temperature = binary, floor, ceiling, temperature
        possible = torch.arange(int(counts.max())) < counts.unsqueeze(-1)  # [n, A]
        first = counts.cumsum(0) - counts
        position = (first.unsqueeze(-1) + torch.arange(possible.shape[-1])).where(possible, 0)
        inputs = torch.arange(1, possible.numel(), 2) if binary else possible.flatten().nonzero().squeeze(-1)
        self.register_buffer("possible", possible, persistent=False)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("inputs", inputs, persistent=False)
        self.register_buffer("joint_actions", enumerate_actions(space), persistent=False)

    def _choices(self, x: Tensor, first: float | bool) -> Tensor:
        """Entries [..., n x A] as [..., n, A]; MultiBinary's are those of 1, and `first` is that of 0."""
        return torch.stack((torch.full_like(x, first), x), dim=-1) if self.binary else x[..., self.position]

    def policy(self, x: Tensor, legal: Tensor | None) -> Categoricals:
        """As `Actor.policy`."""
        allowed = self.possible
        if legal is not None:
            allowed = self._choices(legal, True) & self.possible
            allowed = allowed | (self.possible & ~allowed.any(-1, keepdim=True))
        log_pi = bounded_log_softmax(self._choices(x, 0.0), allowed, self.floor, self.ceiling)
        return Categoricals(log_pi, self.inputs, self.joint_actions, self.temperature)


def _log_std(x: Tensor) -> Tensor:
    return MIN_LOG_STD + (MAX_LOG_STD - MIN_LOG_STD) * (x.tanh() + 1) / 2


class TanhGaussianActor(Actor):
    """A tanh-Gaussian for each of A numbers.

    Args:
        width, hidden, layers, discounts: as `Actor`. actions: A. clip: of an action in densities.
    """

    def __init__(
        self, width: int, hidden: int, layers: int, discounts: int, actions: int, *, clip: float = 1 - EDGE
    ) -> None:
        super().__init__(width, hidden, layers, discounts, 2 * actions)
        self.clip = clip

    def policy(self, x: Tensor, legal: Tensor | None) -> TanhGaussian:
        """As `Actor.policy`."""
        mean, spread = x.chunk(2, dim=-1)
        return TanhGaussian(mean, _log_std(spread), self.clip)


class BetaActor(Actor):
    """A Beta distribution with one peak for each of A numbers; arguments as `TanhGaussianActor`."""

    def __init__(
        self, width: int, hidden: int, layers: int, discounts: int, actions: int, *, clip: float = 1 - EDGE
    ) -> None:
        super().__init__(width, hidden, layers, discounts, 2 * actions)
        self.clip = clip

    def policy(self, x: Tensor, legal: Tensor | None) -> ScaledBeta:
        """As `Actor.policy`."""
        # A little more than 0, so that the peak of a Beta(1, 1) is defined.
        alpha_less_one, beta_less_one = (functional.softplus(x) + 1e-4).chunk(2, dim=-1)
        return ScaledBeta(alpha_less_one, beta_less_one, self.clip)


class GaussianMixtureActor(Actor):
    """A mixture of `components` tanh-Gaussians; the other arguments as `TanhGaussianActor`."""

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        discounts: int,
        actions: int,
        *,
        components: int,
        clip: float = 1 - EDGE,
    ) -> None:
        super().__init__(width, hidden, layers, discounts, components * (1 + 2 * actions))
        self.components, self.clip = components, clip

    def policy(self, x: Tensor, legal: Tensor | None) -> TanhGaussianMixture:
        """As `Actor.policy`."""
        weight, rest = x[..., : self.components], x[..., self.components :].unflatten(-1, (self.components, -1))
        mean, spread = rest.chunk(2, dim=-1)
        return TanhGaussianMixture(weight.log_softmax(-1), mean, _log_std(spread), self.clip)


def make_actor(
    space: Space,
    width: int,
    hidden: int,
    layers: int,
    discounts: int,
    *,
    floor: float,
    ceiling: float,
    continuous: str,
    components: int,
    density_clip: float = 1 - EDGE,
    temperature: float = 1.0,
) -> Actor:
    """The actor for an action space; `continuous` names the distribution of a Box, as in the configuration."""
    sizes = (width, hidden, layers, discounts)
    if isinstance(space, spaces.Discrete):
        return DiscreteActor(*sizes, int(space.n), floor=floor, ceiling=ceiling, temperature=temperature)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return MultiActor(*sizes, space, floor=floor, ceiling=ceiling, temperature=temperature)
    actions = shape_of(space)[0]
    if continuous == "gaussian_mixture":
        return GaussianMixtureActor(*sizes, actions, components=components, clip=density_clip)
    return (BetaActor if continuous == "beta" else TanhGaussianActor)(*sizes, actions, clip=density_clip)
