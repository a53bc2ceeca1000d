"""What Triton's launchers ask about the device."""

from __future__ import annotations

import torch


def wave_size() -> int:
    """Threads of a warp (NVIDIA, 32) or of a wave (AMD, 64)."""
    return 64 if torch.version.hip else 32
