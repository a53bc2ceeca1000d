"""Directories whose users are killed at random moments: TWOHOT_KILLS of them in all."""

import os
import subprocess
import sys

import pytest

from paths import HELPERS

KILLS = int(os.environ.get("TWOHOT_KILLS", "24"))
SCRIPT = HELPERS / "replay_kills.py"


@pytest.mark.parametrize(
    ("command", "capacity", "share"),
    [("sharing", 10**6, 0.4), ("sharing", 1500, 0.3), ("resuming", 1500, 0.3)],
)
def test_no_death_loses_or_doubles_anything_or_ends_a_reader(tmp_path, command, capacity, share):
    """Writers, readers, removal and opening at once; see `replay_kills.py` for what has to hold."""
    kills = round(KILLS * share)
    arguments = [command, tmp_path / "replay", kills, os.environ.get("TWOHOT_FUZZ_SEED", "1"), capacity]
    process = [sys.executable, str(SCRIPT), *map(str, arguments)]
    result = subprocess.run(process, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lives, told = map(int, result.stdout.split())
    assert lives > kills
    assert told > 0
