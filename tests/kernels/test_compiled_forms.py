"""The numbers of native code in each form that it is compiled in and that this processor runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twohot import _native

TESTS = Path(__file__).parent.parent
FILES = (
    *("kernels/test_attention_native.py", "kernels/test_two_hot_native.py"),
    *("kernels/test_transformer_layer.py", "nets/test_critics.py"),
)
NUMBERS = (
    *("accurate", "lose_nothing", "nan", "threads", "select", "exact", "any_numbers", "equal_logits"),
    *("minus_infinity", "counts", "capability", "gradient and not functorch", "rows"),
)


def test_tiles_are_tested_on_every_processor() -> None:
    """Development compiles the form that emulates them."""
    assert "amx_emulated" in _native.cpu_capabilities()


@pytest.mark.parametrize("capability", _native.cpu_capabilities())
def test_every_compiled_form(capability: str) -> None:
    """The tests of numbers, in a process that runs this form: none fails, none is skipped."""
    if os.environ.get("TWOHOT_CPU_CAPABILITY") or capability == _native.cpu_capability():
        pytest.skip(f"this run is in {_native.cpu_capability()}")
    environment = {**os.environ, "TWOHOT_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    files = [str(TESTS / name) for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *files, "-k", " or ".join(NUMBERS), "-p", "no:cacheprovider"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "skipped" not in result.stdout, result.stdout[-3000:]
