"""From the arguments of the value losses to rows: checks, shapes, and which implementation runs.

The public functions are in `twohot.losses`.
"""

from __future__ import annotations

import os
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from twohot.kernels.backend import autocast_dtype, choose_two_hot, is_eager_tensor
from twohot.kernels.torch_private import functorch_transforms_active
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
    _require_rows(name, "logits", logits, target, mask, weight, "weight", reduction)
    if choose_two_hot(logits.device, logits.dtype, bins.count).name == "reference":
        loss, readout = _plain_rows(logits, target, bins, labels, sigma, mask, return_readout)
        return _reduced(loss, readout, rows, weight, mask, reduction, return_readout)
    from twohot.kernels.two_hot import op

    flat = logits.contiguous() if logits.dim() == 2 else logits.reshape(-1, bins.count).contiguous()
    target_, mask_ = _shared(rows, target, mask)
    one_pass = _one_pass(logits, weight, reduction)
    if one_pass and is_eager_tensor(logits):
        weight_ = None if weight is None else weight.expand(rows).reshape(-1).to(torch.float32).contiguous()
        gradient = torch.is_grad_enabled() and logits.requires_grad
        arguments = (reduction == "mean", *bins.support, labels.value, sigma, return_readout, gradient)
        loss, readout = op.cross_entropy(flat, target_, mask_, weight_, *arguments)
        return (loss, readout.reshape(rows)) if return_readout else loss
    loss, readout = op.cross_entropy_rows(flat, target_, mask_, *bins.support, labels.value, sigma, return_readout)
    readout = readout.reshape(rows) if return_readout else None
    return _reduced(loss.reshape(rows), readout, rows, weight, mask, reduction, return_readout)


def linear_cross_entropy(
    name: str,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    labels: Labels,
    sigma: float,
    row_weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """As `cross_entropy`, of the logits of a last layer."""
    hidden, weight, bias = layer_of(name, hidden, weight, bias, bins)
    rows = hidden.shape[:-1]
    _require_rows(name, "hidden", hidden, target, mask, row_weight, "row_weight", reduction)
    transformed = functorch_transforms_active()
    if transformed or choose_two_hot(hidden.device, hidden.dtype, bins.count).name == "reference":
        # One by one, as torch.func's transforms want to see them too. NaN in a row that does not count would spread.
        hidden = hidden if mask is None else torch.where(mask.expand(rows).unsqueeze(-1), hidden, 0)
        logits = plain_linear(hidden, weight, bias)
        return cross_entropy(name, logits, target, bins, labels, sigma, row_weight, mask, reduction, return_readout)
    from twohot.kernels.linear_two_hot import op

    layer = heads_of(hidden, weight, bias)
    target_, mask_ = _shared(rows, target, mask)
    if not _one_pass(hidden, row_weight, reduction):
        loss, readout = op.linear_cross_entropy_rows(
            *layer, target_, mask_, *bins.support, labels.value, sigma, return_readout
        )
        readout = readout.reshape(rows) if return_readout else None
        return _reduced(loss.reshape(rows), readout, rows, row_weight, mask, reduction, return_readout)
    row_weight = None if row_weight is None else row_weight.expand(rows).reshape(-1).to(torch.float32).contiguous()
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in layer]
    arguments = (reduction == "mean", *bins.support, labels.value, sigma, return_readout, wanted)
    loss, readout = op.linear_cross_entropy(*layer, target_, mask_, row_weight, *arguments)
    return (loss, readout.reshape(rows)) if return_readout else loss


def _one_pass(logits: Tensor, weight: Tensor | None, reduction: Reduction) -> bool:
    """Whether the gradient may be found before its upstream factor is known.

    Not in float16: divided by the number of rows it vanishes, and a loss scale that comes later does not bring it back.
    """
    half = logits.dtype == torch.float16 and torch.is_grad_enabled()
    return reduction != "none" and not half and not (weight is not None and weight.requires_grad)


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
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits, target = logits.to(wide), target.detach().to(wide)
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
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return reference.bin_expectation(wide, *bins.transformed_ends, bins.transform, bins.readout)


def plain_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden @ weight^T + bias, for one head or an ensemble."""
    if weight.dim() == 2:
        return nn.functional.linear(hidden, weight, bias)
    logits = torch.bmm(hidden.reshape(hidden.shape[0], -1, hidden.shape[-1]), weight.transpose(1, 2))
    if bias is not None:
        logits = logits + bias.unsqueeze(1)
    return logits.reshape(*hidden.shape[:-1], weight.shape[1])


def _reduced(
    loss: Tensor,
    readout: Tensor | None,
    rows: torch.Size,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: Reduction,
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """Weights, masks and the reduction over losses of rows that are 0 where masked."""
    if weight is not None:
        loss = loss * (weight if mask is None else torch.where(mask, weight, 0)).to(loss.dtype)
    if reduction != "none":
        if reduction == "mean":
            count = max(loss.numel(), 1) if mask is None else mask.expand(rows).sum().clamp(min=1)
            loss = loss.sum() / count
        else:
            loss = loss.sum()
    return (loss, readout) if return_readout else loss


def _shared(rows: torch.Size, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
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


def layer_of(
    name: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, bins: ValueBins
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The checked last layer, in the dtype of autocast where that is on."""
    require_bins(name, bins)
    for other, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None or other != "bias":
            require_floating(name, other, tensor)
            require_device(name, other, tensor, "hidden", hidden)
    ensemble = weight.dim() == 3
    if weight.dim() not in (2, 3) or (ensemble and hidden.dim() < 2) or hidden.dim() < 1:
        raise ValueError(
            f"{name}: expected hidden [..., E] with weight [N, E], or hidden [C, ..., E] with weight [C, N, E], got "
            f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    heads = (hidden.shape[0],) if ensemble else ()
    if weight.shape != (*heads, bins.count, hidden.shape[-1]):
        raise ValueError(
            f"{name}: expected a weight {(*heads, bins.count, hidden.shape[-1])} for hidden {tuple(hidden.shape)} and "
            f"{bins.count} bins, got {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ValueError(f"{name}: expected a bias {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}")
    dtype = autocast_dtype(hidden.device)
    if dtype is not None and hidden.dtype != torch.float64:
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    for other, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != hidden.dtype:
            raise ValueError(f"{name}: expected a {other} of {hidden.dtype}, as hidden is, got {tensor.dtype}")
    return hidden, weight, bias


def heads_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden [C, M, E], weight [C, N, E], bias [C, N]: a single head is an ensemble of one."""
    if weight.dim() == 3:
        return hidden.reshape(hidden.shape[0], -1, hidden.shape[-1]), weight, bias
    hidden = hidden.reshape(1, -1, hidden.shape[-1])
    return hidden, weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0)


def require_logits(name: str, logits: Tensor, bins: ValueBins) -> None:
    """Raise TypeError or ValueError unless logits are [..., N] of these bins."""
    require_bins(name, bins)
    require_floating(name, "logits", logits)
    if logits.dim() == 0 or logits.shape[-1] != bins.count:
        shape = tuple(logits.shape)
        raise ValueError(f"{name}: expected logits with {bins.count} bins in the last dimension, got shape {shape}")


def _require_rows(
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
            first = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(f"{name}: the target holds {int(wrong.sum())} NaN, the first at {first}")


def require_bins(name: str, bins: ValueBins) -> None:
    """Raise TypeError unless `bins` is a support."""
    if not isinstance(bins, ValueBins):
        raise TypeError(f"{name}: expected bins as a ValueBins, such as ValueBins.amago2(), got {bins!r}")


def require_sigma(name: str, sigma: float) -> None:
    """Raise ValueError unless sigma can be a standard deviation, in float32 too."""
    least, most = SIGMAS
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not least <= sigma <= most:
        raise ValueError(f"{name}: expected sigma > 0, in bin widths, got {sigma!r}; labels need {least} to {most}")


def _require_broadcast(name: str, other: str, tensor: Tensor, rows: torch.Size) -> None:
    try:
        fits = torch.broadcast_shapes(tensor.shape, rows) == rows
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: expected a {other} whose shape broadcasts to the rows {tuple(rows)}, got {tuple(tensor.shape)}"
        )
