"""Reinforcement learning mathematics as pure functions; names carry time: `r_t`, `q_tp1`.

Exploration, which needs gymnasium, is in `twohot.rl.exploration`.
"""

import twohot.kernels.needs_torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
from twohot.rl.advantages import (
    FILTERS,
    binary_filter,
    exponential_filter,
    filtered_behavior_cloning,
    leaky_ramp_filter,
    masked_mean,
    no_filter,
)
from twohot.rl.ensembles import subset_value
from twohot.rl.popart import PopArt, masked_moments, preserve_outputs, update_moments
from twohot.rl.returns import td_targets

__all__ = [
    "FILTERS",
    "PopArt",
    "binary_filter",
    "exponential_filter",
    "filtered_behavior_cloning",
    "leaky_ramp_filter",
    "masked_mean",
    "masked_moments",
    "no_filter",
    "preserve_outputs",
    "subset_value",
    "td_targets",
    "update_moments",
]
