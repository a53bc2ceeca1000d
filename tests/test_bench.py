"""The frame of the benchmarks: gated, written down with their conditions, failures included."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
MODULES = tuple(path.stem for path in (ROOT / "bench").glob("*.py"))


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
    for name in MODULES:
        sys.modules.pop(name, None)


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


def test_percentiles_of_interleaved_rounds(bench) -> None:
    import frame

    order: list[str] = []
    figures = frame.interleaved({name: lambda name=name: order.append(name) or 1.0 * len(order) for name in "ab"}, 2)
    assert order == ["a", "b"] * 3
    assert figures["a"].tolist() == [3.0, 5.0]
    assert frame.percentiles(figures["a"]) == pytest.approx((3.4, 4.0, 4.6))


def test_what_is_measured_often_precedes_each_of_the_others(bench) -> None:
    import frame

    order: list[str] = []
    works = {name: lambda name=name: order.append(name) or 1.0 * len(order) for name in "fabc"}
    figures = frame.interleaved(works, 2, often=("f", "b"), warm=0)
    assert order == ["f", "b", "a", "f", "b", "c"] * 2
    assert {name: values.tolist() for name, values in figures.items()} == {
        "f": [1, 4, 7, 10],
        "a": [3, 9],
        "b": [2, 5, 8, 11],
        "c": [6, 12],
    }


@pytest.fixture
def contest(bench):
    """A contest of copies, one of each kind that can be: sound, wrong, raising, missing."""
    from contest import Alternative, Contest, Goal

    values = torch.arange(6.0).reshape(2, 3)

    def ours(error: float = 0.0, readout: bool = True):
        return values.mean(), values[:, 0] if readout else None, values / 6 + error

    def broken():
        raise RuntimeError("no such device\nreally")

    alternatives = {
        "floor": Alternative(lambda: ()),
        "twohot": Alternative(ours),
        "same 1.2.0": Alternative(lambda: ours(1e-6), ours),
        "without readout": Alternative(lambda: ours(readout=False), ours),
        "other": Alternative(lambda: ours(1e-3), ours),
        "NaN": Alternative(lambda: ours(float("nan")), ours),
        "broken": Alternative(broken, ours),
        "absent": Alternative(None, ours),
    }
    goals = (
        Goal("slower", "same", ("twohot",), at_least=2),
        Goal("near", "twohot", ("floor",), at_most=2.5),
        Goal("over", "twohot", ("floor",), at_most=5, kind="difference"),
        Goal("lean", "twohot", 80.0, at_most=1.05, kind="memory"),
        Goal("lost", "absent", ("twohot",), at_least=2),
    )
    return Contest(
        "copies", "2 x 3", lambda divisor: alternatives, ("floor",), "floor", "twohot", least=(0.01, "GB"), goals=goals
    )


def test_what_differs_from_ours_fails_and_is_not_timed(contest) -> None:
    from contest import Figures, measure, rows

    figures = measure(contest, 3)
    assert {name: len(values) for name, values in figures.values.items()} == dict.fromkeys(
        ("floor", "twohot", "same 1.2.0", "without readout"), 3
    )
    assert figures.obstacles == {
        "other": "differs from twohot: gradient 0 off by 0.0012",
        "NaN": "differs from twohot: gradient 0 off by nan",
        "broken": "RuntimeError: no such device",
        "absent": "not installed",
    }
    written = rows(contest, "as is", 2, figures, Figures())
    assert [row.mode for row in written] == ["as is"] * 4 + ["failed"] * 3 + ["not installed"]
    assert written[-1].provider == "absent"
    assert written[-2].provider == "broken: RuntimeError: no such device"


def test_results_are_compared_part_by_part(bench) -> None:
    from contest import difference

    one, row = torch.ones(()), torch.full((3,), 1e4)
    assert difference((one, row, row), (one, row, row)) == ""
    assert difference((one * 1.001, row, row), (one, row, row)).startswith("loss off by 0.001")
    assert difference((one, row + 0.5, row), (one, row, row)) == ""
    assert difference((one, row + 5, row), (one, row, row)).startswith("readout")
    assert difference((one, row, row[:2]), (one, row, row)) == "gradient 0 of shape (2,), not (3,)"
    tiny = 1e-6 * row
    assert difference((one, row, 1.01 * tiny), (one, row, tiny)).startswith("gradient 0")


def test_rows_and_goals_say_what_was_measured(contest) -> None:
    from contest import Figures, goal_rows, rows

    figures = Figures(
        {"floor": [2e-6], "twohot": [4e-6, 6e-6, 8e-6], "same 1.2.0": [9e-6]}, {"absent": "not installed"}
    )
    memory = Figures({"twohot": [88.04]})
    floor, ours, same, _ = rows(replace(contest, unit="us"), "huge pages", 2, figures, memory)
    assert (ours.p20, ours.p50, ours.p80) == pytest.approx((4.8, 6, 7.2))
    assert (ours.share_of_limit, ours.limit, ours.times_ours, ours.extra_mb) == (3, "floor", 1, 88)
    assert (ours.rate, ours.rate_unit) == (1666.7, "GB/s")
    assert (same.times_ours, same.extra_mb) == (1.5, "")
    assert (floor.share_of_limit, floor.threads, floor.mode) == (1, 2, "huge pages")
    goals = {row.provider: row for row in goal_rows(contest, "huge pages", 2, figures, memory)}
    assert {name: (round(row.p50, 2), row.unit, row.target, row.met) for name, row in goals.items()} == {
        "slower": (1.5, "x", ">= 2", "no"),
        "near": (3, "x", "<= 2.5", "no"),
        "over": (4, "us", "<= 5", "yes"),
        "lean": (1.1, "x", "<= 1.05", "no"),
        "lost": (0, "x", ">= 2", "not measured"),
    }


def test_the_readme_shows_contests_and_goals(contest, bench, monkeypatch) -> None:
    run, results = bench
    import readme
    from contest import Figures, goal_rows, rows

    written = []
    for mode, slow in (("huge pages", 1), ("as is", 2)):
        for threads in (1, 2):
            figures = Figures({"floor": [2e-3], "twohot": [4e-3 * slow / threads]}, {"absent": "not installed"})
            written += rows(contest, mode, threads, figures, Figures({"twohot": [80.0]}))
        written += goal_rows(contest, mode, 2, figures, Figures({"twohot": [80.0]}))
    run.write("losses", written, {**run.conditions(), "gate": "passed"})
    monkeypatch.setattr(readme, "RESULTS", results)
    lines = readme.losses()
    assert "**copies** (2 x 3), in ms:" in lines
    assert "| who | 2 threads | x twohot | x floor | 1 thread | no huge pages | x twohot | extra MB |" in lines
    assert "| twohot | 2 | 1 | 1 | 4 | 4 | 1 | 80 |" in lines
    assert "| floor | 2 | 1 | 1 | 2 | 2 | 0.5 |  |" in lines
    assert "| absent | not installed |  |  |  |  |  |  |" in lines
    assert "| near | <= 2.5 x | 1 x | yes | 2 x | yes |" in lines
    assert "| lost | >= 2 x |  | not measured |  | not measured |" in lines
    assert "Met: 3 of 5 with huge pages; 2 of 5 as is." in lines


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts what Linux counts")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_peak_memory_counts_what_is_kept_and_what_is_passing(bench) -> None:
    import memory

    kept: list[torch.Tensor] = []

    def megabytes(count: int) -> torch.Tensor:
        return torch.ones(count << 20, dtype=torch.uint8)

    def work() -> torch.Tensor:
        kept.append(megabytes(40))
        megabytes(60)
        return megabytes(50)

    megabytes(500)  # an earlier peak, which does not count
    pages = [torch.ones(1 << 16, dtype=torch.uint8) for _ in range(1 << 10)]
    last = torch.ones(1 << 16, dtype=torch.uint8)
    del pages  # which malloc keeps, as they lie below a block in use
    extra, result = memory.peak(work)
    del last
    assert len(result) == 50 << 20
    assert extra / 2**20 == pytest.approx(2 * 40 + 60, abs=4)
    assert memory.in_fork(lambda: 7) == 7
    assert memory.in_fork(lambda: {}["a"]) == "KeyError: 'a'"


def test_a_process_measures_under_its_mode_or_says_that_it_failed(bench) -> None:
    from contest import Figures, in_process

    _, folder = bench
    script = folder / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "task, mode, output = sys.argv[1:]\n"
        "pages, blocks = (os.environ.get(name) for name in ('THP_MEM_ALLOC_ENABLE', 'MALLOC_MMAP_THRESHOLD_'))\n"
        "open(output, 'w').write(json.dumps({mode: {'values': {}, 'obstacles': {'pages': pages, 'blocks': blocks}}}))\n"
        "sys.exit(3 * (task == 'broken'))\n"
    )
    assert in_process(script, "times", "huge pages") == {"huge pages": Figures({}, {"pages": "1", "blocks": None})}
    assert in_process(script, "memory", "as is") == {"as is": Figures({}, {"pages": "0", "blocks": "65536"})}
    assert in_process(script, "broken", "as is") == "script.py broken ended with 3"


CONTESTS = ("two_hot", "hl_gauss", "one_head", "four_heads")


@pytest.mark.parametrize("name", CONTESTS)
def test_every_peer_agrees_with_ours(bench, monkeypatch, name: str) -> None:
    import alternatives
    from contest import difference

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    builds = {"one_head": lambda divisor: alternatives.linear(1, divisor)}
    builds["four_heads"] = lambda divisor: alternatives.linear(4, divisor)
    compared = 0
    for peer, alternative in (builds.get(name) or getattr(alternatives, name))(256).items():
        if alternative.work and alternative.truth:
            assert difference(alternative.work(), alternative.truth()) == "", peer
            compared += 1
    assert compared


def test_contests_name_alternatives_that_they_have(bench, monkeypatch) -> None:
    import losses
    from contest import Figures, goal_rows

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for contest in losses.CONTESTS:
        names = set(contest.build(256))
        assert {*contest.floors, *contest.often} <= names
        assert contest.ours in names or not contest.ours
        figures = Figures({name: [1.0] for name in names})
        assert "not measured" not in [row.met for row in goal_rows(contest, "as is", 2, figures, figures)]


def test_a_package_that_is_missing_is_named(bench, monkeypatch) -> None:
    import alternatives
    import peers

    monkeypatch.setattr(peers, "release", lambda name: None)
    assert alternatives.two_hot(256)["torchrl"].work is None
    assert alternatives.hl_gauss(256)["hl-gauss-pytorch"].work is None


def test_a_small_call_is_compared_with_an_op_of_the_same_signature(bench) -> None:
    from empty_op import empty_twin, first_call
    from twohot.losses import ValueBins, two_hot_cross_entropy

    logits, target = torch.randn(32, 128, requires_grad=True), torch.randn(32)

    def loss() -> torch.Tensor:
        return two_hot_cross_entropy(logits, target, ValueBins.amago2(128))

    op, arguments, *_ = first_call(loss)
    assert op.namespace == "twohot"
    assert arguments[0].shape == logits.shape
    answer = empty_twin(loss, logits)()
    (gradient,) = torch.autograd.grad(answer, logits, torch.ones_like(answer))
    assert gradient.shape == logits.shape
    with pytest.raises(RuntimeError, match="no operation of twohot"):
        first_call(logits.sum)
