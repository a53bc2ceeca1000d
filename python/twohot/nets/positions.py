"""Where in its trial a step is, for the Transformer."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.tensors import require_device

ROTARY_BASE = 10_000.0
"""Base of the rotation of queries and keys (Su et al. 2021, arXiv 2104.09864)."""


class Positions(nn.Module):
    """What is added to an embedding at a time."""

    rotary: float | None = None
    """Base of the rotation of queries and keys, where positions are one."""

    def forward(self, time: Tensor) -> Tensor:
        """time [...] integers to [..., E], or a scalar."""
        raise NotImplementedError


class SinusoidalPositions(Positions):
    """[..., E] sines and cosines of `time` at wavelengths from 2 pi to 10 000 x 2 pi (Vaswani et al. 2017)."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponent = torch.arange(0, width, 2, dtype=torch.float32) / width
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponent), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """time [...] integers to [..., E]."""
        angle = time.unsqueeze(-1).to(self.frequencies.dtype) * self.frequencies
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class LearnedPositions(Positions):
    """One learned row for each time from 0 to `limit` - 1; all later times share the last row."""

    def __init__(self, width: int, limit: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(limit, width))

    def forward(self, time: Tensor) -> Tensor:
        """time [...] integers to [..., E]."""
        require_device("LearnedPositions", "time", time, "table", self.table)
        return functional.embedding(time.long().clamp(max=len(self.table) - 1), self.table)


class RotaryPositions(Positions):
    """Nothing is added: queries and keys are rotated by their step instead, so that scores depend on distance alone.

    The steps of a window follow one another, so rotating by the step in the window gives the scores that rotating by
    the time in the trial would.
    """

    rotary = ROTARY_BASE

    def forward(self, time: Tensor) -> Tensor:
        """A zero, whatever the time."""
        return torch.zeros((), device=time.device)


def make_positions(kind: Literal["fixed", "learned", "rotary"], width: int, limit: int) -> Positions:
    """Positions of a kind for embeddings of `width` (E); `limit` is the number of times that are learned."""
    if kind == "learned":
        return LearnedPositions(width, limit)
    return RotaryPositions() if kind == "rotary" else SinusoidalPositions(width)
