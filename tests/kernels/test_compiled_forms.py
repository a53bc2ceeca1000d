"""The numbers of native code in each form that it is compiled in, up to this processor's best."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twohot import _native

FORMS = ("portable", "avx2", "avx512", "avx512_bf16")
FILES = ("test_attention_native.py", "test_two_hot_native.py")
NUMBERS = (
    *("accurate", "lose_nothing", "nan", "threads", "select"),
    *("exact", "any_numbers", "equal_logits", "minus_infinity", "counts", "capability"),
)


@pytest.mark.parametrize("capability", FORMS[:-1])
def test_every_compiled_form(capability: str) -> None:
    """The tests of numbers, in a process that does without newer instructions: none fails, none is skipped."""
    best = _native.cpu_capability()
    if os.environ.get("TWOHOT_CPU_CAPABILITY") or FORMS.index(capability) >= FORMS.index(best):
        pytest.skip(f"this run has {best} at most")
    environment = {**os.environ, "TWOHOT_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *files, "-k", " or ".join(NUMBERS), "-p", "no:cacheprovider"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "skipped" not in result.stdout, result.stdout[-3000:]
