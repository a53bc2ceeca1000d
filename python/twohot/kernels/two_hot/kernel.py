"""Triton kernels of the value-classification losses, for NVIDIA and AMD.

`R` rows of `N` logits belong to `T` targets, row r to r % T. A program holds whole rows in registers: their logits come
from memory once and their gradient goes there once; what is read again comes from the first-level cache. Blocks are
those of `blocks.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twohot.kernels.two_hot.arithmetic import exponential, inverse_slope, is_nan
from twohot.kernels.two_hot.blocks import (
    bin_numbers,
    bin_values,
    finish_readout,
    load_bins,
    load_mirrored,
    program_rows,
    row_max,
    row_sum,
)
from twohot.kernels.two_hot.labels import find_position, find_window, label_bins


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
    LABELS: tl.constexpr,
    READOUT_KIND: tl.constexpr,
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
        b_y, middle, middle_rest, half_width, half_width_rest, per_width, N, TRANSFORM, LABELS
    )
    o_window = find_window(b_near, b_rest, N, WINDOWS, BLOCK_W)  # [WINDOWS, BR, BW]
    m_window = m_counts & (o_window < N)
    b_label = label_bins(o_window, b_near, b_rest, per_sigma, N, LABELS)
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
        b_value = bin_values(o_value, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT_KIND)
        b_mean = row_sum(b_q * b_value) / b_total  # pyright: ignore[reportOperatorIssue]  # typed as if of many
        b_readout = finish_readout(b_mean, half_width, middle, TRANSFORM, READOUT_KIND)
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
    READOUT_KIND: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    HALF_CHUNKS: tl.constexpr,
):
    """readout = f^-1(m), m = sum_k p_k b_k, or sum_k p_k f^-1(b_k); gradient_k = u p_k (b_k - m) df^-1(m)/dm, or u p_k
    (f^-1(b_k) - readout), for p = softmax(z), centers b and output gradients u (from the definitions).

    On a symmetric support mirrored bins are subtracted before they are summed: a symmetric distribution gives 0.
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
    b_value = bin_values(o_value, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT_KIND)
    b_mean = row_sum(b_q * b_value) / b_total  # pyright: ignore[reportOperatorIssue]  # typed as if of many
    if p_readout is not None:
        b_readout = finish_readout(b_mean, half_width, middle, TRANSFORM, READOUT_KIND)
        tl.store(p_readout + i_first + o_row, b_readout, mask=m_row)

    if p_gradient is not None:
        p_gradient += i_first * N
        b_slope = tl.load(p_grad_output + i_first + o_row, mask=m_row, other=0.0) / b_total
        if READOUT_KIND == "transformed":
            b_slope *= inverse_slope(tl.fma(b_mean, half_width, middle), TRANSFORM) * half_width
        b_e = exponential(load_bins(p_logits, o_rows, o_bins, m_row, o_bins < N) - b_top)  # [CHUNKS, BR, BC]
        b_value = bin_values(o_bins, middle, middle_rest, half_width, half_width_rest, N, TRANSFORM, READOUT_KIND)
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
