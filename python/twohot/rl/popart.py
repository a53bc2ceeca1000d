"""PopArt: value targets of any scale, normalised while the network's predictions stay what they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor, distributed

from twohot.tensors import SharedStatistics, require_device, require_floating, require_tensor, sum_over_ranks


def masked_moments(
    x: Tensor, mask: Tensor, process_group: distributed.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """How many rows of x [..., *shape] the mask [...] (bool) counts, and their mean and variance [*shape].

    Without a number of rows that depends on data: a GPU would have to be waited for. 0 where no row counts; one that
    does not may hold NaN.

    Args:
        process_group: counts the rows of all its ranks, which call this together; None counts those given.
    """
    leading = tuple(range(mask.dim()))
    rows = mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))
    count, total = mask.sum(), x.masked_fill(~rows, 0).sum(leading)
    if process_group is not None:  # in one message
        sums = sum_over_ranks(torch.cat((count.to(x.dtype).view(1), total.flatten())), process_group)
        count, total = sums[0].to(count.dtype), sums[1:].view_as(total)
    divisor = count.clamp(min=1)
    mean = total / divisor
    squares = (x - mean).masked_fill(~rows, 0).square().sum(leading)
    return count, mean, sum_over_ranks(squares, process_group) / divisor


def update_moments(
    mean: Tensor,
    variance: Tensor,
    batches: int | Tensor,
    targets: Tensor,
    beta: float,
    mask: Tensor | None = None,
    process_group: distributed.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the targets after one more batch.

    mu' = (1 - beta_T) mu + beta_T E[y],  nu' = (1 - beta_T) nu + beta_T E[y^2],  beta_T = beta / (1 - (1 - beta)^T)
    (van Hasselt et al. 2016, arXiv 1602.07714, with its correction of the start), carried as the variance
    nu - mu^2, so that a large mean does not drown it in rounding errors:
    (1 - beta_T) (variance + beta_T (E[y] - mu)^2) + beta_T Var[y].

    Args:
        mean, variance: [...] before the batch.
        batches: T, how many there are with this one; at T = 1 the old statistics count for nothing.
        targets: [M, ...] the targets of the batch, M at least 1. beta: rate in (0, 1) of the long run.
        mask: bool, True where a target counts, over the leading dimensions of `targets`, however many; None for all.
            Where none counts, the statistics stay as they are.
        process_group: as for `masked_moments`; with a mask alone.

    Returns:
        The new mean and variance.
    """
    batches = torch.as_tensor(batches, dtype=mean.dtype, device=mean.device)
    step = beta / -torch.expm1(batches * math.log1p(-beta))
    targets = targets.to(mean.dtype)
    count = None
    if mask is None:
        average, spread = targets.mean(0), targets.var(0, correction=0)
    else:
        count, average, spread = masked_moments(targets, mask, process_group)
    difference = average - mean
    moved = mean + step * difference, (1 - step) * (variance + step * difference.square()) + step * spread
    if count is None:
        return moved
    new_mean, new_variance = (
        torch.where(count > 0, new, old) for new, old in zip(moved, (mean, variance), strict=True)
    )
    return new_mean, new_variance


def preserve_outputs(
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    deviation: Tensor,
    new_mean: Tensor,
    new_deviation: Tensor,
) -> tuple[Tensor, Tensor]:
    """The last layer whose outputs mean under the new statistics what those of the old layer meant under the old ones.

    w' = sigma / sigma' w,  b' = (sigma b + mu - mu') / sigma'  (van Hasselt et al. 2016), so that
    sigma' (w' h + b') + mu' = sigma (w h + b) + mu for every h.

    Args:
        weight: [..., G, E] of a layer with one output for each discount; or [..., G], a factor for each discount.
        bias: [..., G]. mean, deviation, new_mean, new_deviation: [G], or scalars.

    Returns:
        The new weight and bias, in the dtypes of the old ones.
    """
    ratio = deviation / new_deviation
    new_bias = (deviation * bias + mean - new_mean) / new_deviation
    new_weight = weight * (ratio.unsqueeze(-1) if weight.dim() > bias.dim() else ratio)
    return new_weight.to(weight.dtype), new_bias.to(bias.dtype)


class PopArt(SharedStatistics):
    """Running mean and deviation of value targets, one pair for each discount, to train scalar critics on.

    A critic learns normalize(y) and predicts denormalize(output); `update` moves the statistics and corrects the last
    layer for it (van Hasselt et al. 2016, arXiv 1602.07714; Hessel et al. 2018, arXiv 1809.04474). The initial
    statistics weigh as much as one batch, as in AMAGO.

    The buffers `mean`, `variance` ([G], or scalars) and `batches` (int64, the initial statistics included) are the
    state. They are float64 on purpose: a step of beta x (E[y] - mu) is lost in float32 once |mu| is some thousand
    times the deviation.

    Where learners are trained data-parallel, set `process_group`, as of torch's SyncBatchNorm: `update` then counts the
    targets of all its ranks, which call it together.

    Args:
        discounts: G; None for one value without a dimension for it.
        beta: rate of the moving averages, in (0, 1).
        initial_variance: nu_0, the variance before any batch, positive; the mean is then 0.
        minimum_deviation, maximum_deviation: bounds of the deviation that values are divided by (Hessel et al. 2018).
        dtype: of the statistics; float32 where a device has no float64.

    Raises:
        ValueError: when an argument is out of its range.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(
        self,
        discounts: int | None = None,
        *,
        beta: float = 5e-4,
        initial_variance: float = 100.0,
        minimum_deviation: float = 1e-4,
        maximum_deviation: float = 1e6,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        count = 1 if discounts is None else discounts
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"PopArt: expected at least 1 discount, or None, got {discounts!r}")
        if not dtype.is_floating_point:
            raise ValueError(f"PopArt: expected statistics of a floating point dtype, got {dtype}")
        if not 0 < beta < 1:
            raise ValueError(f"PopArt: expected beta between 0 and 1, got {beta}")
        if not 0 < initial_variance < math.inf:
            raise ValueError(f"PopArt: expected a positive initial_variance, got {initial_variance}")
        if not 0 < minimum_deviation <= maximum_deviation < math.inf:
            raise ValueError(
                f"PopArt: expected 0 < minimum_deviation <= maximum_deviation < infinity, "
                f"got {minimum_deviation} and {maximum_deviation}"
            )
        self.beta = beta
        self.minimum_deviation, self.maximum_deviation = minimum_deviation, maximum_deviation
        shape = () if discounts is None else (discounts,)
        self.register_buffer("mean", torch.zeros(shape, dtype=dtype))
        self.register_buffer("variance", torch.full(shape, initial_variance, dtype=dtype))
        self.register_buffer("batches", torch.ones((), dtype=torch.int64))

    @property
    def deviation(self) -> Tensor:
        """[G] or scalar: what values are divided by, within its bounds."""
        return self.variance.sqrt().clamp(self.minimum_deviation, self.maximum_deviation)

    def normalize(self, x: Tensor) -> Tensor:
        """(x - mu) / sigma of values x [..., G], differentiable; in the dtype of x, float32 at least."""
        self._check_values("normalize", "x", x)
        return ((x - self.mean) / self.deviation).to(torch.promote_types(x.dtype, torch.float32))

    def denormalize(self, x: Tensor) -> Tensor:
        """sigma x + mu of normalised values x [..., G], differentiable; in the dtype of x, float32 at least."""
        self._check_values("denormalize", "x", x)
        return (self.deviation * x + self.mean).to(torch.promote_types(x.dtype, torch.float32))

    @torch.no_grad()
    def update(
        self,
        targets: Tensor,
        mask: Tensor | None = None,
        heads: Iterable[tuple[Tensor, Tensor]] = (),
        *,
        check: bool = True,
    ) -> None:
        """Count one batch of targets, and rescale last layers so that no denormalised prediction changes.

        Call it before the forward pass, or after the optimiser's step: it writes into the layers. An optimiser's own
        averages of their gradients stay as they are. Where no target counts, nothing changes.

        Args:
            targets: [..., G] in units of the return, floating point.
            mask: [...] bool, True where the targets count; None for everywhere. Others are not read, be they NaN.
            heads: (weight, bias) of each layer that predicts normalised values, also of target networks: weight
                [..., G, E] and bias [..., G], with any leading dimensions of an ensemble; or a weight [..., G], a
                factor for each discount after a layer that all discounts share.
            check: look at the targets, for which a GPU is waited for. A caller who knows that those that count are
                finite can spare that.

        Raises:
            ValueError: when a target that counts is not finite, or so large that its square is not, or a shape, dtype
                or device is wrong; nothing has changed then.
        """
        self._check_values("update", "targets", targets)
        leading = targets.shape[: targets.dim() - self.mean.dim()]
        if mask is not None:
            require_tensor("PopArt.update", "mask", mask)
            require_device("PopArt.update", "mask", mask, "targets", targets)
        if mask is not None and (mask.dtype != torch.bool or mask.shape != leading):
            raise ValueError(
                f"PopArt.update: expected a bool mask of shape {tuple(leading)}, got {mask.dtype} {tuple(mask.shape)}"
            )
        heads = list(heads)
        for weight, bias in heads:
            self._check_head(weight, bias)
        if self.process_group is None and (check or targets.is_cpu):
            targets, mask = targets.reshape(-1, *self.mean.shape) if mask is None else targets[mask], None
            if len(targets) == 0:
                return
        elif mask is None:
            mask = torch.ones(leading, dtype=torch.bool, device=targets.device)
        if check and (broken := int(self._broken(targets, mask))):
            raise ValueError(
                f"PopArt.update: expected finite targets, got {broken} of {targets.numel()} that are NaN or infinite; "
                f"mask the steps that have none"
            )
        mean, deviation = self.mean.clone(), self.deviation
        counted = 1 if mask is None else sum_over_ranks(mask.sum(), self.process_group).clamp(max=1)
        new_mean, new_variance = update_moments(
            mean, self.variance, self.batches + 1, targets, self.beta, mask, self.process_group
        )
        if check and not (new_mean.isfinite() & new_variance.isfinite()).all():
            raise ValueError(
                f"PopArt.update: expected targets whose squares {mean.dtype} holds, got up to {targets.abs().max():.3g}"
            )
        self.batches += counted
        self.mean.copy_(new_mean)
        self.variance.copy_(new_variance)
        for weight, bias in heads:
            new_weight, new_bias = preserve_outputs(weight, bias, mean, deviation, self.mean, self.deviation)
            weight.copy_(new_weight)
            bias.copy_(new_bias)

    def _broken(self, targets: Tensor, mask: Tensor | None) -> Tensor:
        """How many targets that count are not finite, on all ranks, so that all raise or none does."""
        wrong = targets.isfinite().logical_not()
        if mask is not None:
            wrong &= mask.reshape(mask.shape + (1,) * self.mean.dim())
        return sum_over_ranks(wrong.sum(), self.process_group)

    def extra_repr(self) -> str:
        discounts = len(self.mean) if self.mean.dim() else None
        return f"discounts={discounts}, beta={self.beta}"

    def _check_values(self, method: str, name: str, x: Tensor) -> None:
        require_floating(f"PopArt.{method}", name, x)
        require_device(f"PopArt.{method}", name, x, "mean", self.mean)
        if x.shape[x.dim() - self.mean.dim() :] != self.mean.shape:
            raise ValueError(
                f"PopArt.{method}: expected {name} of shape [..., {len(self.mean)}], one for each discount, "
                f"got {tuple(x.shape)}"
            )

    def _check_head(self, weight: Tensor, bias: Tensor | None) -> None:
        if bias is None:
            raise ValueError("PopArt.update: expected a bias in every head, which takes up a change of the mean")
        for name, x in (("weight", weight), ("bias", bias)):
            require_floating("PopArt.update", f"{name} of a head", x)
            require_device("PopArt.update", f"{name} of a head", x, "mean", self.mean)
            if any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True)):
                raise ValueError(f"PopArt.update: expected a {name} of a head to write to, got one that was expanded")
        fits = weight.shape[: bias.dim()] == bias.shape and weight.dim() - bias.dim() in (0, 1)
        if not fits or bias.shape[bias.dim() - self.mean.dim() :] != self.mean.shape:
            discounts = f"..., {len(self.mean)}" if self.mean.dim() else "..."
            raise ValueError(
                f"PopArt.update: expected a head with a bias [{discounts}] and a weight of this shape or with one more "
                f"dimension, got {tuple(bias.shape)} and {tuple(weight.shape)}"
            )
