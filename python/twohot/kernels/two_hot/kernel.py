"""Triton kernels of the value-classification losses, for NVIDIA and AMD, and their launchers.

`R` rows of `N` logits belong to `T` targets, row r to r % T. A program holds whole rows in registers: their logits come
from memory once and their gradient goes there once; what is read again comes from the first-level cache.

Blocks have three dimensions, [CHUNKS, BR, BC]: bin chunk * BC + column. The last dimension is spread over the few
threads that share a row and the first stays within a thread, so that the arithmetic that a row needs once (its
transforms, its logarithm) is repeated by few threads and reductions take few exchanges.

Bin k lies at middle + (2 k - (N - 1)) half_width in transformed space: for low == -high the middle is 0 and the centers
are antisymmetric to the last bit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from twohot.kernels.triton_device import launch, wave_size

WARPS = 4
ELEMENTS_PER_THREAD = 32
ROWS_PER_THREAD = 2


@triton.jit
def row_sum(b_x):
    """Sums of a block [CHUNKS, BR, BC] over its bins: [1, BR, 1]."""
    return tl.sum(tl.sum(b_x, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def row_max(b_x):
    """Maxima of a block [CHUNKS, BR, BC] over its bins: [1, BR, 1]."""
    return tl.max(tl.max(b_x, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def exponential(b_x):
    """exp(x) = 2^(x log2 e) for x <= 0; what is below the smallest normal number may become 0."""
    return tl.exp2(b_x * 1.4426950408889634)


@triton.jit
def is_nan(b_x):
    """Whether x is NaN, the one number that differs from itself."""
    return b_x != b_x  # noqa: PLR0124


@triton.jit
def log1p(b_x):
    """log(1 + x) = log(u) + c / u for x >= 0, with u = fl(1 + x) and the rounding error c = 1 + x - u, exact itself."""
    b_u = b_x + 1.0
    b_c = tl.where(b_x < 1.0, b_x - (b_u - 1.0), 1.0 - (b_u - b_x))
    return tl.log(b_u) + b_c / b_u


@triton.jit
def expm1(b_x):
    """exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1) for x >= 0, with x = n log 2 + r and |r| <= log(2) / 2.

    exp(r) - 1 is its Taylor polynomial, whose remainder is below 2^-24 r. Half of the result is built first, so that
    2^n stays finite up to the largest float.
    """
    b_n = tl.floor(tl.where(b_x < 89.0, b_x, 89.0) * 1.4426950408889634 + 0.5)
    b_r = tl.fma(b_n, -0.693145751953125, b_x)
    b_r = tl.fma(b_n, -1.42860677e-06, b_r)
    b_p = tl.fma(b_r, 1 / 5040, 1 / 720)
    b_p = tl.fma(b_r, b_p, 1 / 120)
    b_p = tl.fma(b_r, b_p, 1 / 24)
    b_p = tl.fma(b_r, b_p, 1 / 6)
    b_p = tl.fma(b_r, b_p, 0.5)
    b_p = tl.fma(b_r * b_r, b_p, b_r)
    b_half = ((b_n.to(tl.int32) + 126) << 23).to(tl.float32, bitcast=True)
    return 2.0 * tl.fma(b_half, b_p, b_half - 0.5)


@triton.jit
def transform(b_y, TRANSFORM: tl.constexpr):
    """f(y): symlog, sign(y) (sqrt(|y| + 1) - 1) + 0.001 y, or y; sqrt(a + 1) - 1 = a / (sqrt(a + 1) + 1)."""
    b_size = tl.abs(b_y)
    if TRANSFORM == "symlog":
        b_x = log1p(b_size)
    elif TRANSFORM == "signed_sqrt":
        b_x = b_size / (tl.sqrt(b_size + 1.0) + 1.0) + 1e-3 * b_size
    else:
        b_x = b_size
    return tl.where(b_y < 0.0, -b_x, b_x)


@triton.jit
def inverse_transform(b_x, TRANSFORM: tl.constexpr):
    """f^-1(x): symexp, the inverse of the signed square root, or x.

    For the signed square root let e = 0.001, s = sqrt(1 + 4 e (|x| + 1 + e)) and d = 2 |x| / (s + 1 + 2 e). Then
    sqrt(|y| + 1) = 1 + d and |y| = d (d + 2), where nothing cancels.
    """
    b_size = tl.abs(b_x)
    if TRANSFORM == "symlog":
        b_y = expm1(b_size)
    elif TRANSFORM == "signed_sqrt":
        b_d = 2.0 * b_size / (tl.sqrt(4e-3 * b_size + 1.004004) + 1.002)
        b_y = b_d * (b_d + 2.0)
    else:
        b_y = b_size
    return tl.where(b_x < 0.0, -b_y, b_y)


@triton.jit
def inverse_slope(b_x, TRANSFORM: tl.constexpr):
    """d f^-1(x) / dx: exp(|x|); 2 (1 + d) / s in the names of `inverse_transform`; or 1."""
    b_size = tl.abs(b_x)
    if TRANSFORM == "symlog":
        b_slope = expm1(b_size) + 1.0
    elif TRANSFORM == "signed_sqrt":
        b_s = tl.sqrt(4e-3 * b_size + 1.004004)
        b_slope = (2.0 + 4.0 * b_size / (b_s + 1.002)) / b_s
    else:
        b_slope = tl.full(b_x.shape, 1.0, tl.float32)
    return b_slope


@triton.jit
def bin_numbers(CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Bins 0 .. CHUNKS BC - 1 as a block [CHUNKS, 1, BC]."""
    return tl.arange(0, CHUNKS)[:, None, None] * BLOCK_C + tl.arange(0, BLOCK_C)[None, None, :]


@triton.jit
def program_rows(R, BLOCK_R: tl.constexpr):
    """The first row of this program, its rows counted from there [1, BR, 1], and which of them exist."""
    i_first = tl.program_id(0).to(tl.int64) * BLOCK_R
    o_row = tl.arange(0, BLOCK_R)[None, :, None]
    return i_first, o_row, o_row < tl.minimum(R - i_first, BLOCK_R).to(tl.int32)


@triton.jit
def load_bins(p_rows, o_rows, o_bins, m_rows, m_bins):
    """float32 [CHUNKS, BR, BC] logits: -inf where there is no such bin, 0 in a row that is not read."""
    b_z = tl.load(p_rows + (o_rows + o_bins), mask=m_rows & m_bins, other=0.0).to(tl.float32)
    return tl.where(m_bins, b_z, float("-inf"))


@triton.jit
def load_mirrored(p_rows, o_rows, m_rows, N, CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The lower half of the bins [CHUNKS, 1, BC], their logits and those of bins N - 1 - k [CHUNKS, BR, BC].

    The middle bin of an odd number is its own mirror image.
    """
    o_half = bin_numbers(CHUNKS, BLOCK_C)
    m_half = o_half < (N + 1) // 2
    b_lower = load_bins(p_rows, o_rows, o_half, m_rows, m_half)
    b_upper = load_bins(p_rows, o_rows, N - 1 - o_half, m_rows, m_half)
    return o_half, b_lower, b_upper


@triton.jit
def bin_values(
    o_bins, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM: tl.constexpr, READOUT: tl.constexpr
):
    """What a readout averages, [CHUNKS, 1, BC]: f^-1(center) for "raw", else the center in half widths."""
    b_value = (2 * o_bins - (N - 1)).to(tl.float32)
    if READOUT == "raw":
        b_value = tl.fma(b_value, half_width, tl.fma(b_value, half_width_rest, middle_rest)) + middle
        b_value = inverse_transform(b_value, TRANSFORM)
    return b_value


@triton.jit
def finish_readout(b_mean, half_width, middle, TRANSFORM: tl.constexpr, READOUT: tl.constexpr):
    """The readout whose average of `bin_values` is given, in units of the return."""
    b_readout = b_mean
    if READOUT == "transformed":
        b_readout = inverse_transform(tl.fma(b_mean, half_width, middle), TRANSFORM)
    return b_readout


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
    LABEL: tl.constexpr,
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
    if LABEL == "two_hot_raw":
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
def label_bins(o_bins, b_near, b_rest, per_sigma, N, LABEL: tl.constexpr):
    """Labels of bins [WINDOWS, BR, BW] for targets at near + rest.

    Two-hot, raw or not: max(0, 1 - |k - x|) (Hafner et al. 2023, arXiv 2301.04104). HL-Gauss: the mass of a normal
    distribution around x between the edges k - 1/2 and k + 1/2, over that between the outer edges -1/2 and N - 1/2
    (Farebrother et al. 2024, arXiv 2403.03950).
    """
    b_distance = (o_bins - b_near) - b_rest
    if LABEL != "hl_gauss":
        b_label = tl.maximum(1.0 - tl.abs(b_distance), 0.0)
    else:
        b_label = tl.erf((b_distance + 0.5) * per_sigma) - tl.erf((b_distance - 0.5) * per_sigma)
        b_mass = tl.erf((N - 0.5 - b_near - b_rest) * per_sigma) - tl.erf((-0.5 - b_near - b_rest) * per_sigma)
        b_label = b_label / b_mass
    return b_label


@triton.jit(do_not_specialize=["R", "T"])
def cross_entropy_kernel(
    p_logits,
    p_target,
    p_mask,
    p_weight,
    p_scale,
    p_loss,
    p_readout,
    p_gradient,
    R,
    T,
    middle,
    middle_rest,
    half_width,
    half_width_rest,
    per_width,
    per_sigma,
    N: tl.constexpr,
    SHARED: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    TRANSFORM: tl.constexpr,
    LABEL: tl.constexpr,
    READOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    HALF_CHUNKS: tl.constexpr,
    BLOCK_W: tl.constexpr,
    WINDOWS: tl.constexpr,
):
    """loss = w (log sum_k exp(z_k) - sum_k l_k z_k), gradient = scale w (softmax(z) - l), and the readout of z.

    Labels l as in `label_bins`, the readout as in `expectation_kernel`. Labels are 0 but for WINDOWS * BW bins around
    the target, so only these are computed.
    """
    i_first, o_row, m_row = program_rows(R, BLOCK_R)
    o_target = i_first + o_row
    if SHARED:
        i_target = i_first % T
        o_target = i_target + tl.where(o_row < tl.minimum(T - i_target, BLOCK_R).to(tl.int32), o_row, o_row - T)
    m_counts = m_row
    if p_mask is not None:
        m_counts = tl.load(p_mask + o_target, mask=m_row, other=0) != 0
    b_y = tl.load(p_target + o_target, mask=m_counts, other=0.0)  # [1, BR, 1]
    b_factor = tl.where(is_nan(b_y), float("nan"), 1.0)
    if p_weight is not None:
        b_factor *= tl.load(p_weight + i_first + o_row, mask=m_counts, other=0.0)

    p_logits += i_first * N
    o_rows = o_row * N
    o_bins = bin_numbers(CHUNKS, BLOCK_C)  # [CHUNKS, 1, BC]
    b_z = load_bins(p_logits, o_rows, o_bins, m_counts, o_bins < N)  # [CHUNKS, BR, BC]
    b_top = row_max(b_z)
    b_e = exponential(b_z - b_top)
    b_total = row_sum(b_e)

    b_near, b_rest = find_position(
        b_y, middle, middle_rest, half_width, half_width_rest, per_width, N, TRANSFORM, LABEL
    )
    o_window = find_window(b_near, b_rest, N, WINDOWS, BLOCK_W)  # [WINDOWS, BR, BW]
    m_window = m_counts & (o_window < N)
    b_label = label_bins(o_window, b_near, b_rest, per_sigma, N, LABEL)
    b_w = tl.load(p_logits + (o_rows + o_window), mask=m_window, other=0.0).to(tl.float32) - b_top

    if p_loss is not None:
        b_picked = row_sum(tl.where((b_label > 0.0) & m_window, b_label * b_w, 0.0))
        b_loss = b_factor * (tl.log(b_total) - b_picked)
        tl.store(p_loss + i_first + o_row, tl.where(m_counts, b_loss, 0.0), mask=m_row)

    if p_readout is not None:
        o_value = o_bins
        b_q = b_e
        if SYMMETRIC:
            o_value, b_lower, b_upper = load_mirrored(p_logits, o_rows, m_counts, N, HALF_CHUNKS, BLOCK_C)
            b_q = exponential(b_lower - b_top) - exponential(b_upper - b_top)
        b_value = bin_values(o_value, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT)
        b_mean = row_sum(b_q * b_value) / b_total  # pyright: ignore[reportOperatorIssue]  # typed as if of many
        b_readout = finish_readout(b_mean, half_width, middle, TRANSFORM, READOUT)
        tl.store(p_readout + i_first + o_row, tl.where(m_counts, b_readout, 0.0), mask=m_row)

    if p_gradient is not None:
        p_gradient += i_first * N
        if p_scale is not None:
            b_factor *= tl.load(p_scale)
        b_per_total = 1.0 / b_total  # pyright: ignore[reportOperatorIssue]  # typed as if of many
        b_g = b_e * tl.where(m_counts, b_per_total * b_factor, 0.0)
        tl.debug_barrier()  # the gradient may be written over the logits: every thread has read what it needs
        tl.store(p_gradient + (o_rows + o_bins), b_g.to(p_gradient.dtype.element_ty), mask=m_row & (o_bins < N))
        tl.debug_barrier()  # the window's gradient goes over what was just written, by other threads
        b_g = (exponential(b_w) * b_per_total - b_label) * b_factor
        tl.store(p_gradient + (o_rows + o_window), b_g.to(p_gradient.dtype.element_ty), mask=m_window)


@triton.jit(do_not_specialize=["R"])
def expectation_kernel(
    p_logits,
    p_readout,
    p_grad_output,
    p_gradient,
    R,
    middle,
    middle_rest,
    half_width,
    half_width_rest,
    N: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    TRANSFORM: tl.constexpr,
    READOUT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    HALF_CHUNKS: tl.constexpr,
):
    """readout = f^-1(m), m = sum_k p_k b_k, or sum_k p_k f^-1(b_k); gradient_k = u p_k (b_k - m) df^-1(m)/dm, or u p_k
    (f^-1(b_k) - readout), for p = softmax(z), centers b and output gradients u (from the definitions).

    On a symmetric support mirrored bins are subtracted before they are summed: a symmetric distribution reads as 0.
    """
    i_first, o_row, m_row = program_rows(R, BLOCK_R)
    p_logits += i_first * N
    o_rows = o_row * N
    o_bins = bin_numbers(CHUNKS, BLOCK_C)  # [CHUNKS, 1, BC]
    if SYMMETRIC:
        o_value, b_lower, b_upper = load_mirrored(p_logits, o_rows, m_row, N, HALF_CHUNKS, BLOCK_C)
        b_top = tl.maximum(row_max(b_lower), row_max(b_upper))
        b_e = exponential(b_lower - b_top)
        b_mirrored = exponential(b_upper - b_top)
        b_total = row_sum(b_e + tl.where(o_value < N // 2, b_mirrored, 0.0))
        b_q = b_e - b_mirrored
    else:
        o_value = o_bins
        b_z = load_bins(p_logits, o_rows, o_bins, m_row, o_bins < N)  # [CHUNKS, BR, BC]
        b_top = row_max(b_z)
        b_q = exponential(b_z - b_top)
        b_total = row_sum(b_q)
    b_value = bin_values(o_value, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT)
    b_mean = row_sum(b_q * b_value) / b_total  # pyright: ignore[reportOperatorIssue]  # typed as if of many
    if p_readout is not None:
        b_readout = finish_readout(b_mean, half_width, middle, TRANSFORM, READOUT)
        tl.store(p_readout + i_first + o_row, b_readout, mask=m_row)

    if p_gradient is not None:
        p_gradient += i_first * N
        b_slope = tl.load(p_grad_output + i_first + o_row, mask=m_row, other=0.0) / b_total
        if READOUT == "transformed":
            b_slope *= inverse_slope(tl.fma(b_mean, half_width, middle), TRANSFORM) * half_width
        b_e = exponential(load_bins(p_logits, o_rows, o_bins, m_row, o_bins < N) - b_top)  # [CHUNKS, BR, BC]
        b_value = bin_values(o_bins, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT)
        b_g = b_e * (b_value - b_mean) * b_slope
        tl.debug_barrier()  # the gradient may be written over the logits: every thread has read what it needs
        tl.store(p_gradient + (o_rows + o_bins), b_g.to(p_gradient.dtype.element_ty), mask=m_row & (o_bins < N))


@triton.jit
def scale_kernel(p_gradient, p_factor, count, BLOCK: tl.constexpr):
    """gradient *= factor; nothing is read or written for a factor of 1."""
    b_factor = tl.load(p_factor)
    if b_factor != 1.0:
        i_first = tl.program_id(0).to(tl.int64) * BLOCK
        p_gradient += i_first
        o_block = tl.arange(0, BLOCK)  # [BLOCK]
        m_block = o_block < tl.minimum(count - i_first, BLOCK).to(tl.int32)
        b_g = tl.load(p_gradient + o_block, mask=m_block, other=0.0).to(tl.float32)
        tl.store(p_gradient + o_block, (b_g * b_factor).to(p_gradient.dtype.element_ty), mask=m_block)


@lru_cache(maxsize=256)
def support_numbers(low: float, high: float, bins: int) -> dict[str, float]:
    """The kernels' float32 numbers of a support; each `_rest` is what its float32 lacks of the exact number."""
    middle, half_width = (low + high) / 2, (high - low) / 2 / (bins - 1)
    return {
        "middle": middle,
        "middle_rest": middle - float(np.float32(middle)),
        "half_width": half_width,
        "half_width_rest": half_width - float(np.float32(half_width)),
    }


@lru_cache(maxsize=256)
def tile(bins: int, element_size: int, wave: int, targets: int | None) -> dict[str, int]:
    """Block sizes for rows of `bins` logits.

    The threads that share a row are 4, or 8 where a row's logits cannot be loaded 16 bytes at a time, so that each
    access covers 16 to 64 bytes of a row; they are more where one would get more than 32 elements. A program has as
    many rows as give its threads 32 elements each, of at most 2 rows.

    Args:
        bins: N. element_size: bytes of a logit. wave: threads of a warp.
        targets: T where rows share targets: a program then holds at most T rows, so that its targets wrap once.
    """
    block = triton.next_power_of_2(bins)
    vector = min(math.gcd(bins, 16 // element_size), block)
    threads = max(4 if vector * element_size == 16 else 8, block // ELEMENTS_PER_THREAD)
    threads = min(threads, block // vector)
    rows = max(min(ELEMENTS_PER_THREAD * WARPS * wave // block, ROWS_PER_THREAD * WARPS * wave // threads), 1)
    if targets is not None:
        rows = min(rows, 1 << (targets.bit_length() - 1))
    half_chunks = triton.next_power_of_2(triton.cdiv((bins + 1) // 2, threads * vector))
    return {
        "BLOCK_R": rows,
        "BLOCK_C": threads * vector,
        "CHUNKS": block // (threads * vector),
        "HALF_CHUNKS": half_chunks,
        "threads": threads,
    }


def launch_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    *,
    low: float,
    high: float,
    transform: str,
    labels: str,
    sigma: float,
    readout_kind: str,
    loss: Tensor | None,
    readout: Tensor | None,
    gradient: Tensor | None,
) -> None:
    """Cross-entropy of rows of logits with the labels of their targets, its gradient, and the readout, in one reading.

    A row that does not count gives zeros, whatever it holds. A NaN target gives a NaN loss and gradient of its row; a
    target beyond the ends or infinite belongs to the end bin.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous, 2 <= N <= 4096.
        target: [T] float32 in units of the return, contiguous, R % T == 0: row r belongs to target r % T.
        mask: [T] bool, contiguous, True where a target's rows count. None: all count.
        weight: [R] float32, contiguous: factor of each row's loss and gradient. None: 1.
        scale: 0-dimensional float32: factor of the gradient alone. None: 1.
        low, high: first and last bin center in transformed space.
        transform: "symlog", "signed_sqrt" or "linear".
        labels: a value of `reference.Labels`. sigma: of HL-Gauss labels, in bin widths; 0 for the others.
        readout_kind: "transformed", "raw", or "" without a readout.
        loss, readout: [R] float32, contiguous, written; None: not wanted.
        gradient: [R, N] of the dtype of logits, contiguous, written: scale weight (softmax - label). It may be `logits`
            itself. None: not wanted.
    """
    rows, bins = logits.shape
    if rows == 0:
        return
    targets = target.shape[0]
    block = tile(bins, logits.element_size(), wave_size(), targets if targets < rows else None)
    window = 2 if sigma == 0 else min(triton.next_power_of_2(math.ceil(12 * sigma) + 2), triton.next_power_of_2(bins))
    with torch.cuda.device_of(logits):
        launch(
            cross_entropy_kernel,
            (triton.cdiv(rows, block["BLOCK_R"]),),
            p_logits=logits,
            p_target=target,
            p_mask=mask,
            p_weight=weight,
            p_scale=scale,
            p_loss=loss,
            p_readout=readout,
            p_gradient=gradient,
            R=rows,
            T=targets,
            **support_numbers(low, high, bins),
            per_width=(bins - 1) / (high - low),
            per_sigma=1 / (sigma * math.sqrt(2)) if sigma > 0 else 0.0,
            N=bins,
            SHARED=targets < rows,
            SYMMETRIC=low == -high,
            TRANSFORM=transform,
            LABEL=labels,
            READOUT=readout_kind,
            **{name: size for name, size in block.items() if name != "threads"},
            BLOCK_W=block["threads"],
            WINDOWS=max(window // block["threads"], 1),
            num_warps=WARPS,
            enable_fp_fusion=True,
        )


def launch_expectation(
    logits: Tensor,
    *,
    low: float,
    high: float,
    transform: str,
    readout_kind: str,
    readout: Tensor | None,
    grad_output: Tensor | None,
    gradient: Tensor | None,
) -> None:
    """The value that each row of logits stands for, and its derivative times a gradient `grad_output`.

    Args:
        logits: [R, N] float32, bfloat16 or float16, contiguous, 2 <= N <= 4096.
        low, high, transform, readout_kind: as for `launch_cross_entropy`.
        readout: [R] float32, contiguous, written. None: not wanted.
        grad_output: [R] float32, contiguous: derivative of a loss by each readout; needed for `gradient`.
        gradient: [R, N] of the dtype of logits, contiguous, written: grad_output d readout / d logits. It may be
            `logits` itself. None: not wanted.
    """
    rows, bins = logits.shape
    if rows == 0:
        return
    block = tile(bins, logits.element_size(), wave_size(), None)
    with torch.cuda.device_of(logits):
        launch(
            expectation_kernel,
            (triton.cdiv(rows, block["BLOCK_R"]),),
            p_logits=logits,
            p_readout=readout,
            p_grad_output=grad_output,
            p_gradient=gradient,
            R=rows,
            **support_numbers(low, high, bins),
            N=bins,
            SYMMETRIC=low == -high,
            TRANSFORM=transform,
            READOUT=readout_kind,
            **{name: size for name, size in block.items() if name != "threads"},
            num_warps=WARPS,
            enable_fp_fusion=True,
        )


def launch_scale(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor in place; for a factor of 1 the gradient is neither read nor written.

    Args:
        gradient: any shape, float32, bfloat16 or float16, contiguous.
        factor: 0-dimensional float32 on the same device; the host does not wait for it.
    """
    count = gradient.numel()
    if count == 0:
        return
    block = ELEMENTS_PER_THREAD * WARPS * wave_size()
    with torch.cuda.device_of(gradient):
        launch(
            scale_kernel,
            (triton.cdiv(count, block),),
            p_gradient=gradient,
            p_factor=factor,
            count=count,
            BLOCK=block,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
