"""The frame of the benchmarks: gated, written down with their conditions, failures included."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """bench/run.py and bench/cases.py as modules, writing into a folder of their own."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import frame
    import run

    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "run_gate", lambda group: "failed" if "broken.py" in group.tests else "passed")
    good = frame.Row("case", "ours", "train", 1.0, 2.0, 3.0, "ms")
    seed = frame.SeedResult("task", 1.0, 0, 0.9, 0.1, 0.1, 0.1, 8)

    def works():
        """Works."""
        return [good, seed]

    def breaks():
        """Breaks."""
        raise RuntimeError("no such device")

    groups = {
        "good": frame.Group((works,), ("ok.py",)),
        "bad": frame.Group((works, breaks), ("ok.py",)),
        "gated": frame.Group((works,), ("broken.py",)),
    }
    monkeypatch.setattr(run, "GROUPS", groups)
    yield run, tmp_path
    for name in ("cases", "frame", "losses", "run"):
        sys.modules.pop(name)


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_written_with_their_conditions(bench, monkeypatch) -> None:
    run, results = bench
    (results / "good_old.csv").write_text("stale")
    monkeypatch.setattr(sys, "argv", ["run.py", "good"])
    assert run.main() == 0
    (row,) = written(results / "good.csv")
    assert (row["provider"], row["p50"], row["unit"], row["gate"]) == ("ours", "2.0", "ms", "passed")
    assert row["torch"]
    assert row["cpu"]
    assert row["commit"]
    (seed,) = written(results / "good_returns.csv")
    assert (seed["task"], seed["agent_return"]) == ("task", "0.9")
    assert not (results / "good_old.csv").exists()


def test_a_failure_is_a_row(bench, monkeypatch) -> None:
    run, results = bench
    monkeypatch.setattr(sys, "argv", ["run.py", "bad"])
    assert run.main() == 1
    rows = written(results / "bad.csv")
    assert [row["mode"] for row in rows] == ["train", "failed"]
    assert rows[1]["provider"] == "RuntimeError: no such device"


def test_without_its_tests_nothing_is_measured(bench, monkeypatch) -> None:
    run, results = bench
    monkeypatch.setattr(sys, "argv", ["run.py", "gated"])
    assert run.main() == 1
    (row,) = written(results / "gated.csv")
    assert (row["mode"], row["gate"]) == ("failed", "failed")


def test_percentiles_of_interleaved_rounds() -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import frame
    finally:
        sys.path.pop(0)
        sys.modules.pop("frame", None)
    order: list[str] = []
    figures = frame.interleaved({name: lambda name=name: order.append(name) or 1.0 * len(order) for name in "ab"}, 2)
    assert order == ["a", "b"] * 3
    assert figures["a"].tolist() == [3.0, 5.0]
    assert frame.percentiles(figures["a"]) == pytest.approx((3.4, 4.0, 4.6))
