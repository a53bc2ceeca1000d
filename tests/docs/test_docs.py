"""The documentation names files, functions and classes that exist, and presets that can be trained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import gymnasium
import pytest

from paths import ROOT
from twohot.envs import registry
from twohot.presets import PRESETS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.findall(r"`((?:\w+/)*\w+\.py): ([\w.]+)`", (ROOT / "docs" / "method.md").read_text())


def defined(path: Path) -> set[str]:
    """Functions, classes and `Class.method`s of a module."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_method_page_names_what_exists(file: str, name: str) -> None:
    assert name in defined(ROOT / "python" / "twohot" / file)


def test_the_method_page_names_something() -> None:
    assert len(NAMED) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_presets_that_exist(page: Path) -> None:
    named = set(re.findall(r"twohot train ([a-z][\w-]*)", page.read_text()))
    assert named <= set(PRESETS), f"{page.name} names {named - set(PRESETS)}"


def test_the_attention_page_runs() -> None:
    page = (ROOT / "docs" / "attention.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["h"].shape == (16, 8, 32)
    assert names["out"][2, 3:].eq(0).all()
    assert names["packed"].grad[3].eq(0).all()
    assert names["packed"].grad[0].abs().sum() > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pages_exist(page: Path) -> None:
    text = page.read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = re.findall(r"`(docs/[\w.]+)`", text)
    missing = [name for name in linked if not (page.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


EXAMPLES = ("atari", "babyai", "frozen_lake", "gymnasium", "maze_runner", "metaworld", "procgen", "retro")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_of_a_benchmark_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    page = (ROOT / "docs" / "benchmarks" / f"{name}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    code = "\n".join(blocks)
    exec(code, {})


def test_the_offline_page_runs() -> None:
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "offline.md").read_text(), re.DOTALL):
        exec(code, names)
    assert 0.5 < (names["mixed"].task == 1).mean() < 1


def test_the_page_about_environments_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    monkeypatch.setattr(gymnasium, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "environments.md").read_text(), re.DOTALL):
        exec(code, names)
    env = names["env"]
    env.reset(seed=0)
    door = env._game.env.unwrapped.door
    ends = [env.step(door)[1:3] for _ in range(4)]
    assert ends == [(1.0, False)] * 3 + [(1.0, True)]
    assert names["agent"].action_space.n == 5
