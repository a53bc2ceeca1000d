"""Test and measure what runs on a GPU, within some minutes, with an interpreter that is already there.

    make gpu PYTHON=python3    # nothing is installed and nothing is downloaded
    make gpu-rehearsal         # without a GPU and without network, all of it that needs neither

It compiles the extension in place, runs the tests of the kernels, then measures losses, the fused last layer,
attention, updates and collecting, beside what else the interpreter has. What no longer fits into the budget is left
out, and a row says so. Each case stands alone: one that fails is a row that says why. Rows go to bench/results/gpu.csv
as they come; those of another GPU stay.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.harness import in_place
from bench.harness.in_place import ROOT, end, run

BUDGET = 480.0
"""Seconds."""
TESTS_SHARE = 0.35
"""Of the budget, at most, for the tests."""
MODULES = "bench.cases."
SECTIONS = {"gpu_losses": 170, "gpu_attention": 120, "gpu_learner": 30, "gpu_collecting": 0}
"""What is measured, in this order, and the seconds that are kept for what comes after."""
FIGURES = ("p20", "p50", "p80", "unit", "launch_ms", "share_of_limit", "limit", "speedup", "rate", "rate_unit")
CONDITIONS = ("gate", "commit", "cpu", "python", "torch", "triton", "cuda", "numpy")
COLUMNS = ("device", "case", "shape", "provider", *FIGURES, "note", *CONDITIONS)
KEY = COLUMNS[:4]
TESTS = ("tests/kernels/test_two_hot_triton.py", "tests/kernels/test_attention_triton.py")
AHEAD = ("N=128 fp32 two-hot gradient readout=transformed symlog", "D=32 bf16 forward of windows", "D=32 bf16 step")
"""Configurations of kernels that a rehearsal compiles for sm_90."""
REHEARSAL = "none (rehearsal)"
Row = dict[str, object]


class Budget:
    """Seconds that are left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def fits(self, seconds: float) -> bool:
        return seconds <= self.left

    def keeping(self, seconds: float) -> Budget:
        """What is left but for these."""
        return Budget(self.left - seconds)


class Results:
    """The rows of a file, written at once; a row takes the place of an older one of the same device and provider."""

    def __init__(self, path: Path, conditions: dict[str, str]) -> None:
        self.path, self.conditions, self.new = path, conditions, []
        self.old: list[Row] = []
        if path.exists():
            with path.open(newline="") as file:
                self.old = list(csv.DictReader(file))

    def add(self, rows: list[Row]) -> None:
        """Add rows, print them, and write the file."""
        for row in rows:
            self.new.append({**row, **self.conditions})
            print(f"  {line(self.new[-1])}", flush=True)
        known = {key(row) for row in self.new}
        kept = [row for row in self.old if key(row) not in known]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".tmp")
        with written.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *self.new])
        written.replace(self.path)


def key(row: Row) -> tuple[str, ...]:
    """What makes two rows of the same thing."""
    return tuple(str(row.get(name, "")) for name in KEY)


def line(row: Row) -> str:
    """A row of the table."""
    figure = row.get("note") or f"{row['p50']} {row['unit']}"
    ratio = f"{row['share_of_limit']} x {row['limit']}" if row.get("share_of_limit") else ""
    rate = f"{row['rate']} {row['rate_unit']}" if row.get("rate") else ""
    return f"{row['case']} | {row['shape']} | {row.get('provider') or '-'} | {figure} | {rate} | {ratio}"


def table(rows: list[Row]) -> str:
    """All rows, as Markdown; what a row shares with the one before is said once."""
    head = ("case", "shape", "provider", "p50", "unit", "launch_ms", "of the limit", "against twohot", "rate", "note")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    before = ("", "")
    for row in rows:
        place = str(row["case"]), str(row["shape"])
        shown = ("", "") if place == before else place
        before = place
        names = ("provider", "p50", "unit", "launch_ms", "share_of_limit", "speedup")
        cells = [*shown, *(str(row.get(name, "")) for name in names)]
        cells += [f"{row.get('rate', '')} {row.get('rate_unit', '') if row.get('rate') else ''}".strip()]
        lines.append(f"| {' | '.join([*cells, str(row.get('note', ''))])} |")
    return "\n".join(lines)


def correctness(known: dict[str, str], budget: Budget, rehearse: bool) -> str:
    """Run the tests of the kernels; says what came of it, for the column `gate`."""
    if not known["pytest"]:
        return "no pytest: each case's own comparison alone"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-v", "-rN", *TESTS]
    if rehearse:
        command += ["--collect-only", "-q"]
    elif known["xdist"]:
        command += ["-n", str(max(1, min(8, (os.cpu_count() or 2) // 2)))]
    seconds = max(budget.left * TESTS_SHARE, 1.0)
    output, code = run(command, seconds)
    if rehearse:
        counted = re.search(r"(\d+)(?:/\d+)? tests? collected", output)
        return (
            f"{counted[1]} tests collected"
            if counted and not code
            else f"tests failed to be collected: {output[-300:]}"
        )
    outcomes = {name: len(re.findall(rf"\b{name}\b", output)) for name in ("PASSED", "FAILED", "ERROR")}
    failed = outcomes["FAILED"] + outcomes["ERROR"]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "gpu-tests.log").write_text(output)
    if failed or code not in (0, None):
        print("\n".join(each for each in output.splitlines() if re.search(r"\b(FAILED|ERROR)\b|^E  ", each))[-4000:])
    cut = f", cut after {seconds:.0f} s" if code is None else ""
    return f"{outcomes['PASSED']} tests passed{f', {failed} failed' if failed else ''}{cut}"


def ahead_of_time(seconds: float) -> str:
    """Compile some kernels for sm_90, which needs no GPU."""
    code = f"from bench import aot; cases = aot.cases(); [aot.measure(name, cases[name], 'sm_90') for name in {AHEAD}]"
    output, exit_code = run([sys.executable, "-c", code], seconds)
    return f"{len(AHEAD)} kernels compile for sm_90" if exit_code == 0 else f"kernels do not compile: {output[-300:]}"


def measure(section: str, device: str, budget: Budget, results: Results) -> None:
    """Run the cases of a section, in as many processes as it takes."""
    module, first = f"{MODULES}{section}", 0
    while True:
        command = [sys.executable, "-m", "bench.harness.gpu_worker", module, device, str(first)]
        done, first = _one_process(command, section, first, budget, results)
        if done:
            return


def _one_process(command: list[str], section: str, first: int, budget: Budget, results: Results) -> tuple[bool, int]:
    """Cases from `first` on, until the process ends: whether all are done, and which one is next."""
    answers: queue.Queue[dict | None] = queue.Queue()
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, env=in_place.environment(), **options)

    def read() -> None:
        for each in process.stdout:
            answers.put(json.loads(each))
        answers.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    current: Row = {"case": section, "shape": ""}
    begun = False
    try:
        while True:
            try:
                answer = answers.get(timeout=max(budget.left, 0.1))
            except queue.Empty:
                results.add([{**current, "note": "cut: the budget was used up"}])
                return True, first
            if answer is None:
                code = process.wait()
                if begun:
                    results.add([{**current, "note": f"failed: its process ended ({code})"}])
                elif code != 3:  # the worker's BROKEN: the case has its row
                    results.add([{**current, "note": f"failed: no process for it ({code})"}])
                    return True, first
                return False, first
            if "rows" in answer:
                results.add([{**row, "device": ""} for row in answer["rows"]])
                begun = False
            elif "case" in answer:
                first += 1
                current = {name: answer[name] for name in ("case", "shape")}
                begun = budget.fits(answer["seconds"])
                if not begun:
                    results.add([{**current, "note": f"left out: its {answer['seconds']:.0f} s did not fit any more"}])
                process.stdin.write("run\n" if begun else "skip\n")
                process.stdin.flush()
            else:
                return True, first
    finally:
        end(process)
        reader.join()
        process.stdout.close()
        process.stdin.close()
        process.wait()


def without_network() -> None:
    """Start again in a namespace without network, where the system permits that."""
    command = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        os.execvp("unshare", [*command, sys.executable, "-m", "bench.gpu", *sys.argv[1:], "--inside"])
    print("no namespace without network can be made here: the rehearsal runs with it")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="run what needs no GPU, without network")
    parser.add_argument(
        "--budget", type=float, help=f"seconds for everything ({BUDGET:.0f}; of a rehearsal 4 times that)"
    )
    parser.add_argument(
        "--results", type=Path, help="the CSV (bench/results/gpu.csv; of a rehearsal build/gpu-rehearsal.csv)"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the namespace without network
    options = parser.parse_args()
    if options.rehearse and not options.inside:
        without_network()
    seconds = options.budget or BUDGET * (4 if options.rehearse else 1)
    budget = Budget(seconds)
    known = in_place.facts()
    print("\n".join(f"{name}: {value or 'not there'}" for name, value in known.items()), flush=True)
    if not known["torch"]:
        raise SystemExit(f"make gpu: {sys.executable} has no torch {known.get('torch says', '')}".strip())
    if not options.rehearse and "device" not in known:
        raise SystemExit("make gpu: torch sees no CUDA or ROCm device; make gpu-rehearsal runs what needs none")
    built = in_place.build(known, budget.left / 2)
    print(f"extension: {built or 'compiled'} ({seconds - budget.left:.0f} s)", flush=True)
    gate = f"the extension is {built}" if built else correctness(known, budget, options.rehearse)
    if options.rehearse:
        gate += f"; {ahead_of_time(budget.left)}" if known["triton"] else "; no triton"
    print(f"correctness: {gate} ({seconds - budget.left:.0f} s)", flush=True)
    device = REHEARSAL if options.rehearse else known["device"]
    path = options.results or ROOT / ("build/gpu-rehearsal.csv" if options.rehearse else "bench/results/gpu.csv")
    results = Results(path, {**conditions(known), "gate": gate, "device": device})
    for section, kept in SECTIONS.items():
        measure(section, "cpu" if options.rehearse else "cuda", budget.keeping(kept), results)
    took = f"{seconds - budget.left:.0f} of {seconds:.0f} s"
    print(f"\n{device}; {gate}; {took}\n\n{table(results.new)}\n\n{path}")
    wrong = [row for row in results.new if str(row.get("note")).startswith("failed")]
    return int(bool(wrong) or "failed" in gate or bool(built))


def conditions(known: dict[str, str]) -> dict[str, str]:
    """What a row depends on beside the code."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else []
    found = {"commit": commit.stdout.strip(), "cpu": names[0] if names else platform.processor()}
    return found | {name: known.get(name, "") for name in ("python", "torch", "triton", "cuda", "numpy")}


if __name__ == "__main__":
    sys.exit(main())
