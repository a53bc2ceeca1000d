"""Say what this installation is and runs.

info                     versions, devices, and which native code runs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twohot.cli.options import parse
from twohot.text import printable


@dataclass(frozen=True)
class InfoOptions:
    """Versions, devices, and which native code runs."""

    attention: bool = False
    """Say which implementation of attention runs for the shapes below, and why, instead."""
    head_size: int = 32
    """D, places of a head."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Of queries, keys, values and cache."""
    device: str = "cpu"
    """Where they are: cpu or cuda."""


def run(arguments: list[str]) -> int:
    """Print it; returns the exit code."""
    options = parse(InfoOptions, "info", arguments)
    from twohot.info import attention_info, environment_info

    labels = (
        attention_info(options.device, options.dtype, options.head_size) if options.attention else environment_info()
    )
    width = max(map(len, labels))
    print("\n".join(f"{label:{width}}  {printable(value)}" for label, value in labels.items()))
    return 0
