"""What an installation and the start of a run say of themselves."""

import json
import os
import platform
import time
from datetime import datetime, timedelta, timezone

import pytest
import torch

import twohot
from twohot import _native
from twohot.info import PACKAGES, attention_info, describe_run, environment_info


def test_a_run_is_described_by_its_versions_machine_and_time():
    before = datetime.now(timezone.utc).replace(microsecond=0)
    described = describe_run()
    assert list(described) == ["version", "python", "torch", "platform", "cpu", "processor", "commit", "started"]
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
