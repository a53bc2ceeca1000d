"""Random calls of native code, and that none of its functions is left out."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch

import native_fuzz
from paths import HELPERS
from tests.kernels.test_native_stub import STUB, declared

FUZZ = HELPERS / "native_fuzz.py"


def fuzz(*arguments):
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_random_calls_give_right_numbers_or_a_sentence(tmp_path):
    """For TWOHOT_FUZZ_SECONDS; a crash shows as the status of a process, and `make fuzz` does the same with ASan."""
    seconds = min(float(os.environ.get("TWOHOT_FUZZ_SECONDS", "3")), 10.0)
    seed = os.environ.get("TWOHOT_FUZZ_SEED", "1")
    now = tmp_path / "now"
    result = fuzz("--seconds", seconds, "--seed", seed, "--now", now)
    assert result.returncode == 0, f"{now.read_text('utf-8') if now.exists() else ''}{result.stderr}"
    found = json.loads(result.stdout)
    assert found["draws"] > 100
    members = declared(ast.parse(STUB.read_text(encoding="utf-8")).body)
    functions = {name for name, kind in members.items() if kind == "function"}
    never = functions - {name for name, count in found["calls"].items() if count}
    assert not never, (
        f"no case of native_fuzz_calls.py, native_fuzz_replay.py or native_fuzz_xgrid.py calls {sorted(never)}"
    )


def _signature():
    raise TypeError("f(): incompatible function arguments. The following argument types are supported:")


def _other_numbers():
    return torch.zeros(3) if os.environ.get("TWOHOT_BACKEND") == "reference" else torch.ones(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (_signature, "incompatible function arguments"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (_other_numbers, "results differ from the plain ones"),
        (lambda: torch.ones(3), ""),
    ],
)
def test_a_fault_is_told(monkeypatch, call, words):
    for name in native_fuzz.VARIABLES:
        monkeypatch.setenv(name, "auto")  # and as it was, behind this test
    _, fault = native_fuzz.run(lambda draw: (call, {}, True), native_fuzz.Draw(1, 1), spoil=True)
    assert words in fault
    assert bool(fault) == bool(words)
