"""Temporal-difference targets."""

from __future__ import annotations

from torch import Tensor


def td_target(r_t: Tensor, terminated_t: Tensor, discount: Tensor, v_tp1: Tensor) -> Tensor:
    """y_t = r_t + gamma (1 - terminated_t) v_{t+1}, for all discounts at once (Grigsby et al. 2024, section 3).

    Truncation is no argument: a truncated step bootstraps like any other.

    Args:
        r_t: [...] rewards, already multiplied.
        terminated_t: [...] bool, True where the step ended the episode for good.
        discount: [G] in [0, 1).
        v_tp1: [..., G] value of the next step.

    Returns:
        [..., G]. Where `terminated_t`, exactly `r_t`, whatever `v_tp1` holds.
    """
    bootstrap = (discount * v_tp1).masked_fill(terminated_t.unsqueeze(-1), 0.0)
    return r_t.unsqueeze(-1) + bootstrap
