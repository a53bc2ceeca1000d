"""Which implementation of an operation runs for a tensor, and why: the one place that decides.

`TWOHOT_BACKEND=reference`, `native` or `triton` forces one; a forced one that cannot run is an error that says why.
`TWOHOT_ATTENTION` does so for attention alone, and knows torch's own attention, `sdpa`, too. Without it attention
follows `TWOHOT_BACKEND` where it can.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from twohot.kernels.torch_private import (
    dispatch_mode_count,
    environment,
    environment_key,
    functorch_transforms_active,
)

try:
    from twohot import _native as native
except ImportError as error:
    native = None
    NATIVE_UNSUPPORTED_REASON = f"twohot._native cannot be imported ({error})"
else:
    NATIVE_UNSUPPORTED_REASON = ""

NAMES = ("auto", "native", "triton", "reference")
ATTENTION_NAMES = (*NAMES, "sdpa")
FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FUSED_BINS = (2, 4096)
_VARIABLE, _OWN_VARIABLE = (environment_key(name) for name in ("TWOHOT_BACKEND", "TWOHOT_ATTENTION"))
_AUTO = ("TWOHOT_BACKEND", "auto")
_AUTO_ATTENTION = ("TWOHOT_ATTENTION", "auto")
# Triton reads it once as well, when its kernels are imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FUSED_HEAD_SIZES = (16, 256)
TRITON_FLOAT32_HEAD_SIZE = 128  # beyond, float32 spills registers
CHANNEL_STEP, MAX_CHANNELS = 16, 1024  # of images
FUSED_CACHES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Choice:
    """The implementation that runs (a name of `NAMES`, for attention of `ATTENTION_NAMES`), and a reason to read."""

    name: str
    reason: str


def choose_two_hot(device: torch.device, dtype: torch.dtype, bins: int) -> Choice:
    """Which implementation of the two-hot operations runs for logits of this device, dtype and number of bins.

    Raises:
        RuntimeError: when TWOHOT_BACKEND names one that is unknown, or that cannot run for these logits.
    """
    # Skip the lookup where nothing is forced: for a small loss it would dominate.
    if not torch.compiler.is_compiling() and type(bins) is int and environment.get(_VARIABLE) is None:
        return _choose(_two_hot, _AUTO, False, device.type, dtype, bins)
    return _look_up(_two_hot, _forced("TWOHOT_BACKEND"), device, dtype, bins)


def choose_decode(device: torch.device, dtype: torch.dtype, cache: torch.dtype, size: int) -> Choice:
    """Which implementation of one step of attention runs for queries of this device and dtype, D = `size` and a cache.

    Raises:
        RuntimeError: when TWOHOT_ATTENTION names one that is unknown or cannot run.
    """
    # Skip the lookup as in `choose_two_hot`: for a step of few environments it would dominate.
    asked = environment.get(_VARIABLE) is not None or environment.get(_OWN_VARIABLE) is not None
    if not torch.compiler.is_compiling() and type(size) is int and not asked:
        return _choose(_decode, _AUTO_ATTENTION, False, device.type, dtype, cache, size)
    return _look_up(_decode, _forced("TWOHOT_ATTENTION", "TWOHOT_BACKEND"), device, dtype, cache, size)


def choose_attention(device: torch.device, dtype: torch.dtype, size: int, softcap: bool) -> Choice:
    """Which implementation of attention over whole windows runs for tensors of this device, dtype and head size.

    Raises:
        RuntimeError: as `choose_decode`.
    """
    return _look_up(_attention, _forced("TWOHOT_ATTENTION", "TWOHOT_BACKEND"), device, dtype, size, softcap)


def images_run_natively(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Whether native code runs between convolutions for images of this device, dtype and channels."""
    asked = _forced("TWOHOT_BACKEND")[1]
    fits = dtype == torch.float32 and channels % CHANNEL_STEP == 0 and channels <= MAX_CHANNELS
    return native is not None and asked in ("auto", "native") and device.type == "cpu" and fits


def runs_triton(logits: Tensor) -> bool:
    """Whether the fused code for logits [R, N], for which `choose_two_hot` did not name the reference, is Triton's."""
    if logits.is_cpu and not _INTERPRETED:
        return False
    return choose_two_hot(logits.device, logits.dtype, logits.shape[1]).name == "triton"


def is_eager_tensor(tensor: Tensor) -> bool:
    """Whether an operation may run past the dispatcher: nothing traces, transforms or wraps tensors now."""
    return not (
        torch.compiler.is_compiling()
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or functorch_transforms_active()
        or dispatch_mode_count()
    )


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on this device; None where it is off, and for tensors without data, which it knows not."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which tensors of this device keep their dtypes."""
    return torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False)


def _forced(*variables: str) -> tuple[str, str]:
    """The first of these environment variables that is set, and what it asks for."""
    return next(((name, os.environ[name]) for name in variables if name in os.environ), (variables[0], "auto"))


def _look_up(decide: Callable[..., Choice], forced: tuple[str, str], device: torch.device, *details) -> Choice:
    interpreted = forced[1] == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    # torch.compile cannot see through the cache, and a traced size cannot be a key of it.
    traced = torch.compiler.is_compiling() or any(isinstance(detail, torch.SymInt) for detail in details)
    return (_choose.__wrapped__ if traced else _choose)(decide, forced, interpreted, device.type, *details)


@lru_cache(maxsize=256)
def _choose(decide: Callable[..., Choice], forced: tuple[str, str], interpreted: bool, device: str, *details) -> Choice:
    return decide(forced, interpreted, device, *details)


def _two_hot(forced: tuple[str, str], interpreted: bool, device: str, dtype: torch.dtype, bins: int) -> Choice:
    unsupported_reason = _dtype_unsupported_reason("logits are", dtype)
    if not unsupported_reason and not FUSED_BINS[0] <= bins <= FUSED_BINS[1]:
        unsupported_reason = f"there are {bins} bins, fused code takes {FUSED_BINS[0]} to {FUSED_BINS[1]}"
    return _first(
        forced,
        NAMES,
        _fused_unsupported_reasons("logits are", unsupported_reason, interpreted, device),
        dtype,
        device,
        "TWOHOT_BACKEND",
    )


def _decode(
    forced: tuple[str, str], interpreted: bool, device: str, dtype: torch.dtype, cache: torch.dtype, size: int
) -> Choice:
    unsupported_reason = _dtype_unsupported_reason("queries are", dtype) or _head_unsupported_reason(size)
    if not unsupported_reason and cache not in FUSED_CACHES:
        unsupported_reason = f"the cache is {cache}, fused code takes {', '.join(map(str, FUSED_CACHES))}"
    # torch's own attention has windows alone: asking for it means those.
    own = "" if forced[1] == "sdpa" else "TWOHOT_ATTENTION"
    unsupported_reasons = _fused_unsupported_reasons("queries are", unsupported_reason, interpreted, device)
    return _first(forced, ATTENTION_NAMES, unsupported_reasons, dtype, device, own)


def _attention(
    forced: tuple[str, str], interpreted: bool, device: str, dtype: torch.dtype, size: int, softcap: bool
) -> Choice:
    unsupported_reason = _dtype_unsupported_reason("queries are", dtype) or _head_unsupported_reason(size)
    unsupported_reasons = _fused_unsupported_reasons("queries are", unsupported_reason, interpreted, device)
    if not unsupported_reasons["native"] and dtype == torch.float16:
        unsupported_reasons["native"] = (
            "the queries are torch.float16, native attention takes torch.float32, torch.bfloat16"
        )
    if not unsupported_reasons["triton"] and dtype == torch.float32 and size > TRITON_FLOAT32_HEAD_SIZE:
        unsupported_reasons["triton"] = (
            f"the head size is {size}, Triton takes float32 up to {TRITON_FLOAT32_HEAD_SIZE}"
        )
    unsupported_reasons["sdpa"] = "torch's own attention has no softcap" if softcap else ""
    return _first(forced, ATTENTION_NAMES, unsupported_reasons, dtype, device, "TWOHOT_ATTENTION")


def _first(
    forced: tuple[str, str],
    names: tuple[str, ...],
    unsupported_reasons: dict[str, str],
    dtype: torch.dtype,
    device: str,
    own: str,
) -> Choice:
    """The forced implementation, or the first that supports them, or the reference and why no other.

    What the operation's `own` variable asks for and cannot run is an error; what another one asks for is a wish.
    """
    variable, name = forced
    if name not in names:
        raise RuntimeError(f"{variable}: expected one of {', '.join(names)}, got {name!r}")
    if name == "reference":
        return Choice("reference", f"{variable} asks for it")
    if name == "auto":
        able = (each for each, unsupported_reason in unsupported_reasons.items() if not unsupported_reason)
        name = next(able, "reference")
        expected = "triton" if device != "cpu" and "triton" in unsupported_reasons else next(iter(unsupported_reasons))
        return Choice(name, unsupported_reasons[expected] or f"{dtype} on {device}")
    unsupported_reason = unsupported_reasons.get(name, "this operation has none")
    if unsupported_reason and variable != own:
        choice = _first((own, "auto"), names, unsupported_reasons, dtype, device, own)
        return Choice(choice.name, f"{variable} asks for {name}, but {unsupported_reason}")
    if unsupported_reason:
        raise RuntimeError(f"{variable} asks for {name}, but {unsupported_reason}")
    return Choice(name, f"{variable} asks for it")


def _dtype_unsupported_reason(what: str, dtype: torch.dtype) -> str:
    if dtype in FUSED_DTYPES:
        return ""
    return f"the {what} {dtype}, fused code takes {', '.join(map(str, FUSED_DTYPES))}"


def _head_unsupported_reason(size: int) -> str:
    minimum, maximum = FUSED_HEAD_SIZES
    if minimum <= size <= maximum and size % minimum == 0:
        return ""
    return f"the head size is {size}, fused code takes multiples of {minimum} up to {maximum}"


def _fused_unsupported_reasons(what: str, shape: str, interpreted: bool, device: str) -> dict[str, str]:
    """Why the native and the Triton code cannot run; empty where they can."""
    on_cpu = "" if device == "cpu" else f"the {what} on {device}, native code runs on the CPU"
    return {
        "native": shape or on_cpu or NATIVE_UNSUPPORTED_REASON,
        "triton": shape or _triton_unsupported_reason(what, device, interpreted),
    }


def _triton_unsupported_reason(what: str, device: str, interpreted: bool) -> str:
    if find_spec("triton") is None:
        return "triton is not installed"
    if device != "cuda" and not interpreted:
        return f"the {what} on {device}, Triton runs on CUDA or ROCm (or, to test it, with TRITON_INTERPRET=1)"
    return ""
