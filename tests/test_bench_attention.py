"""The benchmarks of attention at sizes that take seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
MODULES = tuple(path.stem for path in (ROOT / "bench").glob("*.py"))


@pytest.fixture(autouse=True)
def _bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_cases_of_a_gpu_run_and_agree(monkeypatch) -> None:
    import gpu
    import gpu_attention

    def milliseconds(work) -> float:
        work()
        return 1.0

    monkeypatch.setattr(gpu, "milliseconds", milliseconds)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a processor")
    for works in (
        gpu_attention.window_works(torch.float32, 9, 16, "cpu", sequences=2),
        gpu_attention.step_works(torch.bfloat16, 3, 8, 16, "cpu"),
    ):
        gpu_attention.agree(works, torch.bfloat16)
        rows = gpu.timed_rows("case", works, "shape", next(iter(works)))
        assert [row.provider for row in rows] == list(works)
        assert rows[0].mode == "a processor"
        works["torch SDPA"] = lambda ours=works["twohot"]: tuple(x if x is None else x + 1 for x in ours())
        with pytest.raises(RuntimeError, match="torch SDPA differs from twohot: readout off by"):
            gpu_attention.agree(works, torch.bfloat16)
    with pytest.raises(RuntimeError, match="no CUDA or ROCm device is here"):
        gpu_attention.attention_on_a_gpu()


def test_memory_that_grows_faster_than_windows_misses_the_goal(monkeypatch) -> None:
    import attention
    from contest import Figures, goal_rows

    contest = attention.memory_contest()
    works = contest.build(64)
    assert list(works) == [f"{length} steps" for length in attention.MEMORY_LENGTHS]
    assert [work.work()[1].shape[1] for work in works.values()] == [length // 64 for length in attention.MEMORY_LENGTHS]
    lengths = attention.MEMORY_LENGTHS
    for power, met in ((1, "yes"), (2, "no")):
        figures = Figures({f"{length} steps": [float(length**power)] for length in lengths})
        (row,) = goal_rows(contest, "mode", 1, Figures(), figures)
        assert (row.met, row.p50) == (met, (lengths[-1] / lengths[0]) ** power)


def test_other_memory_passes_before_each_step_and_is_not_timed(monkeypatch) -> None:
    import attention
    import contest

    works = attention.steps(torch.float32, 2, 8, 16, 1)
    assert all(work.before is not None for work in works.values())
    calls = []
    monkeypatch.setattr(contest.time, "perf_counter", lambda: calls.append("clock") or 0.0)
    contest._seconds(contest.Alternative(lambda: calls.append("work"), before=lambda: calls.append("before"), calls=2))
    assert calls == ["before", "clock", "work", "work", "clock"]
