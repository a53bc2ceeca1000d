"""The page about the replay runs: its first section, and each of the others behind the first."""

from __future__ import annotations

import copy
import re

import pytest

from paths import ROOT

PAGE = ROOT / "docs" / "replay.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
FIRST = "Five minutes"


def run(section: str, namespace: dict) -> int:
    """Runs the blocks of a section, which leave their names behind; returns how many there are."""
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
    for number, source in enumerate(blocks):
        exec(compile(source, f"{PAGE.name}: {section}: block {number}", "exec"), namespace)
    return len(blocks)


@pytest.fixture(scope="module")
def first():
    """The names that the first section leaves."""
    namespace: dict = {}
    assert run(FIRST, namespace) == 3
    yield namespace
    namespace["envs"].close()


def test_the_first_section_fills_a_replay_and_trains(first) -> None:
    stats = first["replay"].stats()
    assert stats.trajectories > 50
    assert stats.steps + 8 * 300 > 2000
    assert first["batch"].mask.any()
    assert first["loss"] < 0.01  # of states whose squares are about 0.3 in the mean


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != FIRST and "```python" in SECTIONS[name]])
def test_each_section_runs_behind_the_first(first, section: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = copy.copy(first)
    if section.startswith("Corruption"):
        run("In a directory", namespace)
    assert run(section, namespace) >= 1
    if section.startswith("Corruption"):
        assert "data/cart" in capsys.readouterr().out
