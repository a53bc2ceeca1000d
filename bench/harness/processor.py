"""Which processor this is, and bounds that depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""What tells kinds of processors apart, as Linux names it, the newest first."""


def model_and_instructions() -> tuple[str, str]:
    """The name of the processor, and the newest of INSTRUCTIONS that it has, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = about.get("flags", "").split()
    found = next((name for name in INSTRUCTIONS if name in flags), platform.machine())
    return about.get("model name", platform.processor()), found


def asked(with_amx: float, without: float) -> float:
    """A bound that differs between processors with AMX's tiles and others."""
    return with_amx if model_and_instructions()[1] == "amx_bf16" else without
