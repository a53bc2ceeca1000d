"""Bounds that depend on the processor."""

from __future__ import annotations

from twohot.info import processor


def asked(with_amx: float, without: float) -> float:
    """A bound that differs between processors with AMX's tiles and others."""
    return with_amx if processor()[1] == "amx_bf16" else without
