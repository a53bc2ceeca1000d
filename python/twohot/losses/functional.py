"""Labels, cross-entropies and expected values: checked, and given to the code that fits."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor, nn

from twohot.kernels.backend import choose_two_hot, native
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.reference import Labels
from twohot.losses.bins import ValueBins
from twohot.losses.rows import (
    Reduction,
    cross_entropy,
    plain_expectation,
    require_bins,
    require_logits,
    require_sigma,
)
from twohot.tensors import require_floating


def release_memory() -> int:
    """Give the memory that large CPU gradients reuse back to the system; returns its bytes.

    The pool keeps at most `TWOHOT_POOL_MB` megabytes (512 by default; 0 switches it off).
    """
    if native is None:
        return 0
    kept = native.pool_cached_bytes()
    native.release_pool()
    return kept


def two_hot(target: Tensor, bins: ValueBins) -> Tensor:
    """Two-hot labels: x = f(y), clipped to the ends, shares its mass between the two bins around it by nearness.

    Where `bins.labels` is "raw", y shares it between the values of its two bins. `bin_expectation` of these labels
    returns the target where labels and readout are of the same name.

    Args:
        target: [...] values in units of the return, floating point.
        bins: the support.

    Returns:
        [..., N] labels that sum to 1, in the dtype of `target`. A NaN target gives a row of NaN.

    Raises:
        ValueError: when `target` is not floating point.
    """
    require_floating("two_hot", "target", target)
    require_bins("two_hot", bins)
    return reference.two_hot(target, *bins.transformed_ends, bins.count, bins.transform, bins.two_hot_labels)


def hl_gauss(target: Tensor, bins: ValueBins, sigma: float = 0.75) -> Tensor:
    """HL-Gauss labels: what a Gaussian around x = f(y), clipped to the end centers, has in each bin (arXiv 2403.03950).

    Bins reach half a width to each side of their centers; what lies beyond the outer edges is shared out in proportion.

    Args:
        target: [...] values in units of the return, floating point.
        bins: the support; `ValueBins.from_edges` gives the layout of the paper.
        sigma: standard deviation in bin widths.

    Returns:
        [..., N] labels that sum to 1, in the dtype of `target`. A NaN target gives a row of NaN.

    Raises:
        ValueError: when `target` is not floating point or `sigma` is not positive.
    """
    require_floating("hl_gauss", "target", target)
    require_bins("hl_gauss", bins)
    require_sigma("hl_gauss", sigma)
    return reference.hl_gauss(target, *bins.transformed_ends, bins.count, bins.transform, sigma)


@overload
def two_hot_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[False] = False,
) -> Tensor: ...
@overload
def two_hot_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def two_hot_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
def two_hot_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """- sum_k two_hot(y)_k log softmax(logits)_k (AMAGO-2; DreamerV3, arXiv 2301.04104).

    Args:
        logits: [..., N] floating point.
        target: values in units of the return; shape broadcasts to `logits.shape[:-1]`. No gradient flows into it.
            Beyond the ends of the support is the end; NaN gives a NaN loss in its row, or raises (`set_checks`).
        bins: the support; `bins.count` must equal N.
        weight: factor of each row; shape broadcasts to `logits.shape[:-1]`.
        mask: bool, True where a row counts; shape broadcasts to `logits.shape[:-1]`. A masked row contributes
            exactly nothing, even where it holds NaN.
        reduction: "none", "sum", or "mean" over the rows that count (0 when none does), whatever their weights.
        return_readout: also give `bin_expectation(logits, bins)` of the same reading, without gradient; 0 where masked.

    Returns:
        The loss: a scalar, or `logits.shape[:-1]` for "none"; float32, or float64 for float64 logits. With
        `return_readout`, (loss, readout [...]).

    Raises:
        ValueError: when N differs from `bins.count`, a shape does not broadcast, or a dtype is wrong.
    """
    name = "two_hot_cross_entropy"
    require_bins(name, bins)
    labels = bins.two_hot_labels
    return cross_entropy(name, logits, target, bins, labels, 0.0, weight, mask, reduction, return_readout)


@overload
def hl_gauss_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[False] = False,
) -> Tensor: ...
@overload
def hl_gauss_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def hl_gauss_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
def hl_gauss_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """- sum_k hl_gauss(y)_k log softmax(logits)_k (Farebrother et al. 2024, arXiv 2403.03950).

    Args:
        sigma: standard deviation of the label in bin widths; the rest as `two_hot_cross_entropy`.
    """
    name = "hl_gauss_cross_entropy"
    require_sigma(name, sigma)
    labels: Labels = "hl_gauss"
    return cross_entropy(name, logits, target, bins, labels, sigma, weight, mask, reduction, return_readout)


def bin_expectation(logits: Tensor, bins: ValueBins) -> Tensor:
    """The value that a categorical head predicts: f^-1(sum p b), or sum p f^-1(b) where `bins.readout` is "raw".

    Differentiable (once, except for TWOHOT_BACKEND=reference), for policy gradients through the critics.

    Args:
        logits: [..., N] floating point; `bins.count` must equal N.
        bins: the support and its readout.

    Returns:
        [...] values in units of the return; float32, or float64 for float64 logits.

    Raises:
        ValueError: when N differs from `bins.count` or the dtype is not floating point.
    """
    require_logits("bin_expectation", logits, bins)
    if choose_two_hot(logits.device, logits.dtype, bins.count).name == "reference":
        return plain_expectation(logits, bins)
    from twohot.kernels.two_hot.op import expectation

    return expectation(logits.reshape(-1, bins.count).contiguous(), *bins.support).reshape(logits.shape[:-1])


class TwoHotCrossEntropy(nn.Module):
    """`two_hot_cross_entropy` with its support, as a module: `loss(logits, target, weight=None, mask=None)`."""

    reduction: Reduction

    def __init__(self, bins: ValueBins, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.bins, self.reduction = bins, reduction

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of logits [..., N]; arguments as the function's."""
        return two_hot_cross_entropy(logits, target, self.bins, weight=weight, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"{self.bins}, reduction={self.reduction!r}"


class HLGaussCrossEntropy(nn.Module):
    """`hl_gauss_cross_entropy` with its support, as a module: `loss(logits, target, weight=None, mask=None)`."""

    reduction: Reduction

    def __init__(self, bins: ValueBins, sigma: float = 0.75, reduction: Reduction = "mean") -> None:
        super().__init__()
        require_sigma("HLGaussCrossEntropy", sigma)
        self.bins, self.sigma, self.reduction = bins, sigma, reduction

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The loss of logits [..., N]; arguments as the function's."""
        return hl_gauss_cross_entropy(
            logits, target, self.bins, self.sigma, weight=weight, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"{self.bins}, sigma={self.sigma}, reduction={self.reduction!r}"


class BinExpectation(nn.Module):
    """`bin_expectation` with its support, as a module: the last layer of a value network."""

    def __init__(self, bins: ValueBins) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, logits: Tensor) -> Tensor:
        """[...] values of logits [..., N], in units of the return."""
        return bin_expectation(logits, self.bins)

    def extra_repr(self) -> str:
        return str(self.bins)
