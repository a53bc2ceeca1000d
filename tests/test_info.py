"""What an installation and the start of a run say of themselves."""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
import torch

import twohot
from twohot import _native, info
from twohot.info import (
    JOB_VARIABLES,
    PACKAGES,
    attention_info,
    describe_kernels,
    describe_run,
    environment_info,
    own_code,
)


def test_a_run_is_described_by_its_versions_machine_and_time():
    before = datetime.now(timezone.utc).replace(microsecond=0)
    described = describe_run()
    always = ["version", "python", "torch", "numpy", "gymnasium", "platform", "host", "cpu", "processor", "commit"]
    always += ["command", "started", "identity"]
    assert [label for label in described if label not in ("gpu", "code", "job")] == always
    assert json.loads(json.dumps(described)) == described
    assert all(isinstance(value, str) and value for value in described.values())
    assert described["version"] == twohot.__version__
    assert described["python"] == platform.python_version()
    assert described["torch"] == torch.__version__
    assert described["platform"] == platform.platform()
    started = datetime.fromisoformat(described["started"])
    assert started.utcoffset() == timedelta(0)
    assert before <= started <= datetime.now(timezone.utc)
    assert started.isoformat(timespec="seconds") == described["started"]
    assert re.fullmatch(r"[0-9a-f]{12}", described["identity"])
    assert described["identity"] != describe_run()["identity"]


def run_git(folder, *words):
    settings = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


def test_a_checkout_is_dirty_where_the_packages_sources_are(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("python/twohot/__init__.py", "csrc/op.cc", "studies/rows.csv")]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("1")
    run_git(tmp_path, "init")
    run_git(tmp_path, "add", ".")
    run_git(tmp_path, "commit", "-m", "one")
    monkeypatch.setattr(twohot, "__file__", str(files[0]))
    found = []
    for path in reversed(files):
        path.write_text("2")
        found.append(info.commit.__wrapped__().endswith("-dirty"))
        path.write_text("1")
    assert found == [False, True, True]


def test_the_users_own_code_is_described_by_its_commit(tmp_path, monkeypatch):
    git = partial(run_git, tmp_path)
    script = tmp_path / "deep" / "script.py"
    script.parent.mkdir()
    script.write_text("1")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    assert own_code() == ""
    git("init")
    assert own_code() == ""  # without a commit there is nothing to name
    git("add", ".")
    git("commit", "-m", "one")
    (head,) = (tmp_path / ".git" / "refs" / "heads").iterdir()
    short = head.read_text()[:7]
    assert own_code() == f"{short} in {script.parent}"
    script.write_text("2")
    assert own_code() == f"{short}-dirty in {script.parent}"
    monkeypatch.chdir(tmp_path)  # the command's own script says nothing of the user's code
    for path in (Path(sysconfig.get_path("scripts")) / "twohot", Path(info.__file__).parent / "__main__.py"):
        monkeypatch.setattr(main, "__file__", str(path))
        assert own_code() == f"{short}-dirty in {tmp_path}"
    monkeypatch.delattr(main, "__file__")
    assert own_code() == f"{short}-dirty in {tmp_path}"


def test_a_job_is_named_by_the_variables_of_its_cluster(monkeypatch):
    for name in JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert "job" not in describe_run()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert describe_run()["job"] == "SLURM_JOB_ID=12, SLURM_ARRAY_TASK_ID=3"


def test_kernels_are_named(monkeypatch):
    for name in ("TWOHOT_BACKEND", "TWOHOT_ATTENTION"):
        monkeypatch.delenv(name, raising=False)
    assert describe_kernels("cpu", "float32", 32, 64) == (
        f"attention native, a step of attention native, two-hot native, native code {_native.cpu_capability()}"
    )
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert describe_kernels("cpu", "bfloat16", 32, 64).startswith(
        "attention reference, a step of attention reference, two-hot reference"
    )


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
def test_the_cpu_is_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    capability = torch.backends.cpu.get_cpu_capability()
    assert describe_run()["cpu"] == f"3 cores, 7 torch threads, {capability}"


@pytest.fixture
def far_from_greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
def test_time_is_universal_wherever_the_run_is(far_from_greenwich):
    assert datetime.now().astimezone().utcoffset() == timedelta(hours=5, minutes=30)
    assert describe_run()["started"].endswith("+00:00")


def test_facts_agree_with_the_description_of_a_run():
    found, described = environment_info(), describe_run()
    assert list(found) == ["twohot", "python", "native module", *PACKAGES, "cpu", "gpu", "huge pages"]
    assert found["twohot"] == described["version"]
    assert found["python"] == f"{described['python']} on {described['platform']}"
    assert found["native module"].endswith(f"{_native.cpu_capability()} kernels ({_native.cpu_capability_reason()})")
    assert (found["torch"], found["cpu"]) == (described["torch"], described["cpu"])


def test_a_missing_package_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr("twohot.info.PACKAGES", ("torch", "no-such-package"))
    assert environment_info()["no-such-package"] == "not installed"


def test_attention_says_what_runs_and_why(monkeypatch):
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
    monkeypatch.delenv("TWOHOT_ATTENTION", raising=False)
    assert attention_info("cpu", "float32", 32) == {
        "windows": "native (torch.float32 on cpu)",
        "windows with softcap": "native (torch.float32 on cpu)",
        "one step": "native (torch.float32 on cpu)",
    }
    odd = attention_info("cpu", "float32", 24)
    reason = "(the head size is 24, fused code takes multiples of 16 up to 256)"
    assert odd["windows with softcap"] == odd["one step"] == f"reference {reason}"
    assert odd["windows"] == f"sdpa {reason}"
    monkeypatch.setenv("TWOHOT_ATTENTION", "sdpa")
    assert attention_info("cpu", "float32", 32) == {
        "windows": "sdpa (TWOHOT_ATTENTION asks for it)",
        "windows with softcap": "error (TWOHOT_ATTENTION asks for sdpa, but torch's own attention has no softcap)",
        "one step": "native (TWOHOT_ATTENTION asks for sdpa, but this operation has none)",
    }
