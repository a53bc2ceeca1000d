"""Plain PyTorch truth of causal attention: runs in any floating dtype on any device, float64 included."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D) + causal mask) v for q, k, v of shape [B, L, H, D]; returns [B, L, H, D]."""
    length = q.shape[1]
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / math.sqrt(q.shape[-1])
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    return torch.einsum("bhlm,bmhd->blhd", scores.masked_fill(future, -math.inf).softmax(-1), v)


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, counts: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the first `counts` rows of each environment's ring.

    Positions are added to the inputs of attention, so the order of the rows in the ring does not matter.
    Args: q [B, H, D]; keys, values [B, H, L, D]; counts [B] integers, each in 1..L. Returns [B, H, D].
    """
    scores = torch.matmul(keys, q.unsqueeze(-1)).squeeze(-1) / math.sqrt(q.shape[-1])
    empty = torch.arange(keys.shape[2], device=q.device) >= counts.unsqueeze(-1)
    weights = scores.masked_fill(empty.unsqueeze(1), -math.inf).softmax(-1)
    return torch.matmul(weights.unsqueeze(2), values).squeeze(2)
