"""Actors, a node and the learner are killed while a run trains; `python -m bench.run kills` does it many times."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cases.kills import Report
from bench.harness.group import ROOT

pytest.importorskip("ray")
PATIENCE = 280.0


def test_nothing_is_lost_or_twice_when_actors_a_node_and_the_learner_are_killed(tmp_path: Path) -> None:
    kills = {"actor": 3, "node": 1, "learner": 1, "SIGTERM": 0}
    command = [sys.executable, "-m", "bench.cases.kills", str(tmp_path)]
    command += [word for what, count in kills.items() for word in (f"--{what}", str(count))]
    # Ray ends the process group of whoever has started it and dies: not that of the tests.
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, said
    report = Report(**json.loads((tmp_path / "report.json").read_text()))
    assert report.killed == {what: count for what, count in kills.items() if count}
    assert report.faults() == []
    assert report.stored >= report.acknowledged > 0
