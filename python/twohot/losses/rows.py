"""From the arguments of the value losses to rows: checks, shapes, and which implementation runs.

The public functions are in `twohot.losses`.
"""

from __future__ import annotations

import os
from numbers import Real
from typing import Literal, cast

import torch
from torch import Tensor

from twohot.kernels.backend import choose_two_hot, is_eager_tensor
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.reference import Labels
from twohot.losses.bins import ValueBins
from twohot.tensors import require_device, require_floating, require_tensor

Reduction = Literal["none", "mean", "sum"]
SIGMAS = (1e-3, 1e3)
"""In bin widths. Outside, what float32 has of a label is lost: where an edge is, or what a bin has of the mass."""

_checking = os.environ.get("TWOHOT_CHECKS", "0") not in ("", "0")


def set_checks(enabled: bool) -> None:
    """Whether a NaN target raises (it costs a pass over the targets, and on a GPU a wait), or gives a NaN loss.

    `TWOHOT_CHECKS=1` switches the checks on from the start. Code under torch.compile is not checked.
    """
    global _checking  # noqa: PLW0603  the switch of the package
    _checking = enabled


def cross_entropy(
    name: str,
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    labels: Labels,
    sigma: float,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """The cross-entropy of the public function that errors call `name`; `sigma` is that of HL-Gauss labels."""
    require_logits(name, logits, bins)
    rows = logits.shape[:-1]
    require_rows(name, "logits", logits, target, mask, weight, "weight", reduction)
    if choose_two_hot(logits.device, logits.dtype, bins.count).name == "reference":
        loss, readout = _plain_rows(logits, target, bins, labels, sigma, mask, return_readout)
        return reduce_rows(loss, readout, rows, weight, mask, reduction)
    from twohot.kernels.two_hot import op

    flat = logits.contiguous() if logits.dim() == 2 else logits.reshape(-1, bins.count).contiguous()
    target_, mask_ = shared_targets(rows, target, mask)
    one_pass = runs_in_one_pass(logits, weight, reduction)
    if one_pass and is_eager_tensor(logits):
        weight_ = None if weight is None else weight.expand(rows).reshape(-1).to(torch.float32).contiguous()
        gradient = torch.is_grad_enabled() and logits.requires_grad
        arguments = (reduction == "mean", *bins.support, labels, sigma, return_readout, gradient)
        loss, readout = op.cross_entropy(flat, target_, mask_, weight_, *arguments)
        return (loss, readout.reshape(rows)) if return_readout else loss
    loss, readout = op.cross_entropy_rows(flat, target_, mask_, *bins.support, labels, sigma, return_readout)
    readout = readout.reshape(rows) if return_readout else None
    return reduce_rows(loss.reshape(rows), readout, rows, weight, mask, reduction)


def runs_in_one_pass(logits: Tensor, weight: Tensor | None, reduction: Reduction) -> bool:
    """Whether the gradient may be found before its factor is known.

    Not in float16: divided by the number of rows it vanishes, and a loss scale that comes later does not bring it back.
    """
    vanishes = logits.dtype == torch.float16 and torch.is_grad_enabled()
    return reduction != "none" and not vanishes and not (weight is not None and weight.requires_grad)


def _plain_rows(
    logits: Tensor,
    target: Tensor,
    bins: ValueBins,
    labels: Labels,
    sigma: float,
    mask: Tensor | None,
    return_readout: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of each row, and the readout, in plain PyTorch."""
    compute_dtype = torch.promote_types(logits.dtype, torch.float32)
    logits, target = logits.to(compute_dtype), target.detach().to(compute_dtype)
    if mask is not None:
        logits = torch.where(mask.unsqueeze(-1), logits, 0)
        target = torch.where(mask, target, 0)
    label = reference.labels_of(target, *bins.transformed_ends, bins.count, bins.transform, labels, sigma)
    loss = reference.cross_entropy(logits, label)
    if mask is not None:
        loss = torch.where(mask, loss, 0)
    if not return_readout:
        return loss, None
    readout = plain_expectation(logits.detach(), bins)
    return loss, readout if mask is None else torch.where(mask, readout, 0)


def plain_expectation(logits: Tensor, bins: ValueBins) -> Tensor:
    """The readout [...] of logits [..., N] in plain PyTorch, float32 at least."""
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return reference.bin_expectation(upcast, *bins.support)


def reduce_rows(
    loss: Tensor,
    readout: Tensor | None,
    rows: torch.Size,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
) -> Tensor | tuple[Tensor, Tensor]:
    """Weights, masks and the reduction over losses of rows that are 0 where masked, and the readout if given."""
    if weight is not None:
        loss = loss * (weight if mask is None else torch.where(mask, weight, 0)).to(loss.dtype)
    if reduction != "none":
        if reduction == "mean":
            count = max(loss.numel(), 1) if mask is None else mask.expand(rows).sum().clamp(min=1)
            loss = loss.sum() / count
        else:
            loss = loss.sum()
    return loss if readout is None else (loss, readout)


def shared_targets(rows: torch.Size, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The target as float32 [T] and the mask as bool [T], without leading dimensions over which both are the same."""
    if mask is None and target.shape == rows:
        if target.requires_grad or target.dtype != torch.float32 or not target.is_contiguous():
            target = target.detach().to(torch.float32).contiguous()
        return target if len(rows) == 1 else target.view(-1), None
    shared = _leading_ones(target, len(rows))
    if mask is not None:
        shared = min(shared, _leading_ones(mask, len(rows)))
    own = rows[shared:]
    target = target.detach().to(torch.float32)
    target = target.reshape(target.shape[max(target.dim() - len(own), 0) :]).expand(own).reshape(-1).contiguous()
    if mask is not None:
        mask = mask.reshape(mask.shape[max(mask.dim() - len(own), 0) :]).expand(own).reshape(-1).contiguous()
    return target, mask


def _leading_ones(tensor: Tensor, dimensions: int) -> int:
    """How many leading ones a tensor has once its shape is filled up with ones to `dimensions`."""
    shape = (1,) * (dimensions - tensor.dim()) + tuple(tensor.shape)
    return next((index for index, size in enumerate(shape) if size != 1), dimensions)


def require_logits(name: str, logits: Tensor, bins: ValueBins) -> None:
    """Raise TypeError or ValueError unless logits are [..., N] of these bins."""
    require_bins(name, bins)
    require_floating(name, "logits", logits)
    if logits.dim() == 0 or logits.shape[-1] != bins.count:
        shape = tuple(logits.shape)
        raise ValueError(f"{name}: expected logits with {bins.count} bins in the last dimension, got shape {shape}")


def require_rows(
    name: str,
    leader: str,
    leading: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    weight_name: str,
    reduction: str,
) -> None:
    """What the rows of `leading` [..., N or E], which errors call `leader`, are given: shapes, dtypes and devices."""
    rows = leading.shape[:-1]
    require_floating(name, "target", target)
    for other, tensor in (("target", target), (weight_name, weight), ("mask", mask)):
        if tensor is None:
            continue
        if tensor is not target:
            require_tensor(name, other, tensor)
        require_device(name, other, tensor, leader, leading)
        if tensor.shape != rows:
            _require_broadcast(name, other, tensor, rows)
    if weight is not None and weight.is_complex():
        raise ValueError(f"{name}: expected real numbers as {weight_name}, got {weight.dtype}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"{name}: expected a bool mask, got {mask.dtype}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: expected reduction 'none', 'mean' or 'sum', got {reduction!r}")
    if _checking and not torch.compiler.is_compiling() and not target.is_meta:
        wrong = target.isnan() if mask is None else target.isnan() & mask
        if wrong.any():
            first = tuple(int(index) for index in wrong.nonzero()[0])
            raise ValueError(f"{name}: the target holds {int(wrong.sum())} NaN, the first at {first}")


def require_bins(name: str, bins: object) -> None:
    """Raise TypeError unless `bins` is a support."""
    if not isinstance(bins, ValueBins):
        raise TypeError(f"{name}: expected bins as a ValueBins, such as ValueBins.amago2(), got {bins!r}")


def require_sigma(name: str, sigma: object) -> None:
    """Raise ValueError unless sigma can be a standard deviation, in float32 too."""
    minimum, maximum = SIGMAS
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not minimum <= cast("float", sigma) <= maximum:
        raise ValueError(
            f"{name}: expected sigma > 0, in bin widths, got {sigma!r}; labels need {minimum} to {maximum}"
        )


def _require_broadcast(name: str, other: str, tensor: Tensor, rows: torch.Size) -> None:
    try:
        fits = bool(torch.broadcast_shapes(tensor.shape, rows) == rows)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # torch names no type
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: expected a {other} whose shape broadcasts to the rows {tuple(rows)}, got {tuple(tensor.shape)}"
        )
