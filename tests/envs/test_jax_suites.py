"""Suites in JAX, each in a process of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent.parent / "helpers"
REQUIRED = os.environ.get("TWOHOT_REQUIRE_JAX") == "1" and sys.version_info >= (3, 11)


@pytest.mark.parametrize(("module", "program"), [("xminigrid", "xland_steps.py"), ("gymnax", "gymnax_steps.py")])
def test_suites_in_jax(module, program, tmp_path):
    if not REQUIRED and find_spec(module) is None:
        pytest.skip(f"needs {module}")
    environment = os.environ | {"PYTHONPATH": str(HELPERS), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles faster
    done = subprocess.run(
        [sys.executable, "-W", "error", HELPERS / program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
