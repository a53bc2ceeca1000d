"""Where targets lie among the bins, and their labels, in Triton; bins as in `blocks.py`."""

from __future__ import annotations

import triton
import triton.language as tl

from twohot.kernels.two_hot.arithmetic import inverse_slope, inverse_transform, is_nan, transform
from twohot.kernels.two_hot.blocks import bin_numbers


@triton.jit
def exact_value(b_bin, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM: tl.constexpr):
    """f^-1 of the center of a bin, with what rounding takes from the center added at the slope of f^-1."""
    b_number = 2.0 * b_bin - (N - 1.0)
    b_center = tl.fma(b_number, half_width, middle)
    b_apart = b_center - middle
    b_rest = tl.fma(b_number, half_width, -b_apart) - ((b_center - b_apart) - middle)
    b_rest += tl.fma(b_number, half_width_rest, middle_rest)
    return tl.fma(b_rest, inverse_slope(b_center, TRANSFORM), inverse_transform(b_center, TRANSFORM))


@triton.jit
def find_raw_position(
    b_y, b_near, b_rest, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM: tl.constexpr
):
    """Where targets lie among the values of the bins: the bin below, and the share of the bin above, 0 .. 1.

    Near and rest are the position in transformed space, which is between the same bins or at their border.
    """
    b_lower = tl.minimum(b_near - tl.where(b_rest < 0.0, 1.0, 0.0), N - 2.0)
    b_below = exact_value(b_lower, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM)
    b_above = exact_value(b_lower + 1.0, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM)
    b_share = (b_y - b_below) / tl.maximum(b_above - b_below, 1.1754944e-38)
    return b_lower, tl.minimum(tl.maximum(b_share, 0.0), 1.0)


@triton.jit
def find_position(
    b_y,
    middle,
    middle_rest,
    half_width,
    half_width_rest,
    per_width,
    N,
    TRANSFORM: tl.constexpr,
    LABELS: tl.constexpr,
):
    """Where targets lie among the bins: the nearest bin, and the distance from it in bin widths, -1/2 .. 1/2.

    For "two_hot_raw" as in `find_raw_position`.

    Two numbers, because one would lose the digits that its whole bins take. Targets beyond the ends, infinite ones
    included, lie on the end bin; NaN lies somewhere.
    """
    b_y = tl.where(is_nan(b_y), 0.0, tl.minimum(tl.maximum(b_y, -3.4028234e38), 3.4028234e38))
    b_x = transform(b_y, TRANSFORM) - middle - middle_rest
    b_near = tl.minimum(tl.maximum(tl.floor(b_x * per_width + 0.5 * N), 0.0), N - 1.0)
    b_center = 2.0 * b_near - (N - 1.0)
    b_rest = tl.fma(b_center, -half_width_rest, tl.fma(b_center, -half_width, b_x)) * per_width
    b_rest = tl.where(b_near == 0.0, tl.maximum(b_rest, 0.0), b_rest)
    b_rest = tl.where(b_near == N - 1.0, tl.minimum(b_rest, 0.0), b_rest)
    if LABELS == "two_hot_raw":
        b_near, b_rest = find_raw_position(
            b_y, b_near, b_rest, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM
        )
    return b_near, b_rest


@triton.jit
def find_window(b_near, b_rest, N: tl.constexpr, WINDOWS: tl.constexpr, BLOCK_W: tl.constexpr):
    """The WINDOWS * BW bins around targets at near + rest, shifted so that they exist: [WINDOWS, BR, BW]."""
    WIDTH: tl.constexpr = WINDOWS * BLOCK_W
    b_start = b_near - tl.where(b_rest < 0.0, 1.0, 0.0) - (WIDTH // 2 - 1)
    b_start = tl.minimum(tl.maximum(b_start, 0.0), N - WIDTH if N > WIDTH else 0.0)
    return bin_numbers(WINDOWS, BLOCK_W) + b_start.to(tl.int32)


@triton.jit
def label_bins(o_bins, b_near, b_rest, per_sigma, N, LABELS: tl.constexpr):
    """Labels of bins [WINDOWS, BR, BW] for targets at near + rest.

    Two-hot, raw or not: max(0, 1 - |k - x|) (Hafner et al. 2023, arXiv 2301.04104). HL-Gauss: the mass of a normal
    distribution around x between the edges k - 1/2 and k + 1/2, over that between the outer edges -1/2 and N - 1/2
    (Farebrother et al. 2024, arXiv 2403.03950).
    """
    b_distance = (o_bins - b_near) - b_rest
    if LABELS != "hl_gauss":
        b_label = tl.maximum(1.0 - tl.abs(b_distance), 0.0)
    else:
        b_label = tl.erf((b_distance + 0.5) * per_sigma) - tl.erf((b_distance - 0.5) * per_sigma)
        b_mass = tl.erf((N - 0.5 - b_near - b_rest) * per_sigma) - tl.erf((-0.5 - b_near - b_rest) * per_sigma)
        b_label = b_label / b_mass
    return b_label
