"""How many rows a mean is over."""

from __future__ import annotations

from torch import Tensor


def count_valid_rows(mask: Tensor | None, rows: int, targets: int) -> int | Tensor:
    """How many of `rows` rows count: a number, or a float32 tensor on a device that would have to be waited for."""
    if mask is None:
        return rows
    count = mask.sum() * (rows // max(targets, 1))
    return int(count) if mask.device.type == "cpu" else count.float()


def per_valid_row(count: int | Tensor) -> float | Tensor:
    """1 / count, and 1 for none."""
    return 1 / count.clamp(min=1) if isinstance(count, Tensor) else 1 / max(count, 1)
