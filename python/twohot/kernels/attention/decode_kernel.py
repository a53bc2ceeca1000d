"""Triton kernels of one step of attention against rings of keys and values, for NVIDIA and AMD, and their launcher.

A program goes over a part of one query head's ring, so that few environments fill the chip, too (flash-decoding, Dao et
al. 2023); where there are several parts, a second kernel joins them. The new key and value go to the ring and, because
programs do not wait for each other, are read from the arguments.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from twohot.kernels.attention.kernel import capped
from twohot.kernels.triton_device import launch

ROWS_AT_ONCE = 64
PROGRAMS = 1024


@triton.jit
def load_step(p_x, p_cosine, p_sine, o_d, D: tl.constexpr):
    """A row of one head [1, BD] in float32, rotated where there are angles."""
    m_d = o_d < D
    b_x = tl.load(p_x + o_d, mask=m_d, other=0.0).to(tl.float32)
    if p_cosine is not None:
        o_other = tl.where(o_d < D // 2, o_d + D // 2, o_d - D // 2)
        b_other = tl.load(p_x + o_other, mask=m_d, other=0.0).to(tl.float32)
        b_cosine = tl.load(p_cosine + o_d % (D // 2), mask=m_d, other=0.0)
        b_sine = tl.load(p_sine + o_d % (D // 2), mask=m_d, other=0.0)
        b_x = b_x * b_cosine + tl.where(o_d < D // 2, -b_other, b_other) * b_sine
    return b_x


@triton.jit
def store_part(p_sum, p_top, p_total, o_part, b_sum, b_top, b_total, o_d, D: tl.constexpr):
    """Store what `join_kernel` needs of a part: [1, BD], [1, 1], [1, 1]."""
    o_one = tl.arange(0, 1)[None, :]
    tl.store(p_sum + o_part * D + o_d, b_sum, mask=o_d < D)
    tl.store(p_top + o_part + o_one, b_top)
    tl.store(p_total + o_part + o_one, b_total)


@triton.jit
def decode_kernel(
    p_q, p_k, p_v, p_keys, p_values, p_cache_position, p_cosine, p_sine, p_out, p_sum, p_top, p_total,
    scale, cap, H, R, SINKS, CHUNK, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    D: tl.constexpr, GROUPS: tl.constexpr, CAPPED: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Of a part of the rows in use: top = max s, total = sum 2^(s - top), sum 2^(s - top) v; s in units of log 2.

    Where a part is all, there is `p_out`, for the sum over the total, and no place for parts.
    """
    i_row = tl.program_id(0).to(tl.int64)
    i_part = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_row // H, i_row % H
    o_d = tl.arange(0, BLOCK_D)[None, :]
    m_d = o_d < D
    if p_cosine is not None:
        p_cosine += i_b * (D // 2)
        p_sine += i_b * (D // 2)
    i_step = tl.maximum(tl.load(p_cache_position + i_b), 0)
    slot = tl.where(i_step < R, i_step, SINKS + (i_step - SINKS) % (R - SINKS)).to(tl.int32)
    rows = tl.minimum(i_step + 1, R).to(tl.int32)
    o_ring = (i_b * (H // GROUPS) + i_h // GROUPS) * R * D
    p_keys += o_ring
    p_values += o_ring
    b_q = load_step(p_q + i_b * q_batch + i_h * q_head, p_cosine, p_sine, o_d, D)  # [1, BD]
    b_top = tl.full([1, 1], float("-inf"), tl.float32)
    b_total = tl.zeros([1, 1], tl.float32)
    b_sum = tl.zeros([1, BLOCK_D], tl.float32)
    if i_part == 0:
        b_k = load_step(p_k + i_b * k_batch + i_h // GROUPS * k_head, p_cosine, p_sine, o_d, D)
        b_v = load_step(p_v + i_b * v_batch + i_h // GROUPS * v_head, None, None, o_d, D)
        b_k = b_k.to(p_keys.dtype.element_ty)
        b_v = b_v.to(p_values.dtype.element_ty)
        if i_h % GROUPS == 0:
            tl.store(p_keys + slot * D + o_d, b_k, mask=m_d)
            tl.store(p_values + slot * D + o_d, b_v, mask=m_d)
        b_top, _ = capped(tl.sum(b_q * b_k.to(tl.float32), 1, keep_dims=True), scale, cap, CAPPED)
        b_total += 1.0
        b_sum += b_v.to(tl.float32)
    o_begin = (i_part * CHUNK).to(tl.int32)
    for o_n in range(o_begin, tl.minimum(o_begin + CHUNK, rows), BLOCK_N):
        o_row = o_n + tl.arange(0, BLOCK_N)[:, None]
        m_row = (o_row < rows) & (o_row != slot)
        b_k = tl.load(p_keys + o_row * D + o_d, mask=m_row & m_d, other=0.0).to(tl.float32)  # [BN, BD]
        b_v = tl.load(p_values + o_row * D + o_d, mask=m_row & m_d, other=0.0).to(tl.float32)
        b_s, _ = capped(tl.sum(b_k * b_q, 1, keep_dims=True), scale, cap, CAPPED)  # [BN, 1]
        b_s = tl.where(m_row, b_s, float("-inf"))
        b_new = tl.maximum(b_top, tl.max(b_s, 0, keep_dims=True))
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_p = tl.exp2(b_s - b_base)
        b_factor = tl.exp2(b_top - b_base)
        b_total = b_total * b_factor + tl.sum(b_p, 0, keep_dims=True)
        b_sum = b_sum * b_factor + tl.sum(b_p * b_v, 0, keep_dims=True)
        b_top = b_new
    if p_out is not None:
        tl.store(p_out + i_row * D + o_d, (b_sum / b_total).to(p_out.dtype.element_ty), mask=m_d)
    else:
        store_part(p_sum, p_top, p_total, i_row * tl.num_programs(1) + i_part, b_sum, b_top, b_total, o_d, D)


@triton.jit
def join_kernel(
    p_sum, p_top, p_total, p_out, PARTS, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr
):  # fmt: skip
    """out = sum_i 2^(top_i - top) sum_i / sum_i 2^(top_i - top) total_i over the parts of one query head."""
    i_row = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BLOCK_D)[None, :]
    o_part = tl.arange(0, BLOCK_P)[:, None]
    m_part = o_part < PARTS
    b_top = tl.load(p_top + i_row * PARTS + o_part, mask=m_part, other=float("-inf"))  # [BP, 1]
    b_total = tl.load(p_total + i_row * PARTS + o_part, mask=m_part, other=0.0)
    b_sum = tl.load(p_sum + (i_row * PARTS + o_part) * D + o_d, mask=m_part & (o_d < D), other=0.0)  # [BP, BD]
    b_factor = tl.exp2(b_top - tl.max(b_top, 0, keep_dims=True))
    b_out = tl.sum(b_sum * b_factor, 0, keep_dims=True) / tl.sum(b_total * b_factor, 0, keep_dims=True)  # pyright: ignore[reportOperatorIssue]  # typed as if of many
    tl.store(p_out + i_row * D + o_d, b_out.to(p_out.dtype.element_ty), mask=o_d < D)


def launch_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    cache_position: Tensor,
    angles: tuple[Tensor | None, Tensor | None],
    *,
    out: Tensor,
    sinks: int,
    softcap: float,
    scale: float,
) -> None:
    """Append k and v to each environment's ring, and attend over the rows in use.

    Args:
        q: [B, H, D]; k, v: [B, K, D]; heads are contiguous.
        keys, values: [B, K, R, D] contiguous, written. cache_position: [B] int64.
        angles: cosine and sine [B, D / 2] float32, or (None, None).
        out: [B, H, D] contiguous, written. sinks, softcap (0: none), scale: as `op.decode_attention`.
    """
    environments, heads, size = q.shape
    rows = keys.shape[2]
    if out.numel() == 0:
        return
    parts = min(triton.cdiv(rows, 2 * ROWS_AT_ONCE), max(PROGRAMS // (environments * heads), 1))
    chunk = triton.cdiv(rows, parts * ROWS_AT_ONCE) * ROWS_AT_ONCE
    block = max(triton.next_power_of_2(size), 16)
    sums, tops, totals = _places(q, parts) if parts > 1 else (None, None, None)
    cosine, sine = angles
    strides = {
        f"{n}_{what}": x.stride(i)
        for n, x in (("q", q), ("k", k), ("v", v))
        for i, what in enumerate(("batch", "head"))
    }
    with torch.cuda.device_of(q):
        launch(
            decode_kernel,
            (environments * heads, parts),
            **{"p_q": q, "p_k": k, "p_v": v, "p_keys": keys, "p_values": values, "p_cache_position": cache_position},
            **{"p_cosine": cosine, "p_sine": sine, "p_out": out if parts == 1 else None},
            **{"p_sum": sums, "p_top": tops, "p_total": totals},
            **{"scale": scale, "cap": softcap, "H": heads, "R": rows, "SINKS": sinks, "CHUNK": chunk},
            **strides,
            D=size,
            GROUPS=heads // keys.shape[1],
            CAPPED=softcap > 0,
            BLOCK_D=block,
            BLOCK_N=ROWS_AT_ONCE * 32 // max(block, 32),
            num_warps=4,
            enable_fp_fusion=True,
        )
    if sums is not None and tops is not None and totals is not None:
        launch_join(sums, tops, totals, out)


def _places(q: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the parts of each head go: sums [B H, parts, D], tops and totals [B H, parts]."""
    rows, size = q.shape[0] * q.shape[1], q.shape[2]
    tops, totals = torch.empty(2, rows, parts, dtype=torch.float32, device=q.device)
    return torch.empty(rows, parts, size, dtype=torch.float32, device=q.device), tops, totals


def launch_join(sums: Tensor, tops: Tensor, totals: Tensor, out: Tensor) -> None:
    """Join the parts [B H, parts, D], [B H, parts], [B H, parts] of `decode_kernel` into out [B, H, D], contiguous."""
    rows, parts, size = sums.shape
    with torch.cuda.device_of(out):
        launch(
            join_kernel,
            (rows,),
            **{"p_sum": sums, "p_top": tops, "p_total": totals, "p_out": out, "PARTS": parts},
            D=size,
            BLOCK_D=max(triton.next_power_of_2(size), 16),
            BLOCK_P=triton.next_power_of_2(parts),
            num_warps=4,
            enable_fp_fusion=True,
        )
