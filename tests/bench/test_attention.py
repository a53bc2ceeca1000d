"""The benchmarks of attention at sizes that take seconds."""

from __future__ import annotations

import pytest
import torch

from bench.cases import gpu_attention
from bench.groups import attention
from bench.harness import compare, gpu_timing
from bench.harness.compare import Figures, Provider, goal_rows

pytestmark = pytest.mark.bench


def test_cases_of_a_gpu_run_and_agree(monkeypatch) -> None:
    def milliseconds(work) -> float:
        work()
        return 1.0

    monkeypatch.setattr(gpu_timing, "milliseconds", milliseconds)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a processor")
    for providers in (
        gpu_attention.window_providers(torch.float32, 9, 16, "cpu", sequences=2),
        gpu_attention.step_providers(torch.bfloat16, 3, 8, 16, "cpu"),
    ):
        gpu_attention.agree(providers, torch.bfloat16)
        rows = gpu_timing.timed_rows("case", providers, "shape", next(iter(providers)))
        assert [row.provider for row in rows] == list(providers)
        assert rows[0].mode == "a processor"
        providers["torch SDPA"] = lambda ours=providers["twohot"]: tuple(x if x is None else x + 1 for x in ours())
        with pytest.raises(RuntimeError, match="torch SDPA differs from twohot: readout off by"):
            gpu_attention.agree(providers, torch.bfloat16)
    with pytest.raises(RuntimeError, match="no CUDA or ROCm device is here"):
        gpu_attention.attention_on_a_gpu()


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
