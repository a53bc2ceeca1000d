"""Temporal-difference targets."""

from __future__ import annotations

from numbers import Integral, Real

import torch
from torch import Tensor

from twohot.tensors import require_device, require_floating, require_tensor


def td_targets(
    r_t: Tensor,
    discount: float | Tensor,
    v_tp1: Tensor,
    terminated_t: Tensor,
    *,
    truncated_t: Tensor | None = None,
    mask: Tensor | None = None,
    n: int = 1,
) -> Tensor:
    """n-step targets of every step of a window, for all discounts at once.

    y_t = sum_{i < m} gamma^i r_{t+i} + gamma^m (1 - terminated_{t+m-1}) v_{t+m}

    The horizon m <= n ends with the first terminated or truncated step, with the last real step, and with the window;
    all but a terminated one bootstrap from the value after it (Sutton & Barto 2018, section 7.1, with the partial
    horizons that the end of a window leaves; Grigsby et al. 2024, section 3, for many discounts).

    Args:
        r_t: [..., L] rewards, already multiplied; floating point.
        discount: gamma in [0, 1]: a number, or [G] for G discounts.
        v_tp1: [..., L, G] value of the observation after step t, of the episode that step t belongs to; [..., L] where
            `discount` is a number. Floating point.
        terminated_t: [..., L] bool, True where the step ended the episode for good: there v_tp1 is not read.
        truncated_t: [..., L] bool, True where the step ended the episode for another reason; None for nowhere. It makes
            no difference where n is 1. A step that is both counts as terminated.
        mask: [..., L] bool, True where a step is real; None for everywhere. What other steps hold is not read, be it
            NaN.
        n: the longest horizon, at least 1; from L on, all targets reach as far as the window does.

    Returns:
        The shape of `v_tp1`, 0 where a step is not real; in the wider of the dtypes of `r_t` and `v_tp1`, float32 at
        least. Differentiable. Takes min(n, L) passes over tensors of this shape.

    Raises:
        ValueError: when a shape, dtype or device differs from these, n is below 1, or a discount that is a number is
            not in [0, 1].
    """
    _check(r_t, discount, v_tp1, terminated_t, truncated_t, mask, n)
    dtype = torch.promote_types(torch.promote_types(r_t.dtype, v_tp1.dtype), torch.float32)
    r_t, v_tp1 = r_t.to(dtype), v_tp1.to(dtype)
    no_bootstrap_t = terminated_t
    if mask is not None:
        no_bootstrap_t = no_bootstrap_t | ~mask
        r_t = r_t.masked_fill(~mask, 0)
    last_t = no_bootstrap_t if truncated_t is None else no_bootstrap_t | truncated_t
    if isinstance(discount, Tensor):
        discount = discount.to(dtype)
    over_discounts = (..., None) if v_tp1.dim() > r_t.dim() else (...,)

    time = r_t.dim() - 1
    r_t = r_t[over_discounts]
    # Filled before the product: a NaN must not reach the gradient of the discount either.
    bootstrap_tp1 = v_tp1.masked_fill(no_bootstrap_t[over_discounts], 0)
    y_t = r_t + discount * bootstrap_tp1
    if n > 1:
        last_t = last_t.clone()
        last_t[..., -1:] = True
        if mask is not None:
            last_t[..., :-1] |= ~mask[..., 1:]
        last_t = last_t[over_discounts]
    for _ in range(min(n, v_tp1.shape[time]) - 1):
        # y_t of horizon k + 1 is r_t and the discounted y_{t+1} of horizon k.
        y_t = r_t + discount * torch.where(last_t, bootstrap_tp1, y_t.roll(-1, time))
    return y_t


def _check(
    r_t: Tensor,
    discount: float | Tensor,
    v_tp1: Tensor,
    terminated_t: Tensor,
    truncated_t: Tensor | None,
    mask: Tensor | None,
    n: int,
) -> None:
    require_floating("td_targets", "r_t", r_t)
    require_floating("td_targets", "v_tp1", v_tp1)
    if not isinstance(discount, Tensor) and not (isinstance(discount, Real) and 0 <= discount <= 1):
        raise ValueError(f"td_targets: expected a discount in [0, 1], or a tensor of them, got {discount!r}")
    given = {"v_tp1": v_tp1, "terminated_t": terminated_t, "truncated_t": truncated_t, "mask": mask}
    given["discount"] = discount if isinstance(discount, Tensor) else None
    for name, tensor in given.items():
        if tensor is not None:
            require_tensor("td_targets", name, tensor)
            require_device("td_targets", name, tensor, "r_t", r_t)
    discounts = tuple(discount.shape) if isinstance(discount, Tensor) else ()
    if r_t.dim() == 0 or len(discounts) > 1:
        raise ValueError(
            f"td_targets: expected r_t [..., L] and a discount that is a number or [G], "
            f"got the shapes {tuple(r_t.shape)} and {discounts}"
        )
    if v_tp1.shape != r_t.shape + discounts:
        raise ValueError(
            f"td_targets: expected v_tp1 of shape {(*r_t.shape, *discounts)}, those of r_t and the discounts, "
            f"got {tuple(v_tp1.shape)}"
        )
    for name, tensor in (("terminated_t", terminated_t), ("truncated_t", truncated_t), ("mask", mask)):
        if tensor is not None and (tensor.dtype != torch.bool or tensor.shape != r_t.shape):
            raise ValueError(
                f"td_targets: expected a bool {name} of the shape of r_t {tuple(r_t.shape)}, "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"td_targets: expected an integer horizon n of at least 1, got {n!r}")
