"""What Triton's launchers ask about the device."""

from __future__ import annotations

from typing import Any

import torch


def wave_size() -> int:
    """Threads of a warp (NVIDIA, 32) or of a wave (AMD, 64)."""
    return 64 if torch.version.hip else 32


def launch(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """Run a kernel with its arguments and the compiler's options, which type checkers do not know of."""
    kernel[grid](**arguments)
