"""The commands of the README and of docs/ are understood as they stand, and the Python of the POPGym page runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from paths import ROOT
from twohot.cli.options import parse
from twohot.cli.train_options import TrainOptions
from twohot.config import TrainConfig
from twohot.config.files import to_json
from twohot.inference.agent import Agent
from twohot.presets import PRESETS
from twohot.replay import Replay

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words behind `twohot train` of each command that names a preset."""
    text = page.read_text().replace("\\\n", " ")
    found = [shlex.split(line) for line in re.findall(r"twohot train ([^`\n#]*)", text)]
    return [words for words in found if words and words[0] in PRESETS]


COMMANDS = {" ".join(words): page.name for page in PAGES for words in commands(page) if len(words) > 1}
"""Those with options, each once, and a page that has it."""


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 5


def settings(data: dict, where: str = "") -> set[str]:
    inner = {f"{where}{name}": value for name, value in data.items()}
    return set(inner).union(*(settings(value, f"{name}.") for name, value in inner.items() if isinstance(value, dict)))


SETTINGS = settings(to_json(TrainConfig()))
KINDS = "environment|agent|objective|optimizer|collect|replay|data|evaluate"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_options_that_pages_name_exist(page: Path) -> None:
    text = page.read_text()
    options = re.findall(rf"--((?:{KINDS})\.[a-z-]+)", text)
    named = {option.replace(".no-", ".").replace("-", "_") for option in options}
    named |= set(re.findall(rf"`((?:{KINDS})\.[a-z_]+)(?: [^`]*)?`", text))
    others = {name for name in named if name.endswith(".py")} | {f"replay.{name}" for name in dir(Replay)}
    others |= {f"agent.{name}" for name in dir(Agent)}
    assert named - others <= SETTINGS


@pytest.mark.parametrize(("command", "page"), COMMANDS.items(), ids=lambda x: x[:60])
def test_training_commands_are_understood(command: str, page: str, capsys: pytest.CaptureFixture) -> None:
    preset, *arguments = (re.sub(r"^--env(?==|$)", "--environment.tasks", word) for word in shlex.split(command))
    try:
        parse(TrainOptions, "train", arguments, default=TrainOptions(PRESETS[preset].config))
    except SystemExit:
        raise AssertionError(f"{page}: twohot train {command}\n{capsys.readouterr().err}") from None


def test_the_popgym_page_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "popgym.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["observations"].shape[0] == 24
