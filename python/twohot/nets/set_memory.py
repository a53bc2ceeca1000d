"""A memory of the transitions of a trial without their order: a Gaussian belief, of which the policy sees a sample.

The probabilistic context of PEARL (Rakelly et al. 2019, arXiv 1903.08254): each transition is one Gaussian factor, and
the belief is their product, so it costs one cumulative sum over a window, and two numbers for each of its `Z`
dimensions while acting.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.nets.interfaces import TrajectoryNetwork
from twohot.nets.linear import MLP
from twohot.nets.policies import draw_numbers


def gaussian_product(total: Tensor) -> tuple[Tensor, Tensor]:
    """N(0, 1) prod_i N(mean_i, 1 / precision_i), normalised: its mean and variance, each [..., Z].

        1 / variance = 1 + sum_i precision_i,   mean = variance sum_i precision_i mean_i

    Args:
        total: [..., 2 Z], sums over the factors of precision_i and then of precision_i mean_i.
    """
    precision, weighted = total.chunk(2, dim=-1)
    variance = 1 / (1 + precision)
    return variance * weighted, variance


def kl_to_unit_gaussian(mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) = 1/2 sum_z (variance + mean^2 - 1 - log variance), [..., Z] to [...]."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


class SetCache:
    """What a `SetMemory` knows of `B` trials."""

    def __init__(self, before: Tensor, total: Tensor, noise: Tensor) -> None:
        self.before = before
        """[B, E], the embedding of the step before."""
        self.total = total
        """[B, 2 Z], as `gaussian_product` takes it."""
        self.noise = noise
        """[B, Z], how many deviations from its mean the belief's sample is; 0 acts on the mean."""

    def reset(self, mask: Tensor) -> None:
        """Forget the environments where mask [B] (bool) is True."""
        for name in ("before", "total", "noise"):
            setattr(self, name, getattr(self, name).masked_fill(mask[:, None], 0))


class SetMemory(TrajectoryNetwork):
    """h_t = norm(W [x_t; z_t] + b), z_t ~ q_t, where q_t is a product of Gaussians over the transitions up to t.

    The factor of the transition from step i - 1 to step i is read from both embeddings, x_{i-1} and x_i, which show
    what was seen before and after it, the action and the reward. In training z is a reparametrised sample; in eval mode
    it is the mean, but while acting a sample, whose noise `sample` draws.

    Args:
        width: E. hidden, layers: of the network from a transition to its factor. latent: Z.
        hold: steps of a trial for which the noise of z stays; 0 for all of them.
    """

    def __init__(self, width: int, hidden: int, layers: int, latent: int, hold: int) -> None:
        super().__init__()
        self.latent, self.hold = latent, hold
        self.factor = MLP(2 * width, hidden, layers, 2 * latent)
        self.out = nn.Linear(width + latent, width)
        self.norm = nn.LayerNorm(width)

    def factors(self, before: Tensor, x: Tensor) -> Tensor:
        """[..., 2 Z] precisions, and precisions times means, of transitions between embeddings [..., E]."""
        # Small parts of a sum over a long trial would be lost in bfloat16.
        precision, mean = self.factor(torch.cat((before, x), dim=-1)).to(self.out.weight.dtype).chunk(2, dim=-1)
        precision = functional.softplus(precision)
        return torch.cat((precision, precision * mean), dim=-1)

    def output(self, x: Tensor, total: Tensor, noise: Tensor | None) -> Tensor:
        """h [..., E] from x [..., E] and mean + deviation x noise of the belief [..., 2 Z]; None for its mean."""
        z, variance = gaussian_product(total)
        if noise is not None:
            z = z + variance.sqrt() * noise
        return self.norm(self.out(torch.cat((x, z.to(x.dtype)), dim=-1)))

    def begins(self, time: Tensor) -> Tensor:
        """Whether noise is drawn at a time, [...] integers to [...] bool."""
        return (time % self.hold if self.hold else time) == 0

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, L, E] embeddings of consecutive steps, which begin without memory, time [B, L]; returns h [B, L, E]."""
        return self.forward_with_losses(x, time)[0]

    def forward_with_losses(self, x: Tensor, time: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `forward`, with the loss "kl" [B, L]: KL(q_t || N(0, 1))."""
        total = functional.pad(self.factors(x[:, :-1], x[:, 1:]), (0, 0, 1, 0)).cumsum(1)
        h = self.output(x, total, self._noise(x, time) if self.training else None)
        return h, {"kl": kl_to_unit_gaussian(*gaussian_product(total))}

    def _noise(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, L, Z] standard normal numbers, alike where `begins` is False."""
        rows, steps = time.shape
        if not self.hold:
            return self.out.weight.new_empty(rows, 1, self.latent).normal_()
        noise = self.out.weight.new_empty(rows, steps, self.latent).normal_()
        first = (torch.arange(steps, device=x.device) - time.long() % self.hold).clamp(min=0)
        return noise.gather(1, first.unsqueeze(-1).expand_as(noise))

    def initial_cache(self, environments: int) -> SetCache:
        """The prior for `environments` (B), in the dtype and on the device of the weights."""
        like, width = self.out.weight, self.out.out_features
        return SetCache(*(like.new_zeros(environments, size) for size in (width, 2 * self.latent, self.latent)))

    def sample(self, time: Tensor, cache: SetCache, generator: torch.Generator | None) -> None:
        """Draw the noise of the environments whose next step, time [B], begins one."""
        begins = self.begins(time)
        if begins.any():
            noise = draw_numbers("normal_", cache.noise, generator)
            cache.noise = torch.where(begins.unsqueeze(-1), noise, cache.noise)

    @torch.no_grad()
    def step(self, x: Tensor, time: Tensor, cache: SetCache) -> Tensor:
        """x [B, E], time [B]: one step of each environment; returns h [B, E] and moves the cache on by one step."""
        cache.total = self.next_total(x, time, cache.before, cache.total)
        cache.before = x
        return self.output(x, cache.total, cache.noise)

    def next_total(self, x: Tensor, time: Tensor, before: Tensor, total: Tensor) -> Tensor:
        """[B, 2 Z] after the transition from `before` to x [B, E]; a trial's first step, time 0, ends none."""
        return (total + self.factors(before, x)).masked_fill((time == 0).unsqueeze(-1), 0)
