"""Filtered behaviour cloning: imitation of the stored actions, weighted by what the critic thinks of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twohot._moved import renamed_arguments
from twohot.tensors import require_device, require_floating, require_tensor


def binary_filter(advantage: Tensor) -> Tensor:
    """f(A) = 1[A > 0], in the dtype of `advantage`; 0 where that is NaN (CRR, Wang et al. 2020; AMAGO-2)."""
    return (advantage > 0).to(advantage.dtype)


def exponential_filter(advantage: Tensor, beta: float = 1.0, maximum: float | None = 20.0) -> Tensor:
    """f(A) = min(exp(beta A), maximum) (AWAC, Nair et al. 2020; the exponential form of CRR, clipped at 20).

    Args:
        advantage: [...] in units of the return.
        beta: per unit of the advantage, at least 0. Some papers name its inverse.
        maximum: the largest weight; None for no bound.

    Raises:
        ValueError: when `beta` is below 0, or `maximum` is not positive.
    """
    if not beta >= 0 or not (maximum is None or maximum > 0):
        raise ValueError(f"exponential_filter: expected beta >= 0 and maximum > 0, got {beta!r} and {maximum!r}")
    weight = (beta * advantage).exp()
    return weight if maximum is None else weight.clamp(max=maximum)


def leaky_ramp_filter(
    advantage: Tensor,
    width: float = 2.0,
    hinge: float = 0.01,
    leak: float = 0.05,
    at_zero: float = 0.01,
    minimum: float = 0.0,
    maximum: float = 10.0,
    add_binary: bool = False,
) -> Tensor:
    """A weight that grows with the advantage: steeply above the hinge, slowly below it.

    f(A) = clip(at_zero + (leak min(A, hinge) + max(A - hinge, 0)) / width, minimum, maximum), after the leaky filter of
    the official AMAGO code, whose constants these are, but for its minimum of 1e-7: with 0, an action far below the
    policy's own is dropped altogether. With `add_binary`, as there, 1[A > 0] is added.

    Args:
        advantage: [...] in units of the return.
        width: growth of the advantage above the hinge that adds 1 to the weight, positive.
        hinge: the advantage where the slope changes.
        leak: slope below the hinge over that above it.
        at_zero: the weight of the advantage 0 (where hinge >= 0).
        minimum, maximum: bounds of the weight. A negative minimum would push actions away without limit.
        add_binary: add 1 where the advantage is positive.

    Raises:
        ValueError: when `width` is not positive, or `minimum` is above `maximum`.
    """
    if not width > 0 or not minimum <= maximum:
        raise ValueError(
            f"leaky_ramp_filter: expected width > 0 and minimum <= maximum, got {width!r}, {minimum!r} and {maximum!r}"
        )
    below, above = advantage.clamp(max=hinge), (advantage - hinge).clamp(min=0)
    weight = (at_zero + (leak * below + above) / width).clamp(minimum, maximum)
    return weight + binary_filter(advantage) if add_binary else weight


def no_filter(advantage: Tensor) -> Tensor:
    """f(A) = 1: plain imitation, whatever `advantage` holds."""
    return torch.ones_like(advantage)


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "binary": binary_filter,
    "exponential": exponential_filter,
    "leaky_ramp": leaky_ramp_filter,
    "none": no_filter,
}
"""The filters that `filtered_behavior_cloning` knows by name, each with its default constants."""


@renamed_arguments(filter="advantage_filter")
def filtered_behavior_cloning(
    log_prob: Tensor,
    advantage: Tensor,
    advantage_filter: str | Callable[[Tensor], Tensor] = "binary",
    mask: Tensor | None = None,
) -> Tensor:
    """- mean of f(A_t) log pi(a_t): imitation of the actions that the filter f accepts.

    Critic-regularised regression (Wang et al. 2020, arXiv 2006.15134); with the binary filter, the actor's loss of
    AMAGO-2 (Grigsby et al. 2024). No gradient flows into the advantage.

    Args:
        log_prob: [...] log pi(a_t), floating point.
        advantage: [...] A_t, of the same shape; any unit that the filter expects.
        advantage_filter: "binary", "exponential", "leaky_ramp" or "none", or a function from advantages to weights of
            the same shape: `functools.partial(exponential_filter, beta=3.0)` sets a constant.
        mask: bool, True where a step counts; over the leading dimensions of `log_prob`, [B, L] for [B, L, G]. A masked
            entry contributes exactly nothing, even where it holds NaN.

    Returns:
        A scalar in the dtype of `log_prob`, float32 at least: the mean over the steps that count and over all further
        dimensions, rejected actions included; 0 when no step counts. An action of weight 0 contributes exactly 0 to the
        loss and its gradient, even where its log_prob is -inf.

    Raises:
        ValueError: when a shape, a dtype or a device is wrong, or the filter has no such name.
    """
    name = "filtered_behavior_cloning"
    if isinstance(advantage_filter, str):
        advantage_filter = FILTERS.get(advantage_filter, advantage_filter)
    if not callable(advantage_filter):
        raise ValueError(f"{name}: expected a filter among {sorted(FILTERS)} or a function, got {advantage_filter!r}")
    require_floating(name, "log_prob", log_prob)
    require_floating(name, "advantage", advantage)
    require_device(name, "advantage", advantage, "log_prob", log_prob)
    if advantage.shape != log_prob.shape:
        raise ValueError(
            f"filtered_behavior_cloning: expected an advantage of the shape of log_prob {tuple(log_prob.shape)}, "
            f"got {tuple(advantage.shape)}"
        )
    if mask is None:
        mask = torch.ones((), dtype=torch.bool, device=log_prob.device)
    require_tensor(name, "mask", mask)
    require_device(name, "mask", mask, "log_prob", log_prob)
    if mask.dtype != torch.bool or mask.shape != log_prob.shape[: mask.dim()]:
        raise ValueError(
            f"filtered_behavior_cloning: expected a bool mask over the leading dimensions of log_prob "
            f"{tuple(log_prob.shape)}, got {mask.dtype} {tuple(mask.shape)}"
        )
    dtype = torch.promote_types(log_prob.dtype, torch.float32)
    with torch.no_grad():
        weight = advantage_filter(advantage.to(torch.promote_types(advantage.dtype, torch.float32)))
        require_tensor(name, "the filter's weights", weight)
        require_device(name, "the filter's weights", weight, "log_prob", log_prob)
        if weight.shape != log_prob.shape:
            raise ValueError(
                f"filtered_behavior_cloning: expected weights of the shape of log_prob {tuple(log_prob.shape)} "
                f"from the filter, got {tuple(weight.shape)}"
            )
        weight = weight.to(dtype).masked_fill(~_to_dimensions(mask, weight.dim()), 0)
    # Chosen, not multiplied: 0 x -inf would be NaN.
    return masked_mean(torch.where(weight != 0, -weight * log_prob.to(dtype), 0), mask)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, L, ...] over the steps where mask [B, L] (bool) is True and over all trailing dimensions.

    0 when no step is real. Masked entries contribute exactly nothing, even NaN.
    """
    count = mask.sum() * (x.numel() // max(mask.numel(), 1))
    return x.masked_fill(~_to_dimensions(mask, x.dim()), 0).sum() / count.clamp(min=1)


def _to_dimensions(mask: Tensor, dimensions: int) -> Tensor:
    """`mask` with ones after its shape, so that it broadcasts over trailing dimensions."""
    return mask.reshape(mask.shape + (1,) * (dimensions - mask.dim()))
