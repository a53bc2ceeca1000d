"""Blocks of rows in Triton: how a program reads its logits and averages over bins.

Blocks have three dimensions, [CHUNKS, BR, BC]: bin chunk * BC + column. The last dimension is spread over the few
threads that share a row and the first stays within a thread, so that the arithmetic that a row needs once (its
transforms, its logarithm) is repeated by few threads and reductions take few exchanges.

Bin k lies at middle + (2 k - (N - 1)) half_width in transformed space: for low == -high the middle is 0 and the centers
are antisymmetric to the last bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twohot.kernels.two_hot.arithmetic import inverse_transform


@triton.jit
def row_sum(b_x):
    """Sums of a block [CHUNKS, BR, BC] over its bins: [1, BR, 1]."""
    return tl.sum(tl.sum(b_x, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def row_max(b_x):
    """Maxima of a block [CHUNKS, BR, BC] over its bins: [1, BR, 1]."""
    return tl.max(tl.max(b_x, 0, keep_dims=True), 2, keep_dims=True)


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
    o_bins, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM: tl.constexpr, READOUT_KIND: tl.constexpr
):
    """What a readout averages, [CHUNKS, 1, BC]: f^-1(center) for "raw", else the center in half widths."""
    b_value = (2 * o_bins - (N - 1)).to(tl.float32)
    if READOUT_KIND == "raw":
        b_value = tl.fma(b_value, half_width, tl.fma(b_value, half_width_rest, middle_rest)) + middle
        b_value = inverse_transform(b_value, TRANSFORM)
    return b_value


@triton.jit
def finish_readout(b_mean, half_width, middle, TRANSFORM: tl.constexpr, READOUT_KIND: tl.constexpr):
    """The readout whose average of `bin_values` is given, in units of the return."""
    b_readout = b_mean
    if READOUT_KIND == "transformed":
        b_readout = inverse_transform(tl.fma(b_mean, half_width, middle), TRANSFORM)
    return b_readout
