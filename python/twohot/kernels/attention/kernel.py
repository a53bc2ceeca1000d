"""Triton kernels of causal attention over whole windows, for NVIDIA and AMD, and their launchers.

`B` sequences of `L` steps, `H` query heads of size `D`, `H / GROUPS` key/value heads. The forward pass and the gradient
of the queries are split over blocks of queries, the gradients of keys and values over blocks of keys: no program
writes what another one writes, so equal inputs give equal bits. Nothing of size L x L is stored; the logarithm of each
query's softmax denominator is (Dao 2023, arXiv 2307.08691). Blocks that a window, a causal mask or `lengths` hides
are skipped.

Scores are in units of log 2, so that exp is exp2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from twohot.kernels.attention.tiles import tile
from twohot.kernels.triton_device import launch


@triton.jit
def tanh(b_x):
    """tanh(x) = 1 - 2 / (exp(2 x) + 1), and near 0, where that cancels, x - x^3 / 3 + 2 x^5 / 15 - 17 x^7 / 315."""
    b_size = tl.minimum(tl.abs(b_x), 15.0)
    b_far = 1.0 - 2.0 / (tl.exp2(2.8853900817779268 * b_size) + 1.0)
    b_square = b_size * b_size
    b_near = b_size * (1.0 + b_square * (-1.0 / 3.0 + b_square * (2.0 / 15.0 - b_square * (17.0 / 315.0))))
    b_y = tl.where(b_size < 0.2, b_near, b_far)
    return tl.where(b_x < 0.0, -b_y, b_y)


@triton.jit
def multiply(b_a, b_b, b_c, PRECISION: tl.constexpr):
    """a b + c in float32. "upcast" is for the interpreter, which would multiply the bits of bfloat16."""
    if PRECISION == "upcast":
        b_ab = tl.dot(b_a.to(tl.float32), b_b.to(tl.float32), b_c, input_precision="ieee")
    else:
        b_ab = tl.dot(b_a, b_b, b_c, input_precision=PRECISION)
    return b_ab


@triton.jit
def load_rows(p_x, o_t, o_d, m_t, stride, D: tl.constexpr):
    """Rows of one head [BT, BD]; 0 where there are none."""
    return tl.load(p_x + o_t[:, None] * stride + o_d[None, :], mask=m_t[:, None] & (o_d < D)[None, :], other=0.0)


@triton.jit
def turn(b_x, p_x, p_cosine, p_sine, o_t, o_d, m_t, stride, back, D: tl.constexpr):
    """Rows [BT, BD] with pairs (x_i, x_{i + D/2}) turned by the angles of their steps; `back` is -1 for the other way.

    The other half of each row is read once more, from memory that was just read.
    """
    o_pair = o_d % (D // 2)
    o_other = tl.where(o_d < D // 2, o_d + D // 2, o_d - D // 2)
    m_x = m_t[:, None] & (o_d < D)[None, :]
    o_angle = o_t[:, None] * (D // 2) + o_pair[None, :]
    b_cosine = tl.load(p_cosine + o_angle, mask=m_x, other=0.0)
    b_sine = back * tl.load(p_sine + o_angle, mask=m_x, other=0.0)
    b_other = tl.load(p_x + o_t[:, None] * stride + o_other[None, :], mask=m_x, other=0.0).to(tl.float32)
    b_turned = b_x.to(tl.float32) * b_cosine + tl.where((o_d < D // 2)[None, :], -b_other, b_other) * b_sine
    return b_turned.to(b_x.dtype)


@triton.jit
def load_turned(p_x, p_cosine, p_sine, o_t, o_d, m_t, stride, D: tl.constexpr):
    """Rows of one head [BT, BD], rotated where there are angles."""
    b_x = load_rows(p_x, o_t, o_d, m_t, stride, D)
    if p_cosine is not None:
        b_x = turn(b_x, p_x, p_cosine, p_sine, o_t, o_d, m_t, stride, 1.0, D)
    return b_x


@triton.jit
def store_turned_back(p_x, b_x, p_cosine, p_sine, o_t, o_d, m_t, stride, D: tl.constexpr):
    """Store a gradient of rotated rows [BT, BD] as that of the rows: through memory, which holds the other halves."""
    m_x = m_t[:, None] & (o_d < D)[None, :]
    p_rows = p_x + o_t[:, None] * stride + o_d[None, :]
    b_x = b_x.to(p_x.dtype.element_ty)
    tl.store(p_rows, b_x, mask=m_x)
    if p_cosine is not None:
        tl.debug_barrier()
        b_x = turn(b_x, p_x, p_cosine, p_sine, o_t, o_d, m_t, stride, -1.0, D)
        tl.debug_barrier()
        tl.store(p_rows, b_x, mask=m_x)


@triton.jit
def see(o_query, o_key, length, WINDOW: tl.constexpr, SINKS: tl.constexpr):
    """Whether queries see keys; two blocks of steps of shapes that broadcast."""
    m_seen = (o_key <= o_query) & (o_query < length)
    if WINDOW > 0:
        m_seen = m_seen & ((o_key > o_query - WINDOW) | (o_key < SINKS))
    return m_seen


@triton.jit
def capped(b_s, scale, cap, CAPPED: tl.constexpr):
    """Scores in units of log 2 [BM, BN], and their derivative by scale q k over log 2."""
    b_slope = 1.0
    if CAPPED:
        b_t = tanh(b_s * (scale / cap))
        b_slope = 1.0 - b_t * b_t
        b_s = b_t * (cap * 1.4426950408889634)
    else:
        b_s = b_s * (scale * 1.4426950408889634)
    return b_s, b_slope


@triton.jit
def key_blocks(o_first, o_last, WINDOW: tl.constexpr, SINKS: tl.constexpr, BLOCK: tl.constexpr):
    """How many blocks of keys queries o_first .. o_last - 1 see, how many for the sinks, the window's first block.

    Block i is at i for the sinks, and at first + i - sinks for the others.
    """
    first = 0
    sinks = 0
    if WINDOW > 0:
        first = tl.maximum(o_first - WINDOW + 1, 0) // BLOCK
        if SINKS > 0:
            sinks = tl.minimum(first, tl.cdiv(SINKS, BLOCK))
    blocks = tl.where(o_first < o_last, sinks + tl.cdiv(o_last, BLOCK) - first, 0)
    return blocks, sinks, first


@triton.jit
def forward_block(
    b_o, b_top, b_total, b_q, p_k, p_v, p_cosine, p_sine, o_query, o_first, o_d, length, scale, cap, k_stride, v_stride,
    D: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The softmax and the sum of values of a block of queries, gone on by a block of keys."""
    o_key = o_first + tl.arange(0, BLOCK_N)
    m_key = o_key < length
    b_k = load_turned(p_k, p_cosine, p_sine, o_key, o_d, m_key, k_stride, D)  # [BN, BD]
    b_s, _ = capped(multiply(b_q, tl.trans(b_k), None, PRECISION), scale, cap, CAPPED)  # [BM, BN]
    m_seen = see(o_query[:, None], o_key[None, :], length, WINDOW, SINKS)
    b_s = tl.where(m_seen, b_s, float("-inf"))
    b_new = tl.maximum(b_top, tl.max(b_s, 1))
    b_base = tl.where(b_new == float("-inf"), 0.0, b_new)  # nothing seen so far
    b_p = tl.exp2(b_s - b_base[:, None])
    b_factor = tl.exp2(b_top - b_base)
    b_v = load_rows(p_v, o_key, o_d, m_key, v_stride, D)
    b_o = multiply(b_p.to(b_v.dtype), b_v, b_o * b_factor[:, None], PRECISION)
    return b_o, b_new, b_total * b_factor + tl.sum(b_p, 1)


@triton.jit
def forward_kernel(
    p_q, p_k, p_v, p_lengths, p_cosine, p_sine, p_out, p_lse, scale, cap, H, L,
    q_batch, q_step, q_head, k_batch, k_step, k_head, v_batch, v_step, v_head,
    D: tl.constexpr, GROUPS: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out_t = sum_s softmax_s(cap(scale q_t k_s)) v_s, lse_t = log2 sum_s 2^(cap(scale q_t k_s) / log 2)."""
    i_block = tl.program_id(0).to(tl.int64)
    i_row = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_row // H, i_row % H
    o_m = (i_block * BLOCK_M).to(tl.int32)
    o_query = o_m + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, BLOCK_D)
    length = L
    if p_lengths is not None:
        length = tl.minimum(tl.load(p_lengths + i_b), L).to(tl.int32)
    p_k += i_b * k_batch + i_h // GROUPS * k_head
    p_v += i_b * v_batch + i_h // GROUPS * v_head
    m_query = o_query < length
    b_q = load_turned(p_q + i_b * q_batch + i_h * q_head, p_cosine, p_sine, o_query, o_d, m_query, q_step, D)
    b_o = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    b_top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    b_total = tl.zeros([BLOCK_M], tl.float32)
    blocks, sinks, first = key_blocks(o_m, tl.minimum(o_m + BLOCK_M, length), WINDOW, SINKS, BLOCK_N)
    for i_n in range(0, blocks):
        o_n = tl.where(i_n < sinks, i_n, first + i_n - sinks) * BLOCK_N
        b_o, b_top, b_total = forward_block(
            b_o, b_top, b_total, b_q, p_k, p_v, p_cosine, p_sine, o_query, o_n, o_d, length, scale, cap,
            k_step, v_step, D, WINDOW, SINKS, CAPPED, PRECISION, BLOCK_N,
        )  # fmt: skip
    b_total = tl.where(m_query, b_total, 1.0)
    m_out = (o_query < L)[:, None] & (o_d < D)[None, :]
    o_out = ((i_b * L + o_query[:, None]) * H + i_h) * D + o_d[None, :]
    tl.store(p_out + o_out, (b_o / b_total[:, None]).to(p_out.dtype.element_ty), mask=m_out)
    tl.store(p_lse + i_row * L + o_query, tl.where(m_query, b_top, 0.0) + tl.log2(b_total), mask=o_query < L)


@triton.jit
def query_block(
    b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, p_cosine, p_sine, o_query, o_first, o_d, length, scale, cap,
    k_stride, v_stride, D: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of queries, gone on by a block of keys: dS = P (dO V^T - delta), dQ += dS K."""
    o_key = o_first + tl.arange(0, BLOCK_N)
    m_key = o_key < length
    b_k = load_turned(p_k, p_cosine, p_sine, o_key, o_d, m_key, k_stride, D)  # [BN, BD]
    b_v = load_rows(p_v, o_key, o_d, m_key, v_stride, D)
    b_s, b_slope = capped(multiply(b_q, tl.trans(b_k), None, PRECISION), scale, cap, CAPPED)  # [BM, BN]
    m_seen = see(o_query[:, None], o_key[None, :], length, WINDOW, SINKS)
    b_p = tl.where(m_seen, tl.exp2(b_s - b_lse[:, None]), 0.0)
    b_dp = multiply(b_do, tl.trans(b_v), None, PRECISION)
    b_ds = b_p * (b_dp - b_delta[:, None]) * b_slope
    return multiply(b_ds.to(b_k.dtype), b_k, b_dq, PRECISION)


@triton.jit
def query_gradient_kernel(
    p_q, p_k, p_v, p_lengths, p_cosine, p_sine, p_out, p_lse, p_delta, p_do, p_dq, scale, cap, H, L,
    q_batch, q_step, q_head, k_batch, k_step, k_head, v_batch, v_step, v_head, do_batch, do_step, do_head,
    D: tl.constexpr, GROUPS: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dq, and delta_t = sum_d dout_td out_td, which the gradients of keys and values read."""
    i_block = tl.program_id(0).to(tl.int64)
    i_row = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_row // H, i_row % H
    o_m = (i_block * BLOCK_M).to(tl.int32)
    o_query = o_m + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, BLOCK_D)
    length = L
    if p_lengths is not None:
        length = tl.minimum(tl.load(p_lengths + i_b), L).to(tl.int32)
    p_k += i_b * k_batch + i_h // GROUPS * k_head
    p_v += i_b * v_batch + i_h // GROUPS * v_head
    m_query = o_query < length
    b_q = load_turned(p_q + i_b * q_batch + i_h * q_head, p_cosine, p_sine, o_query, o_d, m_query, q_step, D)
    b_do = load_rows(p_do + i_b * do_batch + i_h * do_head, o_query, o_d, m_query, do_step, D)
    b_out = load_rows(p_out + i_b * L * H * D + i_h * D, o_query, o_d, m_query, H * D, D)
    b_delta = tl.sum(b_do.to(tl.float32) * b_out.to(tl.float32), 1)
    tl.store(p_delta + i_row * L + o_query, b_delta, mask=o_query < L)
    b_lse = tl.load(p_lse + i_row * L + o_query, mask=m_query, other=0.0)
    b_dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    blocks, sinks, first = key_blocks(o_m, tl.minimum(o_m + BLOCK_M, length), WINDOW, SINKS, BLOCK_N)
    for i_n in range(0, blocks):
        o_n = tl.where(i_n < sinks, i_n, first + i_n - sinks) * BLOCK_N
        b_dq = query_block(
            b_dq, b_q, b_do, b_lse, b_delta, p_k, p_v, p_cosine, p_sine, o_query, o_n, o_d, length, scale, cap,
            k_step, v_step, D, WINDOW, SINKS, CAPPED, PRECISION, BLOCK_N,
        )  # fmt: skip
    p_dq += i_b * L * H * D + i_h * D
    store_turned_back(p_dq, b_dq * scale, p_cosine, p_sine, o_query, o_d, o_query < L, H * D, D)


@triton.jit
def key_gradient_kernel(
    p_q, p_k, p_v, p_lengths, p_cosine, p_sine, p_lse, p_delta, p_do, p_dk, p_dv, scale, cap, H, L,
    q_batch, q_step, q_head, k_batch, k_step, k_head, v_batch, v_step, v_head, do_batch, do_step, do_head,
    D: tl.constexpr, GROUPS: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO and dK = dS^T Q of a block of keys, over all query heads that read it."""
    i_block = tl.program_id(0).to(tl.int64)
    i_row = tl.program_id(1).to(tl.int64)
    K = H // GROUPS
    i_b, i_h = i_row // K, i_row % K
    o_n = (i_block * BLOCK_N).to(tl.int32)
    o_key = o_n + tl.arange(0, BLOCK_N)
    o_d = tl.arange(0, BLOCK_D)
    length = L
    if p_lengths is not None:
        length = tl.minimum(tl.load(p_lengths + i_b), L).to(tl.int32)
    m_key = o_key < length
    b_k = load_turned(p_k + i_b * k_batch + i_h * k_head, p_cosine, p_sine, o_key, o_d, m_key, k_step, D)
    b_v = load_rows(p_v + i_b * v_batch + i_h * v_head, o_key, o_d, m_key, v_step, D)
    b_dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    o_end = length
    if WINDOW > 0:
        o_end = tl.where(o_n < SINKS, length, tl.minimum(o_n + BLOCK_N + WINDOW - 1, length))
    for i_group in range(GROUPS):
        i_q = i_h * GROUPS + i_group
        o_row = (i_b * H + i_q) * L
        for o_m in range(o_n // BLOCK_M * BLOCK_M, o_end, BLOCK_M):
            o_query = o_m + tl.arange(0, BLOCK_M)
            m_query = o_query < length
            b_q = load_turned(p_q + i_b * q_batch + i_q * q_head, p_cosine, p_sine, o_query, o_d, m_query, q_step, D)
            b_do = load_rows(p_do + i_b * do_batch + i_q * do_head, o_query, o_d, m_query, do_step, D)
            b_lse = tl.load(p_lse + o_row + o_query, mask=m_query, other=0.0)
            b_delta = tl.load(p_delta + o_row + o_query, mask=m_query, other=0.0)
            b_s, b_slope = capped(multiply(b_k, tl.trans(b_q), None, PRECISION), scale, cap, CAPPED)
            m_seen = see(o_query[None, :], o_key[:, None], length, WINDOW, SINKS)
            b_p = tl.where(m_seen, tl.exp2(b_s - b_lse[None, :]), 0.0)  # [BN, BM]
            b_dv = multiply(b_p.to(b_do.dtype), b_do, b_dv, PRECISION)
            b_dp = multiply(b_v, tl.trans(b_do), None, PRECISION)
            b_ds = b_p * (b_dp - b_delta[None, :]) * b_slope
            b_dk = multiply(b_ds.to(b_q.dtype), b_q, b_dk, PRECISION)
    o_out = i_b * L * K * D + i_h * D
    m_out = (o_key < L)[:, None] & (o_d < D)[None, :]
    p_dv += o_out + o_key[:, None] * (K * D) + o_d[None, :]
    tl.store(p_dv, b_dv.to(p_dv.dtype.element_ty), mask=m_out)
    store_turned_back(p_dk + o_out, b_dk * scale, p_cosine, p_sine, o_key, o_d, o_key < L, K * D, D)


def _arguments(q: Tensor, k: Tensor, v: Tensor, lengths, angles, options: dict) -> dict:
    """What the three kernels share."""
    cosine, sine = angles
    names = (("batch", 0), ("step", 1), ("head", 2))
    strides = {f"{x}_{name}": y.stride(i) for x, y in (("q", q), ("k", k), ("v", v)) for name, i in names}
    return {
        **{"p_q": q, "p_k": k, "p_v": v, "p_lengths": lengths, "p_cosine": cosine, "p_sine": sine},
        **{"scale": options["scale"], "cap": options["softcap"], "H": q.shape[2], "L": q.shape[1]},
        **strides,
        **{"D": q.shape[3], "GROUPS": q.shape[2] // k.shape[2], "CAPPED": options["softcap"] > 0},
        **{"WINDOW": options["window"], "SINKS": options["sinks"], "enable_fp_fusion": True},
    }


def launch_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    angles: tuple[Tensor | None, Tensor | None],
    *,
    out: Tensor,
    lse: Tensor,
    precision: str,
    **options,
) -> None:
    """Attention and the base-2 logarithm of each softmax's denominator.

    Args:
        q: [B, L, H, D] float32, bfloat16 or float16 with contiguous heads; k, v: [B, L, K, D].
        lengths: [B] integers. angles: cosine and sine [L, D / 2] float32, or (None, None).
        out: [B, L, H, D] contiguous, written; zeros from `lengths` on. lse: [B, H, L] float32, written.
        precision: of float32 products, "ieee" or "tf32".
        options: window and softcap (0: none), sinks, scale.
    """
    if out.numel() == 0:
        return
    shared = _arguments(q, k, v, lengths, angles, options)
    block = tile("forward", q, angles, precision, options)
    with torch.cuda.device_of(q):
        launch(
            forward_kernel,
            (triton.cdiv(q.shape[1], block["BLOCK_M"]), q.shape[0] * q.shape[2]),
            **shared,
            p_out=out,
            p_lse=lse,
            **block,
        )


def launch_query_gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    angles: tuple[Tensor | None, Tensor | None],
    *,
    out: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    delta: Tensor,
    dq: Tensor,
    precision: str,
    **options,
) -> None:
    """The gradient of the queries of `launch_forward`, and sum_d grad_output out, which `launch_key_gradient` reads.

    Args:
        grad_output: [B, L, H, D] with contiguous heads. delta: [B, H, L] float32, written.
        dq: [B, L, H, D] contiguous, written. The others as there.
    """
    if out.numel() == 0:
        return
    shared = _arguments(q, k, v, lengths, angles, options) | _grad_output_arguments(grad_output)
    block = tile("query", q, angles, precision, options)
    with torch.cuda.device_of(q):
        launch(
            query_gradient_kernel,
            (triton.cdiv(q.shape[1], block["BLOCK_M"]), q.shape[0] * q.shape[2]),
            **shared,
            p_out=out,
            p_lse=lse,
            p_delta=delta,
            p_dq=dq,
            **block,
        )


def launch_key_gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    angles: tuple[Tensor | None, Tensor | None],
    *,
    lse: Tensor,
    grad_output: Tensor,
    delta: Tensor,
    dk: Tensor,
    dv: Tensor,
    precision: str,
    **options,
) -> None:
    """The gradients [B, L, K, D] of keys and values, contiguous, written; arguments as `launch_query_gradient`."""
    if grad_output.numel() == 0:
        return
    shared = _arguments(q, k, v, lengths, angles, options) | _grad_output_arguments(grad_output)
    block = tile("key", q, angles, precision, options)
    with torch.cuda.device_of(q):
        launch(
            key_gradient_kernel,
            (triton.cdiv(q.shape[1], block["BLOCK_N"]), k.shape[0] * k.shape[2]),
            **shared,
            p_lse=lse,
            p_delta=delta,
            p_dk=dk,
            p_dv=dv,
            **block,
        )


def _grad_output_arguments(grad_output: Tensor) -> dict:
    strides = {f"do_{name}": grad_output.stride(i) for i, name in enumerate(("batch", "step", "head"))}
    return {"p_do": grad_output, **strides}
