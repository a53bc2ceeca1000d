"""Which implementation of an operation runs for a tensor, and why: the one place that decides.

`TWOHOT_BACKEND=reference` or `native` forces one; a forced one that cannot run is an error that says why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

try:
    from twohot import _native as native
except ImportError as error:
    native = None
    NATIVE_OBSTACLE = f"twohot._native cannot be imported ({error})"
else:
    NATIVE_OBSTACLE = ""

NATIVE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NATIVE_BINS = (2, 4096)


@dataclass(frozen=True)
class Choice:
    """The implementation that runs ("native" or "reference"), and a reason that a person can read."""

    name: str
    reason: str


def choose_two_hot(logits: Tensor) -> Choice:
    """Which implementation of the two-hot operations runs for logits [..., N].

    Raises:
        RuntimeError: when TWOHOT_BACKEND names one that is unknown, or that cannot run for these logits.
    """
    obstacle = _native_obstacle(logits)
    forced = os.environ.get("TWOHOT_BACKEND", "auto")
    if forced not in ("auto", "native", "reference"):
        raise RuntimeError(f"TWOHOT_BACKEND: expected auto, native or reference, got {forced!r}")
    if forced == "reference":
        return Choice("reference", "TWOHOT_BACKEND asks for it")
    if obstacle and forced == "native":
        raise RuntimeError(f"TWOHOT_BACKEND asks for native, but {obstacle}")
    if obstacle:
        return Choice("reference", obstacle)
    return Choice("native", f"{logits.dtype} on the CPU")


def _native_obstacle(logits: Tensor) -> str:
    if logits.device.type != "cpu":
        return f"the logits are on {logits.device}, native code runs on the CPU"
    if logits.dtype not in NATIVE_DTYPES:
        return f"the logits are {logits.dtype}, native code takes {', '.join(map(str, NATIVE_DTYPES))}"
    if not NATIVE_BINS[0] <= logits.shape[-1] <= NATIVE_BINS[1]:
        return f"there are {logits.shape[-1]} bins, native code takes {NATIVE_BINS[0]} to {NATIVE_BINS[1]}"
    return NATIVE_OBSTACLE
