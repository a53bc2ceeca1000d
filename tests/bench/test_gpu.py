"""The benchmark of a GPU, without one: its cases, budget, processes and rows."""

from __future__ import annotations

import csv
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.cases import gpu_attention, gpu_collecting, gpu_learner, gpu_losses
from bench.harness import gpu_timing, in_place
from bench.harness.gpu_timing import Case, GpuRow

pytestmark = pytest.mark.bench

CASES = [
    case for module in (gpu_losses, gpu_attention, gpu_learner, gpu_collecting) for case in module.cases(tiny=True)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.case}, {case.shape}")
def test_a_case_runs_on_a_cpu_and_its_providers_agree(case) -> None:
    rows = gpu_timing.run(case, "cpu")
    assert {row.note for row in rows} <= {"no GPU", "not installed"}
    assert "twohot" in {row.provider for row in rows}
    assert all(row.p50 == "" for row in rows)


def test_every_case_has_a_smaller_twin() -> None:
    for module in (gpu_losses, gpu_attention, gpu_learner, gpu_collecting):
        assert {case.case for case in module.cases(tiny=True)} == {case.case for case in module.cases(tiny=False)}


@pytest.fixture
def as_a_gpu(monkeypatch) -> None:
    """A clock in place of a GPU's, and nothing to wait for."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(gpu_timing, "on_the_gpu", lambda work: (float(work() or 2), 0.5))


@pytest.mark.usefixtures("as_a_gpu")
def test_what_fails_or_differs_is_a_row_and_the_rest_is_timed() -> None:
    def breaks() -> None:
        raise ValueError("no such thing\nat all")

    right = torch.ones(3)
    works = {
        "copy": lambda: 1.0,
        "twohot": lambda: 4.0,
        "broken": breaks,
        "absent": "not installed",
    }
    rows = {row.provider: row for row in gpu_timing.run(Case("c", "s", lambda _: works, "copy", amount=8.0), "cuda")}
    assert (rows["twohot"].p50, rows["twohot"].share_of_limit, rows["twohot"].rate) == (4, 4, 2)
    assert (rows["copy"].speedup, rows["copy"].launch_ms) == (0.25, 0.5)
    assert [rows[name].note for name in works] == ["", "", "failed: ValueError: no such thing", "not installed"]
    assert rows["broken"].p50 == ""
    works = {
        "twohot": lambda: (None, right),
        "other": lambda: (None, 1.2 * right),
        "near": lambda: (None, 1.01 * right),
    }
    rows = {row.provider: row for row in gpu_timing.run(Case("c", "s", lambda _: works, tolerance=0.1), "cpu")}
    assert [rows[name].note for name in works] == [
        "no GPU",
        "failed: not what twohot computes: readout off by 0.2",
        "no GPU",
    ]


def test_what_breaks_the_gpu_ends_the_process() -> None:
    def breaks() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        gpu_timing.run(Case("c", "s", lambda _: {"twohot": breaks}), "cuda")


WORKER = """
import sys
from bench.harness import gpu_worker
from bench.harness.gpu_timing import Case

def breaks():
    raise RuntimeError("CUDA error: gone")

def ends():
    sys.exit(7)

def sleeps():
    import time
    time.sleep(60)

works = [lambda: None, breaks, ends, lambda: None, lambda: None, sleeps, lambda: None]
seconds = [1, 1, 1, 1000, 1, 1, 1]

def cases(tiny):
    return [Case(str(i), "s", lambda _, w=w: {"twohot": w}, seconds=s) for i, (w, s) in enumerate(zip(works, seconds))]
"""


class SixCases(gpu.Budget):
    """A budget that the sixth case uses up."""

    asked = 0

    @property
    def left(self) -> float:
        return 300.0 if self.asked < 6 else 0.5

    def fits(self, seconds: float) -> bool:
        fits = super().fits(seconds)
        self.asked += 1
        return fits


def test_a_section_goes_on_after_what_breaks_and_ends_with_its_budget(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "seven_cases.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "MODULES", "")
    results = gpu.Results(tmp_path / "gpu.csv", {"device": "a GPU"})
    gpu.measure("seven_cases", "cpu", SixCases(0), results)
    notes = [str(row["note"]) for row in results.new]
    assert notes[:2] == ["no GPU", "failed: RuntimeError: CUDA error: gone"]
    assert notes[2:5] == ["failed: its process ended (7)", "left out: its 1000 s did not fit any more", "no GPU"]
    assert notes[5:] == ["cut: the budget was used up"]
    with (tmp_path / "gpu.csv").open(newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == notes


def test_a_section_that_does_not_start_is_a_row(tmp_path, monkeypatch) -> None:
    results = gpu.Results(tmp_path / "gpu.csv", {"device": "a GPU"})
    gpu.measure("no_such_section", "cpu", gpu.Budget(60), results)
    monkeypatch.setattr(gpu, "MODULES", "")
    gpu.measure("this", "cpu", gpu.Budget(60), results)  # has no cases
    notes = [
        "left out: bench.cases.no_such_section is not installed (make gpu-wheels)",
        "failed: no process for it (1)",
    ]
    assert [row["note"] for row in results.new] == notes


def test_rows_of_another_device_stay(tmp_path) -> None:
    path = tmp_path / "gpu.csv"
    for device, p50 in (("one", 1.0), ("other", 2.0), ("one", 3.0)):
        results = gpu.Results(path, {"device": device, "gate": "passed"})
        results.add([{"case": "c", "shape": "s", "provider": "twohot", "p50": p50, "unit": "ms"}])
    with path.open(newline="") as file:
        assert [(row["device"], row["p50"]) for row in csv.DictReader(file)] == [("other", "2.0"), ("one", "3.0")]
    assert {field.name for field in fields(GpuRow)} == set(gpu.COLUMNS) - set(gpu.CONDITIONS)
    shown = gpu.table(results.new).splitlines()[-1]
    assert shown.startswith("| c | s | twohot | 3.0 | ms |")


def test_a_budget_is_kept(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    budget = gpu.Budget(10)
    assert (budget.left, budget.fits(10), budget.fits(11)) == (10, True, False)
    assert (budget.keeping(4).left, budget.left) == (6, 10)
    now[0] += 8
    assert (budget.left, budget.fits(2), budget.fits(3)) == (2, True, False)


def test_a_command_is_ended_when_its_time_is_up() -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"
    assert gpu.run([sys.executable, "-c", code], 5) == ("begun\n", None)
    assert gpu.run([sys.executable, "-c", "print(1); exit(3)"], 60) == ("1\n", 3)


def test_what_is_missing_for_the_extension_is_said(monkeypatch) -> None:
    known = {"headers": "/nowhere", "torch": "1", "pybind11": "", "torch folder": "/nowhere"}
    monkeypatch.setattr(in_place.shutil, "which", lambda name: None)
    said = in_place.build(known, 1.0)
    assert said.startswith("not compiled: there is no cmake, no ninja or make, no C++20 compiler, no Python.h")
    assert said.endswith("no pybind11")


def test_wheels_are_found_by_the_processes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(in_place, "WHEELS", tmp_path)
    assert str(tmp_path / "unpacked") not in in_place.environment()["PYTHONPATH"]
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried/__init__.py", "here = 5")
    output, code = gpu.run([sys.executable, "-c", "import carried, bench, twohot; print(carried.here)"], 60)
    assert (output, code) == ("5\n", 0)


def test_facts_name_what_there_is() -> None:
    known = in_place.facts()
    assert known["torch"] == torch.__version__
    assert Path(known["headers"]).name.startswith("python3")
    assert Path(known["torch folder"]) == Path(torch.__file__).parent
