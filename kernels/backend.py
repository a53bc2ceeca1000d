"""Which implementation of an operation runs for a tensor, and why: the one place that decides.

`TWOHOT_BACKEND=reference`, `native` or `triton` forces one; a forced one that cannot run is an error that says why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

try:
    from twohot import _native as native
except ImportError as error:
    native = None
    NATIVE_OBSTACLE = f"twohot._native cannot be imported ({error})"
else:
    NATIVE_OBSTACLE = ""

NAMES = ("auto", "native", "triton", "reference")
FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FUSED_BINS = (2, 4096)
_VARIABLE = os.environ.encodekey("TWOHOT_BACKEND")
# Triton reads it once as well, when its kernels are imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Choice:
    """The implementation that runs ("native", "triton" or "reference"), and a reason that a person can read."""

    name: str
    reason: str


def choose_two_hot(device: torch.device, dtype: torch.dtype, bins: int) -> Choice:
    """Which implementation of the two-hot operations runs for logits of this device, dtype and number of bins.

    Raises:
        RuntimeError: when TWOHOT_BACKEND names one that is unknown, or that cannot run for these logits.
    """
    # torch.compile cannot see through the cache, and a traced number of bins cannot be a key of it.
    if torch.compiler.is_compiling() or type(bins) is not int:
        return _choose.__wrapped__(*_environment(), device.type, dtype, bins)
    # os.environ raises and catches two errors where a variable is missing, at the price of a small loss.
    forced = os.environ._data.get(_VARIABLE)
    return _choose(*(("auto", False) if forced is None else _environment()), device.type, dtype, bins)


def _environment() -> tuple[str, bool]:
    """(the implementation that TWOHOT_BACKEND names, whether Triton's would be interpreted)."""
    forced = os.environ.get("TWOHOT_BACKEND", "auto")
    return forced, forced == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


def runs_triton(logits: Tensor) -> bool:
    """Whether the fused code for logits [R, N], for which `choose_two_hot` did not name the reference, is Triton's."""
    if logits.is_cpu and not _INTERPRETED:
        return False
    return choose_two_hot(logits.device, logits.dtype, logits.shape[1]).name == "triton"


def plain_eager(tensor: Tensor) -> bool:
    """Whether an operation may run at once, past the dispatcher: nothing traces, transforms or wraps tensors now."""
    return not (
        torch.compiler.is_compiling()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )


@lru_cache(maxsize=256)
def _choose(forced: str, interpreted: bool, device: str, dtype: torch.dtype, bins: int) -> Choice:
    if forced not in NAMES:
        raise RuntimeError(f"TWOHOT_BACKEND: expected one of {', '.join(NAMES)}, got {forced!r}")
    if forced == "reference":
        return Choice("reference", "TWOHOT_BACKEND asks for it")
    fitting = forced if forced != "auto" else "native" if device == "cpu" else "triton"
    obstacle = _shape_obstacle(dtype, bins)
    if not obstacle:
        obstacle = _native_obstacle(device) if fitting == "native" else _triton_obstacle(device, interpreted)
    if obstacle and forced != "auto":
        raise RuntimeError(f"TWOHOT_BACKEND asks for {forced}, but {obstacle}")
    if obstacle:
        return Choice("reference", obstacle)
    return Choice(fitting, f"{dtype} on {device}")


def _shape_obstacle(dtype: torch.dtype, bins: int) -> str:
    if dtype not in FUSED_DTYPES:
        return f"the logits are {dtype}, fused code takes {', '.join(map(str, FUSED_DTYPES))}"
    if not FUSED_BINS[0] <= bins <= FUSED_BINS[1]:
        return f"there are {bins} bins, fused code takes {FUSED_BINS[0]} to {FUSED_BINS[1]}"
    return ""


def _native_obstacle(device: str) -> str:
    if device != "cpu":
        return f"the logits are on {device}, native code runs on the CPU"
    return NATIVE_OBSTACLE


def _triton_obstacle(device: str, interpreted: bool) -> str:
    if find_spec("triton") is None:
        return "triton is not installed"
    if device != "cuda" and not interpreted:
        return f"the logits are on {device}, Triton runs on CUDA or ROCm (or, to test it, with TRITON_INTERPRET=1)"
    return ""
