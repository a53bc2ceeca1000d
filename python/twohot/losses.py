"""Value classification losses: two-hot labels over (sym-log) bins, their cross-entropy and their readout.

Stand-alone: needs torch and nothing else of this package. Shapes use one alphabet: `N` bins, `...` any
leading dimensions.

    bins = ValueBins.amago2(count=128)
    loss = two_hot_cross_entropy(logits, returns, bins)      # logits [..., N], returns [...]
    value = bin_expectation(logits, bins)                    # [...]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from twohot.errors import TwohotError
from twohot.kernels.backend import choose_two_hot
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.reference import symexp, symlog

__all__ = ["BinsError", "ValueBins", "bin_expectation", "symexp", "symlog", "two_hot", "two_hot_cross_entropy"]

Transform = Literal["symlog", "linear", "signed_sqrt"]
Readout = Literal["transformed", "raw"]
Reduction = Literal["none", "mean", "sum"]


class BinsError(TwohotError):
    """A value support that cannot be.

    No ValueError: tyro, which builds supports from a command line, would catch one and print it in its own words.
    """


@dataclass(frozen=True)
class ValueBins:
    """The support of a categorical value: `count` bins evenly spaced between `low` and `high` after `transform`.

    Args:
        low: the lowest representable value, in units of the (multiplied) return.
        high: the highest representable value; must exceed `low`.
        count: number of bins N, at least 2.
        transform: space in which the bins are even: "symlog", "linear" or "signed_sqrt".
        readout: "transformed" reads a value as f^-1(sum p b) (AMAGO-2, TD-MPC2, DreamerV3 of 2023), "raw" as
            sum p f^-1(b) (DreamerV3 of 2024, C51).

    Raises:
        BinsError: when the support is empty, not finite, or has fewer than 2 bins.
    """

    low: float = -100_000.0
    high: float = 100_000.0
    count: int = 128
    transform: Transform = "symlog"
    readout: Readout = "transformed"

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 2:
            raise BinsError(f"ValueBins.count: expected an integer of at least 2 bins, got {self.count!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise BinsError(f"ValueBins: expected finite low < high, got low={self.low!r}, high={self.high!r}")
        if self.transform not in reference.TRANSFORMS:
            raise BinsError(
                f"ValueBins.transform: expected one of {sorted(reference.TRANSFORMS)}, got {self.transform!r}"
            )
        if self.readout not in ("transformed", "raw"):
            raise BinsError(f"ValueBins.readout: expected 'transformed' or 'raw', got {self.readout!r}")

    @classmethod
    def amago2(cls, count: int = 128) -> ValueBins:
        """AMAGO-2: symlog bins between the symlogs of -100 000 and 100 000."""
        return cls(-100_000.0, 100_000.0, count, "symlog", "transformed")

    @classmethod
    def tdmpc2(cls) -> ValueBins:
        """TD-MPC2: 101 bins evenly spaced from -10 to 10 in symlog space."""
        return cls(-math.expm1(10.0), math.expm1(10.0), 101, "symlog", "transformed")

    @classmethod
    def dreamerv3(cls, readout: Readout = "raw") -> ValueBins:
        """DreamerV3: 255 bins from -20 to 20 in symlog space; `readout` "raw" since 2024, "transformed" in 2023."""
        return cls(-math.expm1(20.0), math.expm1(20.0), 255, "symlog", readout)

    @classmethod
    def muzero(cls) -> ValueBins:
        """MuZero: 601 bins from -300 to 300 in signed-square-root space."""
        end = float(reference.inverse_signed_sqrt(torch.tensor(300.0, dtype=torch.float64)))
        return cls(-end, end, 601, "signed_sqrt", "transformed")

    @classmethod
    def c51(cls, low: float = -10.0, high: float = 10.0, count: int = 51) -> ValueBins:
        """C51: linear bins."""
        return cls(low, high, count, "linear", "raw")

    @cached_property
    def transformed_ends(self) -> tuple[float, float]:
        """(f(low), f(high)): the first and the last bin center in transformed space."""
        forward, _ = reference.TRANSFORMS[self.transform]
        ends = forward(torch.tensor([self.low, self.high], dtype=torch.float64))
        return float(ends[0]), float(ends[1])

    def centers(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] bin centers in transformed space, ascending."""
        return reference.bin_centers(*self.transformed_ends, self.count, dtype=dtype, device=device)

    def values(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] the value that each bin stands for, in units of the return, ascending."""
        _, inverse = reference.TRANSFORMS[self.transform]
        return inverse(self.centers(torch.float64, device)).to(dtype)


def two_hot(target: Tensor, bins: ValueBins) -> Tensor:
    """Two-hot labels: x = f(y), clipped to the ends, shares its mass between the two bins around it by nearness.

    Interpolation happens in transformed space, so `bin_expectation` of these labels returns the target.

    Args:
        target: [...] values in units of the return, floating point.
        bins: the support.

    Returns:
        [..., N] labels that sum to 1, in the dtype of `target`. A NaN target gives a row of NaN.
    """
    _require_floating("two_hot", "target", target)
    return reference.two_hot(target, *bins.transformed_ends, bins.count, bins.transform)


def two_hot_cross_entropy(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """- sum_k two_hot(y)_k log softmax(logits)_k (AMAGO-2; DreamerV3, arXiv 2301.04104).

    Args:
        logits: [..., N] floating point.
        target: values in units of the return; shape broadcasts to `logits.shape[:-1]`. No gradient flows into it.
        bins: the support; `bins.count` must equal N.
        weight: factor of each row; shape broadcasts to `logits.shape[:-1]`.
        mask: bool, True where a row counts; shape broadcasts to `logits.shape[:-1]`. A masked row contributes
            exactly nothing, even where it holds NaN.
        reduction: "none", "sum", or "mean" over the rows that count (0 when none does).

    Returns:
        A scalar, or `logits.shape[:-1]` for "none", in the dtype of `logits`; computed in float32 at least.

    Raises:
        ValueError: when N differs from `bins.count`, a shape does not broadcast, or a dtype is wrong.
    """
    rows = logits.shape[:-1]
    _require_floating("two_hot_cross_entropy", "logits", logits)
    _require_floating("two_hot_cross_entropy", "target", target)
    if logits.shape[-1] != bins.count:
        raise ValueError(
            f"two_hot_cross_entropy: expected logits with {bins.count} bins in the last dimension, "
            f"got shape {tuple(logits.shape)}"
        )
    for name, tensor in (("target", target), ("weight", weight), ("mask", mask)):
        if tensor is not None:
            _require_broadcast("two_hot_cross_entropy", name, tensor, rows)
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"two_hot_cross_entropy: expected a bool mask, got {mask.dtype}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"two_hot_cross_entropy: expected reduction 'none', 'mean' or 'sum', got {reduction!r}")
    dtype = logits.dtype
    if choose_two_hot(logits).name == "native":
        loss = _native_cross_entropy(logits, target, bins, mask)
    else:
        wide = torch.promote_types(dtype, torch.float32)
        logits, target = logits.to(wide), target.detach().to(wide)
        if mask is not None:
            logits = torch.where(mask.unsqueeze(-1), logits, 0)
            target = torch.where(mask, target, 0)
        loss = reference.cross_entropy(logits, two_hot(target, bins))
    if weight is not None:
        loss = loss * (weight if mask is None else torch.where(mask, weight, 0))
    if mask is not None:
        loss = torch.where(mask, loss, 0)
    if reduction == "none":
        return loss.to(dtype)
    if reduction == "sum":
        return loss.sum().to(dtype)
    count = max(loss.numel(), 1) if mask is None else mask.expand(rows).sum().clamp(min=1)
    return (loss.sum() / count).to(dtype)


def bin_expectation(logits: Tensor, bins: ValueBins) -> Tensor:
    """The value that a categorical head predicts: f^-1(sum p b), or sum p f^-1(b) where `bins.readout` is "raw".

    Args:
        logits: [..., N] floating point; `bins.count` must equal N.
        bins: the support and its readout.

    Returns:
        [...] values in units of the return, dtype of `logits`.

    Raises:
        ValueError: when N differs from `bins.count` or the dtype is not floating point.
    """
    _require_floating("bin_expectation", "logits", logits)
    if logits.shape[-1] != bins.count:
        raise ValueError(
            f"bin_expectation: expected logits with {bins.count} bins in the last dimension, "
            f"got shape {tuple(logits.shape)}"
        )
    differentiable = torch.is_grad_enabled() and logits.requires_grad
    if not differentiable and choose_two_hot(logits).name == "native":
        return _native_expectation(logits, bins)
    return reference.bin_expectation(logits, *bins.transformed_ends, bins.transform, bins.readout)


def _native_cross_entropy(logits: Tensor, target: Tensor, bins: ValueBins, mask: Tensor | None) -> Tensor:
    """float32 [...] loss of each row; rows that are masked give 0."""
    from twohot.kernels.two_hot.op import two_hot_rows

    rows = logits.shape[:-1]
    shared = _leading_ones(target, len(rows))
    if mask is not None:
        shared = min(shared, _leading_ones(mask, len(rows)))
    own = rows[shared:]
    target = target.detach().to(torch.float32)
    position = reference.position(target, *bins.transformed_ends, bins.count, bins.transform)
    position = position.reshape(position.shape[max(position.dim() - len(own), 0) :]).expand(own)
    if mask is not None:
        mask = mask.reshape(mask.shape[max(mask.dim() - len(own), 0) :]).expand(own).flatten().contiguous()
    flat = logits.reshape(-1, bins.count).contiguous()
    loss, *_ = two_hot_rows(flat, position.flatten().contiguous(), mask, None, False)
    return loss.reshape(rows)


def _native_expectation(logits: Tensor, bins: ValueBins) -> Tensor:
    from twohot.kernels.two_hot.op import expectation_rows

    values = bins.values() if bins.readout == "raw" else bins.centers()
    low, high = bins.transformed_ends
    mean = expectation_rows(logits.detach().reshape(-1, bins.count).contiguous(), values, low == -high)
    _, inverse = reference.TRANSFORMS[bins.transform]
    mean = mean if bins.readout == "raw" else inverse(mean)
    return mean.reshape(logits.shape[:-1]).to(logits.dtype)


def _leading_ones(tensor: Tensor, dimensions: int) -> int:
    """How many leading ones a tensor has once its shape is filled up with ones to `dimensions`."""
    shape = (1,) * (dimensions - tensor.dim()) + tuple(tensor.shape)
    return next((index for index, size in enumerate(shape) if size != 1), dimensions)


def _require_floating(op: str, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{op}: expected a floating point {name}, got {tensor.dtype}")


def _require_broadcast(op: str, name: str, tensor: Tensor, rows: torch.Size) -> None:
    try:
        fits = torch.broadcast_shapes(tensor.shape, rows) == rows
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{op}: expected a {name} whose shape broadcasts to the rows {tuple(rows)}, got {tuple(tensor.shape)}"
        )
