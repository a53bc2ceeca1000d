"""The benchmarks of attention at sizes that take seconds."""

from __future__ import annotations

import pytest
import torch

from bench.groups import attention
from bench.harness import compare
from bench.harness.compare import Figures, Provider, goal_rows

pytestmark = pytest.mark.bench


def test_memory_that_grows_faster_than_windows_misses_the_goal(monkeypatch) -> None:
    comparison = attention.memory_comparison()
    providers = comparison.build(64)
    assert list(providers) == [f"{length} steps" for length in attention.MEMORY_LENGTHS]
    assert [provider.run()[1].shape[1] for provider in providers.values()] == [
        length // 64 for length in attention.MEMORY_LENGTHS
    ]
    lengths = attention.MEMORY_LENGTHS
    for power, met in ((1, "yes"), (2, "no")):
        figures = Figures({f"{length} steps": [float(length**power)] for length in lengths})
        (row,) = goal_rows(comparison, "mode", 1, Figures(), figures)
        assert (row.met, row.p50) == (met, (lengths[-1] / lengths[0]) ** power)


def test_other_memory_passes_before_each_step_and_is_not_timed(monkeypatch) -> None:
    providers = attention.steps(torch.float32, 2, 8, 16, 1)
    assert all(provider.setup is not None for provider in providers.values())
    calls = []
    monkeypatch.setattr(compare.time, "perf_counter", lambda: calls.append("clock") or 0.0)
    compare._seconds(Provider(lambda: calls.append("work"), setup=lambda: calls.append("setup"), calls=2))
    assert calls == ["setup", "clock", "work", "work", "clock"]
