"""Value classification losses: two-hot and HL-Gauss labels over (symlog) bins, their cross-entropy and their readout.

Stand-alone: needs torch and no other part of the package. Shapes use one alphabet: `N` bins, `E` hidden width, `C`
heads of an ensemble, `...` any leading dimensions.

    bins = ValueBins.amago2(count=128)
    loss = two_hot_cross_entropy(logits, returns, bins)      # logits [..., N], returns [...]
    value = bin_expectation(logits, bins)                    # [...]

On a CPU the forward pass also computes the gradient, so `backward` is free unless the loss is rescaled, which costs one
more pass over the gradient; a coefficient given as `weight` costs nothing.
"""

import twohot.kernels.needs_torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
from twohot.kernels.two_hot.reference import symexp, symlog
from twohot.losses.bins import BinsError, Readout, Transform, ValueBins
from twohot.losses.functional import (
    BinExpectation,
    HLGaussCrossEntropy,
    TwoHotCrossEntropy,
    bin_expectation,
    hl_gauss,
    hl_gauss_cross_entropy,
    release_memory,
    two_hot,
    two_hot_cross_entropy,
)
from twohot.losses.linear import (
    linear_bin_expectation,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
)
from twohot.losses.rows import Reduction, set_checks
from twohot.rl.advantages import filtered_behavior_cloning
from twohot.rl.popart import PopArt
from twohot.rl.returns import td_targets

__all__ = [
    "BinExpectation",
    "BinsError",
    "HLGaussCrossEntropy",
    "PopArt",
    "Readout",
    "Reduction",
    "Transform",
    "TwoHotCrossEntropy",
    "ValueBins",
    "bin_expectation",
    "filtered_behavior_cloning",
    "hl_gauss",
    "hl_gauss_cross_entropy",
    "linear_bin_expectation",
    "linear_hl_gauss_cross_entropy",
    "linear_two_hot_cross_entropy",
    "release_memory",
    "set_checks",
    "symexp",
    "symlog",
    "td_targets",
    "two_hot",
    "two_hot_cross_entropy",
]
