"""The value losses of a last linear layer, whose logits never exist as a whole."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from twohot.kernels.backend import autocast_dtype, choose_two_hot
from twohot.kernels.linear_two_hot import reference
from twohot.kernels.torch_private import functorch_transforms_active
from twohot.kernels.two_hot.reference import Labels
from twohot.losses.bins import ValueBins
from twohot.losses.functional import bin_expectation
from twohot.losses.rows import (
    Reduction,
    cross_entropy,
    reduce_rows,
    require_bins,
    require_rows,
    require_sigma,
    runs_in_one_pass,
    shared_targets,
)
from twohot.tensors import require_device, require_floating


@overload
def linear_two_hot_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[False] = False,
) -> Tensor: ...
@overload
def linear_two_hot_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def linear_two_hot_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
def linear_two_hot_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`two_hot_cross_entropy(hidden @ weight^T + bias, ...)` without ever holding the logits.

    Rows go through the last layer, the loss and back in tiles that stay in the cache (Liger-Kernel's fused linear
    cross-entropy, arXiv 2410.10989, does the like for tokens): three matrix products, as without it.

    Args:
        hidden: [..., E] for one head, [C, ..., E] for an ensemble of C heads.
        weight: [N, E], or [C, N, E].
        bias: [N], or [C, N]; None for none.
        target: broadcasts to the rows [...] or [C, ...]; one that the ensemble shares is not copied.
        row_weight: factor of each row, as `weight` of `two_hot_cross_entropy`.
        bins, mask, reduction, return_readout: as `two_hot_cross_entropy`.

    Returns:
        As `two_hot_cross_entropy`; gradients flow to hidden, weight and bias. Under autocast the products run in its
        dtype.

    Raises:
        ValueError: when a shape or a dtype does not fit.
    """
    name = "linear_two_hot_cross_entropy"
    require_bins(name, bins)
    labels = bins.two_hot_labels
    return _cross_entropy(
        name, hidden, weight, bias, target, bins, labels, 0.0, row_weight, mask, reduction, return_readout
    )


@overload
def linear_hl_gauss_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[False] = False,
) -> Tensor: ...
@overload
def linear_hl_gauss_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def linear_hl_gauss_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
def linear_hl_gauss_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    bins: ValueBins,
    sigma: float = 0.75,
    *,
    row_weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
    return_readout: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`hl_gauss_cross_entropy(hidden @ weight^T + bias, ...)`; arguments as `linear_two_hot_cross_entropy`."""
    name = "linear_hl_gauss_cross_entropy"
    require_sigma(name, sigma)
    labels: Labels = "hl_gauss"
    return _cross_entropy(
        name, hidden, weight, bias, target, bins, labels, sigma, row_weight, mask, reduction, return_readout
    )


def linear_bin_expectation(hidden: Tensor, weight: Tensor, bias: Tensor | None, bins: ValueBins) -> Tensor:
    """`bin_expectation(hidden @ weight^T + bias, bins)` for passes that need the value alone: logits are never kept.

    Where a gradient is wanted, the logits are kept after all.

    Args:
        hidden, weight, bias, bins: as `linear_two_hot_cross_entropy`.

    Returns:
        [...] or [C, ...] values in units of the return; float32, or float64 for float64 inputs.

    Raises:
        ValueError: when a shape or a dtype does not fit.
    """
    hidden, weight, bias = _layer("linear_bin_expectation", hidden, weight, bias, bins)
    rows = hidden.shape[:-1]
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    if wanted or choose_two_hot(hidden.device, hidden.dtype, bins.count).name == "reference":
        return bin_expectation(reference.linear(hidden, weight, bias), bins)
    from twohot.kernels.linear_two_hot.op import linear_expectation

    return linear_expectation(*_heads(hidden, weight, bias), *bins.support).reshape(rows)


def _cross_entropy(
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
    """As `rows.cross_entropy`, of the logits of a last layer."""
    hidden, weight, bias = _layer(name, hidden, weight, bias, bins)
    rows = hidden.shape[:-1]
    require_rows(name, "hidden", hidden, target, mask, row_weight, "row_weight", reduction)
    transformed = functorch_transforms_active()
    if transformed or choose_two_hot(hidden.device, hidden.dtype, bins.count).name == "reference":
        # One by one, as torch.func's transforms want to see them too. NaN in a row that does not count would spread.
        hidden = hidden if mask is None else torch.where(mask.expand(rows).unsqueeze(-1), hidden, 0)
        logits = reference.linear(hidden, weight, bias)
        return cross_entropy(name, logits, target, bins, labels, sigma, row_weight, mask, reduction, return_readout)
    from twohot.kernels.linear_two_hot import op

    layer = _heads(hidden, weight, bias)
    target_, mask_ = shared_targets(rows, target, mask)
    if not runs_in_one_pass(hidden, row_weight, reduction):
        loss, readout = op.linear_cross_entropy_rows(
            *layer, target_, mask_, *bins.support, labels, sigma, return_readout
        )
        readout = readout.reshape(rows) if return_readout else None
        return reduce_rows(loss.reshape(rows), readout, rows, row_weight, mask, reduction)
    row_weight = None if row_weight is None else row_weight.expand(rows).reshape(-1).to(torch.float32).contiguous()
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in layer]
    arguments = (reduction == "mean", *bins.support, labels, sigma, return_readout, wanted)
    loss, readout = op.linear_cross_entropy(*layer, target_, mask_, row_weight, *arguments)
    return (loss, readout.reshape(rows)) if return_readout else loss


def _layer(
    name: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, bins: ValueBins
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The checked last layer, in the dtype of autocast where that is on."""
    require_bins(name, bins)
    for other, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None or other != "bias":
            require_device(name, other, require_floating(name, other, tensor), "hidden", hidden)
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


def _heads(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden [C, M, E], weight [C, N, E], bias [C, N]: a single head is an ensemble of one."""
    if weight.dim() == 3:
        return hidden.reshape(hidden.shape[0], -1, hidden.shape[-1]), weight, bias
    hidden = hidden.reshape(1, -1, hidden.shape[-1])
    return hidden, weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0)
