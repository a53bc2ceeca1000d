"""The grid world is held against XLand-MiniGrid, in a process of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

STEPS = Path(__file__).parent.parent / "helpers" / "xminigrid_steps.py"
REQUIRED = os.environ.get("TWOHOT_REQUIRE_JAX") == "1" and sys.version_info >= (3, 11)


@pytest.mark.skipif(not REQUIRED and find_spec("xminigrid") is None, reason="needs xminigrid")
@pytest.mark.parametrize("size_and_view", [(9, 9, 5), (7, 11, 7)])
def test_steps_are_those_of_xminigrid(size_and_view):
    done = subprocess.run(
        [sys.executable, STEPS, *map(str, size_and_view)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
