"""Policies: distributions over the actions of a space, for a batch of steps and discounts.

Each has a batch shape, [..., G] from an actor's forward pass and [...] where it acts, and offers `log_prob`, `sample`,
`rsample` (differentiable), `mode` and `entropy`. Actions have the batch shape, or 1 instead of G where all discounts
share them, and then the shape of the space. Numbers are drawn on the generator's device, so that a CPU generator gives
the same actions on every device.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional

from twohot.kernels.torch_private import standard_gamma

__all__ = ["Categorical", "Categoricals", "Policy", "ScaledBeta", "TanhGaussian", "TanhGaussianMixture"]

EDGE = 1e-6
"""Continuous actions count as at least this far from -1 and 1, where densities may be infinite, by default."""
ENTROPY_NODES, ENTROPY_SAMPLES = 32, 8
"""Gauss-Hermite nodes, and samples, of entropies without a closed form."""


class Policy(Protocol):
    """A distribution over actions."""

    @property
    def probabilities(self) -> Tensor:
        """[batch, S] of all actions, in the order of `enumerate_actions`; TypeError where they cannot be enumerated."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (or density) of action [batch or ..., 1, *shape] to [batch]; -inf for an illegal choice."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Actions [batch, *shape] without gradient; int64 for choices."""
        ...

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """Differentiable actions, as `ActionLinear` takes them: one-hot choices have the gradient of relaxed ones."""
        ...

    def mode(self) -> Tensor:
        """The action [batch, *shape] to take when one is to be taken without noise."""
        ...

    def entropy(self) -> Tensor:
        """[batch] in nats."""
        ...


def draw_numbers(fill: str, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers of the shape and dtype of `like`, by a tensor's method of the name `fill`."""
    device = like.device if generator is None else generator.device
    numbers = torch.empty(like.shape, dtype=like.dtype, device=device)
    return getattr(numbers, fill)(generator=generator).to(like.device)


def sample_actions(log_pi: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One action from log pi [..., A], by inversion of the cumulative distribution; returns [...] int64."""
    cumulative = log_pi.exp().cumsum(-1)
    like = cumulative[..., :1]
    # Without a generator in the form that torch.export can write.
    drawn = torch.rand_like(like) if generator is None else draw_numbers("uniform_", like, generator)
    return (drawn * cumulative[..., -1:] >= cumulative[..., :-1]).sum(-1)


class Categorical:
    """One choice among A actions, from log pi [batch, A], -inf for actions that are illegal.

    `temperature` is that of the relaxed choices whose gradient `rsample` has.
    """

    def __init__(self, log_pi: Tensor, temperature: float = 1.0) -> None:
        self.log_pi, self.temperature = log_pi, temperature

    @property
    def probabilities(self) -> Tensor:
        """[batch, A]."""
        return self.log_pi.exp()

    def log_prob(self, action: Tensor) -> Tensor:
        index = action.long().expand(self.log_pi.shape[:-1]).unsqueeze(-1)
        return self.log_pi.gather(-1, index).squeeze(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():  # as a decorator it would break a compiled graph
            return sample_actions(self.log_pi, generator)

    def sample_weights(self, samples: int) -> Tensor:
        """[batch, A], how often each action is among `samples` drawn ones, over their number; 0: its probability."""
        if samples == 0:
            return self.probabilities
        drawn = torch.stack([self.sample() for _ in range(samples)], -1)
        weight = torch.zeros_like(self.log_pi)
        return weight.scatter_add_(-1, drawn, torch.full_like(drawn, 1 / samples, dtype=weight.dtype))

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """One-hot [batch, A] with the gradient of softmax((log pi + Gumbel noise) / temperature).

        Straight-through (arXiv 1611.01144). The noise of an exponential number e is -log e; the choice itself is
        distributed as pi.
        """
        noisy = self.log_pi - draw_numbers("exponential_", self.log_pi.detach(), generator).log()
        relaxed = (noisy / self.temperature).softmax(-1)
        chosen = functional.one_hot(relaxed.argmax(-1), relaxed.shape[-1]).to(relaxed.dtype)
        return chosen + (relaxed - relaxed.detach())

    def mode(self) -> Tensor:
        return self.log_pi.argmax(-1)

    def entropy(self) -> Tensor:
        return torch.special.entr(self.probabilities).sum(-1)


class Categoricals:
    """`n` independent choices, each among at most A: MultiDiscrete and MultiBinary.

    Args:
        log_pi: [batch, n, A], -inf for what is illegal or beyond the number of a choice.
        inputs: indices into the n x A probabilities of those that are inputs of an `ActionLinear`.
        joint_actions: [S, n] int64, all joint actions, where they are few enough to be enumerated.
        temperature: as `Categorical`.
    """

    def __init__(self, log_pi: Tensor, inputs: Tensor, joint_actions: Tensor | None, temperature: float = 1.0) -> None:
        self.each = Categorical(log_pi, temperature)
        self.inputs, self.joint_actions = inputs, joint_actions

    @property
    def probabilities(self) -> Tensor:
        """[batch, S] of the joint actions."""
        if self.joint_actions is None:
            raise TypeError("expected actions that can be enumerated, got more of them")
        choice = torch.arange(self.joint_actions.shape[-1], device=self.joint_actions.device)
        return self.each.log_pi[..., choice, self.joint_actions].sum(-1).exp()

    def log_prob(self, action: Tensor) -> Tensor:
        return self.each.log_prob(action).sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.each.sample(generator)

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.each.rsample(generator).flatten(-2)[..., self.inputs]

    def mode(self) -> Tensor:
        return self.each.mode()

    def entropy(self) -> Tensor:
        return self.each.entropy().sum(-1)


def _inside(action: Tensor, clip: float, dtype: torch.dtype) -> Tensor:
    return action.to(dtype).clamp(-clip, clip)


def _normal_log_density(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((z - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)


class _Continuous:
    """Actions that are numbers."""

    @property
    def probabilities(self) -> Tensor:
        """There are none."""
        raise TypeError("expected actions that can be enumerated, got numbers")


class TanhGaussian(_Continuous):
    """a = tanh(z), z ~ N(mean, std^2) for each of A numbers in (-1, 1); mean and log std [batch, A].

    `clip`: actions are clipped to +- this in densities.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, clip: float = 1 - EDGE) -> None:
        self.mean, self.log_std, self.clip = mean, log_std, clip

    def log_prob(self, action: Tensor) -> Tensor:
        a = _inside(action, self.clip, self.mean.dtype)
        return (_normal_log_density(a.atanh(), self.mean, self.log_std) - (1 - a.square()).log()).sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(generator)

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        return (self.mean + self.log_std.exp() * draw_numbers("normal_", self.mean, generator)).tanh()

    def mode(self) -> Tensor:
        """tanh(mean): the median of each number."""
        return self.mean.tanh()

    def entropy(self) -> Tensor:
        """H(N) + E log(1 - tanh(z)^2), the expectation by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(ENTROPY_NODES)
        nodes, weights = (self.mean.new_tensor(each) for each in (nodes, weights / math.sqrt(2 * math.pi)))
        z = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        slope = 2 * (math.log(2) - z - functional.softplus(-2 * z))
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e) + slope @ weights).sum(-1)


class TanhGaussianMixture(_Continuous):
    """a = tanh(z), z from one of M diagonal Gaussians.

    Args:
        log_weight: [batch, M], normalised. mean, log_std: [batch, M, A].
        clip: actions are clipped to +- this in densities.
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, log_std: Tensor, clip: float = 1 - EDGE) -> None:
        self.component = Categorical(log_weight)
        self.mean, self.log_std, self.clip = mean, log_std, clip

    def log_prob(self, action: Tensor) -> Tensor:
        a = _inside(action, self.clip, self.mean.dtype)
        z = a.atanh().unsqueeze(-2)
        each = _normal_log_density(z, self.mean, self.log_std).sum(-1)
        return (self.component.log_pi + each).logsumexp(-1) - (1 - a.square()).log().sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(generator)

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """The choice of the component is straight-through, as that of `Categorical`."""
        chosen = self.component.rsample(generator).unsqueeze(-1)
        each = self.mean + self.log_std.exp() * draw_numbers("normal_", self.mean, generator)
        return (chosen * each).sum(-2).tanh()

    def mode(self) -> Tensor:
        """tanh(mean) of the heaviest component."""
        index = self.component.mode()[..., None, None].expand(*self.mean.shape[:-2], 1, self.mean.shape[-1])
        return self.mean.gather(-2, index).squeeze(-2).tanh()

    def entropy(self) -> Tensor:
        """Its mean over a few samples from a separate stream: no closed form exists, and no other draw changes."""
        generator = torch.Generator().manual_seed(0)
        draws = [-self.log_prob(self.sample(generator)) for _ in range(ENTROPY_SAMPLES)]
        return torch.stack(draws).mean(0)


class ScaledBeta(_Continuous):
    """a = 2 x - 1, x ~ Beta(alpha, beta) for each of A numbers; alpha - 1 and beta - 1 [batch, A], positive.

    `clip`: actions are clipped to +- this in densities.
    """

    def __init__(self, alpha_less_one: Tensor, beta_less_one: Tensor, clip: float = 1 - EDGE) -> None:
        self.alpha_less_one, self.beta_less_one, self.clip = alpha_less_one, beta_less_one, clip

    @property
    def _beta(self) -> Beta:
        return Beta(self.alpha_less_one + 1, self.beta_less_one + 1, validate_args=False)

    def log_prob(self, action: Tensor) -> Tensor:
        x = (_inside(action, self.clip, self.alpha_less_one.dtype) + 1) / 2
        return (self._beta.log_prob(x) - math.log(2)).sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.rsample(generator)

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """From two Gamma numbers, with their implicit gradients (arXiv 1805.08498)."""
        device = self.alpha_less_one.device if generator is None else generator.device
        shapes = torch.stack((self.alpha_less_one, self.beta_less_one)).to(device) + 1
        first, second = standard_gamma(shapes, generator=generator).to(self.alpha_less_one.device)
        return 2 * first / (first + second) - 1

    def mode(self) -> Tensor:
        return 2 * self.alpha_less_one / (self.alpha_less_one + self.beta_less_one) - 1

    def entropy(self) -> Tensor:
        return (self._beta.entropy() + math.log(2)).sum(-1)
