"""Benchmarks in general: gated, written down with their conditions, failures included; pages that show them."""

from __future__ import annotations

import csv
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import readme, run
from bench.cases import loss_providers
from bench.groups import find_groups, losses
from bench.harness import memory, results
from bench.harness.compare import (
    Comparison,
    Figures,
    Goal,
    Provider,
    difference,
    goal_rows,
    in_process,
    measure_times,
    rows,
)
from bench.harness.empty_op import empty_twin, first_call
from bench.harness.group import ROOT, Group, Table
from bench.harness.measure import Row, SeedResult, interleaved, percentiles
from twohot.losses import ValueBins, two_hot_cross_entropy

pytestmark = pytest.mark.bench


@pytest.fixture
def groups(monkeypatch) -> None:
    """Groups whose cases or tests work or fail, in place of those that there are."""

    def works():
        """Works."""
        return [Row("case", "ours", "train", 1.0, 2.0, 3.0, "ms"), SeedResult("task", 1.0, 0, 0.9, 0.1, 0.1, 0.1, 8)]

    def breaks():
        """Breaks."""
        raise RuntimeError("no such device")

    def on_request():
        """Waits for somebody who asks."""
        return [Row("other", "ours", "train", float(next(numbers)), 2.0, 3.0, "ms")]

    def on_request_too():
        """Breaks."""
        raise RuntimeError("not today")

    numbers = iter(range(9))
    found = {
        "good": Group("good ones", ("ok.py",), (works,)),
        "bad": Group("bad ones", ("ok.py",), (works, breaks)),
        "gated": Group("gated ones", ("broken.py",), (works,)),
        "long": Group("long ones", ("ok.py",), (works,), long=True),
        "asked": Group("some", ("ok.py",), (works,), on_request=(on_request, on_request_too)),
    }
    monkeypatch.setattr(run, "find_groups", lambda: found)
    monkeypatch.setattr(run, "run_gate", lambda group: "failed" if "broken.py" in group.gates else "passed")


def run_groups(monkeypatch, folder: Path, *names: str) -> int:
    monkeypatch.setattr("sys.argv", ["run.py", "--results", str(folder), *names])
    return run.main()


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("groups")
def test_rows_are_written_with_their_conditions(monkeypatch, tmp_path) -> None:
    assert run_groups(monkeypatch, tmp_path, "good") == 0
    (row,) = written(tmp_path / "good.csv")
    assert (row["provider"], row["p50"], row["unit"], row["gate"]) == ("ours", "2.0", "ms", "passed")
    assert row["torch"]
    assert row["cpu"]
    assert row["commit"]
    (seed,) = written(tmp_path / "good_returns.csv")
    assert (seed["task"], seed["agent_return"]) == ("task", "0.9")


@pytest.mark.usefixtures("groups")
def test_a_failure_is_a_row(monkeypatch, tmp_path) -> None:
    assert run_groups(monkeypatch, tmp_path, "bad") == 1
    rows = written(tmp_path / "bad.csv")
    assert [row["mode"] for row in rows] == ["train", "failed"]
    assert rows[1]["provider"] == "RuntimeError: no such device"


@pytest.mark.usefixtures("groups")
def test_without_its_tests_nothing_is_measured(monkeypatch, tmp_path) -> None:
    assert run_groups(monkeypatch, tmp_path, "gated") == 1
    (row,) = written(tmp_path / "gated.csv")
    assert (row["mode"], row["gate"]) == ("failed", "failed")


@pytest.mark.usefixtures("groups")
def test_long_groups_are_measured_where_they_are_named(monkeypatch, tmp_path) -> None:
    run_groups(monkeypatch, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*[!s].csv")) == ["asked.csv", "bad.csv", "gated.csv", "good.csv"]
    run_groups(monkeypatch, tmp_path, "long")
    assert (tmp_path / "long.csv").exists()
    with pytest.raises(SystemExit):
        run_groups(monkeypatch, tmp_path, "longer")


@pytest.mark.usefixtures("groups")
def test_one_case_of_a_group_takes_the_place_of_its_own_rows(monkeypatch, tmp_path) -> None:
    def numbers() -> list[tuple[str, str]]:
        return [(row["case"], row["p20"]) for row in written(tmp_path / "asked.csv")]

    run_groups(monkeypatch, tmp_path, "asked")
    assert numbers() == [("case", "1.0")]
    run_groups(monkeypatch, tmp_path, "asked", "--only", "on_request")
    assert numbers() == [("case", "1.0"), ("other", "0.0"), ("on_request_too", "0")]
    run_groups(monkeypatch, tmp_path, "asked", "--only", "on_request")
    assert numbers() == [("case", "1.0"), ("other", "1.0"), ("on_request_too", "0")]
    run_groups(monkeypatch, tmp_path, "asked")
    assert numbers() == [("other", "1.0"), ("on_request_too", "0"), ("case", "1.0")]
    with pytest.raises(SystemExit):
        run_groups(monkeypatch, tmp_path, "asked", "--only", "nothing")


def test_a_group_is_found_by_its_file_and_gated_by_tests_that_exist() -> None:
    found = find_groups()
    assert [*found] == sorted(path.stem for path in (ROOT / "bench" / "groups").glob("[!_]*.py"))
    for name, group in found.items():
        assert group.gates, name
        assert group.cases, name
        assert [test for test in group.gates if not (ROOT / "tests" / test).exists()] == [], name


def test_a_gate_runs_tests_of_every_marker(monkeypatch, tmp_path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not bench'\nmarkers = bench:")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "tests" / "test_marked.py").write_text(
        "import pytest\n\npytestmark = pytest.mark.bench\n\n\ndef test_it(): ...\n"
    )
    assert run.run_gate(Group("marked", ("test_marked.py",), ())) == "passed"


def test_tables_stand_where_a_page_has_a_place_for_them(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    page = "a\n<!-- table:one -->\nold\n<!-- end -->\nb\n<!-- table:two -->\n<!-- end -->\n"
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(readme, "read", lambda name: [{"cpu": "chip", "instructions": "avx2", "text": name}])
    tables = (Table(name, lambda rows: [f"| {rows[0]['text']} |"], (name,), "page.md") for name in ("one", "two"))
    one, two = tables
    (text,) = readme.written([one, two]).values()
    assert text == page.replace("old\n", "\n| one |\n\n").replace("two -->\n", "two -->\n\n| two |\n\n")
    with pytest.raises(SystemExit, match=r"page\.md: expected <!-- table:three"):
        readme.written([replace(one, name="three")])


def test_a_processor_without_rows_of_a_table_has_none(monkeypatch) -> None:
    rows = [{"cpu": "chip", "instructions": name, "text": name} for name in ("avx2", "amx", "sse2")]
    monkeypatch.setattr(readme, "read", lambda name: rows)
    own = Table("one", lambda rows: [f"| {rows[0]['text']} |"] if rows[0]["text"] != "amx" else [], ("one",), "page.md")
    assert readme.lines(own) == ["On chip, avx2:", "", "| avx2 |", "", "On chip, sse2:", "", "| sse2 |"]
    assert readme.lines(replace(own, write=lambda records: [])) == ["Not measured yet: `python -m bench.run`."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "no results; write them with: python -m bench.run kind"),
        ({"case": "a", "mode": "failed", "gate": "passed"}, "a case or its tests failed"),
        ({"case": "a", "mode": "train", "gate": "skipped"}, "a case or its tests failed"),
    ],
)
def test_a_page_shows_no_failures(monkeypatch, tmp_path, row, message) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    if row:
        (tmp_path / "kind_returns.csv").write_text("\n".join((",".join(row), ",".join(row.values()))))
    with pytest.raises(SystemExit, match=message):
        results.read("kind_returns")


def test_percentiles_of_interleaved_rounds() -> None:
    order: list[str] = []
    figures = interleaved({name: lambda name=name: order.append(name) or 1.0 * len(order) for name in "ab"}, 2)
    assert order == ["a", "b"] * 3
    assert figures["a"].tolist() == [3.0, 5.0]
    assert percentiles(figures["a"]) == pytest.approx((3.4, 4.0, 4.6))


def test_references_are_measured_before_each_of_the_others() -> None:
    order: list[str] = []
    works = {name: lambda name=name: order.append(name) or 1.0 * len(order) for name in "fabc"}
    figures = interleaved(works, 2, reference=("f", "b"), warm=0)
    assert order == ["f", "b", "a", "f", "b", "c"] * 2
    assert {name: values.tolist() for name, values in figures.items()} == {
        "f": [1, 4, 7, 10],
        "a": [3, 9],
        "b": [2, 5, 8, 11],
        "c": [6, 12],
    }


@pytest.fixture
def comparison():
    """A comparison of copies, one of each kind that can be: sound, wrong, raising, missing."""
    values = torch.arange(6.0).reshape(2, 3)

    def ours(error: float = 0.0, readout: bool = True):
        return values.mean(), values[:, 0] if readout else None, values / 6 + error

    def broken():
        raise RuntimeError("no such device\nreally")

    providers = {
        "floor": Provider(lambda: ()),
        "twohot": Provider(ours),
        "same 1.2.0": Provider(lambda: ours(1e-6), ours),
        "without readout": Provider(lambda: ours(readout=False), ours),
        "other": Provider(lambda: ours(1e-3), ours),
        "NaN": Provider(lambda: ours(float("nan")), ours),
        "broken": Provider(broken, ours),
        "absent": Provider(None, ours),
    }
    goals = (
        Goal("slower", "same", ("twohot",), at_least=2),
        Goal("near", "twohot", ("floor",), at_most=2.5),
        Goal("over", "twohot", ("floor",), at_most=5, kind="difference"),
        Goal("lean", "twohot", 80.0, at_most=1.05, kind="memory"),
        Goal("lost", "absent", ("twohot",), at_least=2),
    )
    return Comparison(
        "copies",
        "2 x 3",
        lambda batch_divisor: providers,
        ("floor",),
        "floor",
        "twohot",
        minimum=(0.01, "GB"),
        goals=goals,
    )


def test_what_differs_from_ours_fails_and_is_not_timed(comparison) -> None:
    figures = measure_times(comparison, 3)
    assert {name: len(values) for name, values in figures.values.items()} == dict.fromkeys(
        ("floor", "twohot", "same 1.2.0", "without readout"), 3
    )
    assert figures.missing == {
        "other": "differs from twohot: gradient 0 off by 0.0012",
        "NaN": "differs from twohot: gradient 0 off by nan",
        "broken": "RuntimeError: no such device",
        "absent": "not installed",
    }
    written = rows(comparison, "as is", 2, figures, Figures())
    assert [row.mode for row in written] == ["as is"] * 4 + ["failed"] * 3 + ["not installed"]
    assert written[-1].provider == "absent"
    assert written[-2].provider == "broken: RuntimeError: no such device"


def test_results_are_compared_part_by_part() -> None:
    one, row = torch.ones(()), torch.full((3,), 1e4)
    assert difference((one, row, row), (one, row, row)) == ""
    assert difference((one * 1.001, row, row), (one, row, row)).startswith("loss off by 0.001")
    assert difference((one, row + 0.5, row), (one, row, row)) == ""
    assert difference((one, row + 5, row), (one, row, row)).startswith("readout")
    assert difference((one, row, row[:2]), (one, row, row)) == "gradient 0 of shape (2,), not (3,)"
    tiny = 1e-6 * row
    assert difference((one, row, 1.01 * tiny), (one, row, tiny)).startswith("gradient 0")


def test_rows_and_goals_say_what_was_measured(comparison) -> None:
    figures = Figures(
        {"floor": [2e-6], "twohot": [4e-6, 6e-6, 8e-6], "same 1.2.0": [9e-6]}, {"absent": "not installed"}
    )
    memory = Figures({"twohot": [88.04]})
    floor, ours, same, _ = rows(replace(comparison, unit="us"), "huge pages", 2, figures, memory)
    assert (ours.p20, ours.p50, ours.p80) == pytest.approx((4.8, 6, 7.2))
    assert (ours.share_of_limit, ours.limit, ours.speedup, ours.extra_mb) == (3, "floor", 1, 88)
    assert (ours.rate, ours.rate_unit) == (1666.7, "GB/s")
    assert (same.speedup, same.extra_mb) == (1.5, "")
    assert (floor.share_of_limit, floor.threads, floor.mode) == (1, 2, "huge pages")
    goals = {row.provider: row for row in goal_rows(comparison, "huge pages", 2, figures, memory)}
    assert {name: (round(row.p50, 2), row.unit, row.target, row.met) for name, row in goals.items()} == {
        "slower": (1.5, "x", ">= 2", "no"),
        "near": (3, "x", "<= 2.5", "no"),
        "over": (4, "us", "<= 5", "yes"),
        "lean": (1.1, "x", "<= 1.05", "no"),
        "lost": (0, "x", ">= 2", "not measured"),
    }


def test_the_page_shows_comparisons_and_goals(comparison, monkeypatch, tmp_path) -> None:
    written = []
    for mode, slow in (("huge pages", 1), ("as is", 2)):
        for threads in (1, 2):
            figures = Figures({"floor": [2e-3], "twohot": [4e-3 * slow / threads]}, {"absent": "not installed"})
            written += rows(comparison, mode, threads, figures, Figures({"twohot": [80.0]}))
        written += goal_rows(comparison, mode, 2, figures, Figures({"twohot": [80.0]}))
    results.write(tmp_path, "losses", written, {**results.measured_conditions(), "gate": "passed"})
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    lines = losses.write_table(results.read("losses"))
    assert "**copies** (2 x 3), in ms:" in lines
    assert "| who | 2 threads | x twohot | x floor | 1 thread | no huge pages | x twohot | extra MB |" in lines
    assert "| twohot | 2 | 1 | 1 | 4 | 4 | 1 | 80 |" in lines
    assert "| floor | 2 | 1 | 1 | 2 | 2 | 0.5 |  |" in lines
    assert "| absent | not installed |  |  |  |  |  |  |" in lines
    assert "| near | <= 2.5 x | 1 x | yes | 2 x | yes |" in lines
    assert "| lost | >= 2 x |  | not measured |  | not measured |" in lines
    assert "Met: 3 of 5 with huge pages; 2 of 5 as is." in lines


CHIPS = ({"cpu": "old", "instructions": "avx2"}, {"cpu": "old", "instructions": "amx_bf16"})


def test_results_replace_those_of_their_own_group_and_processor_alone(tmp_path) -> None:
    row, seed = Row("case", "ours", "train", 1.0, 2.0, 3.0, "ms"), SeedResult("task", 1.0, 0, 0.9, 0.1, 0.1, 0.1, 8)
    for name in ("toy", "other"):
        for chip in CHIPS:
            results.write(tmp_path, name, [row, seed], chip)
    results.write(tmp_path, "toy", [replace(row, p50=2.5)], CHIPS[0])
    assert [(row["instructions"], row["p50"]) for row in written(tmp_path / "toy.csv")] == [
        ("amx_bf16", "2.0"),
        ("avx2", "2.5"),
    ]
    assert [row["instructions"] for row in written(tmp_path / "toy_returns.csv")] == ["amx_bf16"]
    results.write(tmp_path, "toy", [], CHIPS[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "other_returns.csv", "toy.csv"]
    assert len(written(tmp_path / "other.csv")) == 2


def test_each_processor_has_a_table_or_a_column(monkeypatch) -> None:
    goal = {"case": "goal", "provider": "acting alone: 16 rows", "mode": "collect", "target": ">= 2"}
    rows = [{**goal, **chip, "p50": p50, "met": met} for chip, p50, met in zip(CHIPS, "13", ("no", "yes"), strict=True)]
    monkeypatch.setattr(readme, "read", lambda name: rows)
    table = Table("any", lambda own: [f"{len(own)} of {own[0]['p50']}"], ("any",))
    assert readme.lines(table) == ["On old, avx2:", "", "1 of 1", "", "On old, amx_bf16:", "", "1 of 3"]
    assert readme.lines(replace(table, processors="first")) == ["1 of 1"]
    together = readme.lines(Table("any", readme.side_by_side, ("any",), processors="all"))
    assert together[0] == "|  | avx512_bf16 | old amx_bf16 | old avx2 |"
    (acting,) = (line for line in together if "acting" in line)
    assert acting.endswith("|  | 3 (asked >= 2: 1 of 1) | 1 (asked >= 2: 0 of 1) |")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts what Linux counts")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_peak_memory_counts_what_is_kept_and_what_is_passing() -> None:
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


def test_a_process_measures_under_its_mode_or_says_that_it_failed(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "script.py").write_text(
        "import json, os, sys\n"
        "task, mode, output = sys.argv[1:]\n"
        "pages, blocks = (os.environ.get(name) for name in ('THP_MEM_ALLOC_ENABLE', 'MALLOC_MMAP_THRESHOLD_'))\n"
        "open(output, 'w').write(json.dumps({mode: {'values': {}, 'missing': {'pages': pages, 'blocks': blocks}}}))\n"
        "sys.exit(3 * (task == 'broken'))\n"
    )
    assert in_process("script", "times", "huge pages") == {"huge pages": Figures({}, {"pages": "1", "blocks": None})}
    assert in_process("script", "memory", "as is") == {"as is": Figures({}, {"pages": "0", "blocks": "65536"})}
    assert in_process("script", "broken", "as is") == "script broken ended with 3"


COMPARISONS = ("two_hot", "hl_gauss", "one_head", "four_heads")


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_baseline_agrees_with_ours(monkeypatch, name: str) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    builds = {"one_head": lambda batch_divisor: loss_providers.linear(1, batch_divisor)}
    builds["four_heads"] = lambda batch_divisor: loss_providers.linear(4, batch_divisor)
    compared = 0
    for baseline, provider in (builds.get(name) or getattr(loss_providers, name))(256).items():
        if provider.run and provider.truth:
            assert difference(provider.run(), provider.truth()) == "", baseline
            compared += 1
    assert compared


def test_comparisons_name_providers_that_they_have(monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for comparison in losses.COMPARISONS:
        names = set(comparison.build(256))
        assert {*comparison.floors, *comparison.reference} <= names
        assert comparison.ours in names or not comparison.ours
        figures = Figures({name: [1.0] for name in names})
        assert "not measured" not in [row.met for row in goal_rows(comparison, "as is", 2, figures, figures)]


def test_a_package_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setattr(loss_providers, "installed_version", lambda name: None)
    assert loss_providers.two_hot(256)["torchrl"].run is None
    assert loss_providers.hl_gauss(256)["hl-gauss-pytorch"].run is None


def test_a_small_call_is_compared_with_an_op_of_the_same_signature() -> None:

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


def test_rows_that_were_just_written_make_no_other_commit(tmp_path, monkeypatch):
    row, source = tmp_path / "bench" / "results" / "scale.csv", tmp_path / "source.py"
    row.parent.mkdir(parents=True)
    for path in (row, source):
        path.write_text("before\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    row.write_text("after\n")
    assert re.fullmatch("[0-9a-f]{7}", results.measured_conditions()["commit"])
    source.write_text("after\n")
    assert results.measured_conditions()["commit"].endswith("-dirty")
