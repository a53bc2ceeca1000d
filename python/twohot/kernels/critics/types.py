"""What the operations of `op.py` compute with, in its shapes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Critics(NamedTuple):
    """What the ensemble computes with."""

    state: Tensor
    """[C, M, E] a step's share of the first layer."""
    table: Tensor
    """[C, T, E]"""
    action_weight: Tensor | None
    """[C, A, E]"""
    weights: Tensor
    """[D, C, E, E] of the hidden layers, from inputs to outputs."""
    biases: Tensor
    """[D, C, E]"""
    head: Tensor
    """[C, E, N]"""
    head_bias: Tensor
    """[C, N]"""


class Rows(NamedTuple):
    """Which rows are computed."""

    step: Tensor
    """[R] int64 in 0 .. M - 1."""
    entry: Tensor
    """[R] int64 in 0 .. T - 1."""
    action: Tensor | None
    """[R, A]"""
