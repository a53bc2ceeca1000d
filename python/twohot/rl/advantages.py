"""Filters of behaviour cloning: which stored actions the actor imitates."""

from __future__ import annotations

from torch import Tensor


def binary_filter(advantage: Tensor) -> Tensor:
    """1[A > 0], in the dtype of `advantage` (CRR, Wang et al. 2020; AMAGO-2)."""
    return (advantage > 0).to(advantage.dtype)


def filtered_behavior_cloning(log_prob: Tensor, weight: Tensor) -> Tensor:
    """- weight log pi(a_t): imitation of the actions that the filter approves.

    Args:
        log_prob: [...] log pi(a_t), differentiable. weight: [...] of the filter; no gradient flows into it.
    """
    return -weight.detach() * log_prob


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, L, ...] over the steps where mask [B, L] (bool) is True and over all trailing dimensions.

    0 when no step is real. Masked entries contribute exactly nothing, even NaN.
    """
    mask = mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))
    count = mask.sum() * (x.numel() // max(mask.numel(), 1))
    return x.masked_fill(~mask, 0).sum() / count.clamp(min=1)
