"""The command under torchrun, as docs/several_learners.md has it: a learner is killed, and the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from twohot.runs import checkpoint

SETTINGS = {
    "epochs": 20,
    "updates-per-epoch": 4,
    "warmup-epochs": 0,
    "checkpoint-every": 5,
    "window": 16,
    "batch-size": 4,
    "collect.environments": 2,
    "collect.steps-per-epoch": 60,
    "evaluate.trials": 1,
    "evaluate.final-trials": 1,
    "environment.tasks": "RepeatFirstEasy",
    "environment.reward-multipliers": "1",
}


def of_learner(rank: int) -> list[int]:
    """Processes with this rank in their environment that were started by a test's torchrun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and f"STARTED_BY_TEST={os.getpid()}".encode() in environment:
            found.append(int(path.parent.name))
    return found


def test_a_learner_that_is_killed_is_started_again_with_all_others(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "3",
    ]
    command += ["-m", "--", "twohot", "train", "quickstart", "--run", str(run), "--continue", *options]
    environment = {**os.environ, "STARTED_BY_TEST": str(os.getpid()), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + 300
        while checkpoint.latest(run) is None and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        for number in of_learner(1):
            os.kill(number, signal.SIGKILL)
        process.wait(timeout=300)
    said = (tmp_path / "log").read_text()
    assert process.returncode == 0, said
    assert "continued after epoch" in said
    found = checkpoint.latest(run)
    assert found is not None
    assert checkpoint.read_state(found)["updates"] == SETTINGS["epochs"] * SETTINGS["updates-per-epoch"]
    assert (run / "report.html").is_file()
