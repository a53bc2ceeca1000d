"""`twohot.train` and `twohot.Run`: what they are told, what they print, and that the command line does the same."""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

import twohot
from small import CONFIG, agent_bytes, with_epochs
from twohot.api.train import configuration
from twohot.cli import main as cli
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import save_config, to_json
from twohot.config.options import nested
from twohot.errors import NoRunError, UsageError
from twohot.presets import PRESETS, Preset
from twohot.training.interruption import Interrupted
from twohot.training.progress import Progress


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> twohot.Run:
    """A run of two epochs, from a configuration."""
    return twohot.train(with_epochs(2), run=str(tmp_path_factory.mktemp("api") / "run"), quiet=True)


def test_a_run_says_what_it_did(run: twohot.Run) -> None:
    assert run.config == with_epochs(2)
    assert list(run.scores) == list(CONFIG.environment.tasks)
    score = run.scores["RepeatFirstEasy"]
    assert (score.task, score.better) == ("RepeatFirstEasy", score.difference > 2 * score.difference_error)
    assert repr(run).startswith(f"Run('{run.path}', RepeatFirstEasy {score.agent_return:.4g}, PositionOnly")
    frame = run.to_frame()
    mine = frame[frame.metric == "evaluation/return/RepeatFirstEasy"]
    assert list(mine.value) == [score.agent_return]
    assert run.report() == run.path / "report.html"
    assert run.report().stat().st_size > 10_000
    assert run.agent().config == run.config
    assert run.rows[0].kind == "random"
    with pytest.raises(NoRunError, match="no run here"):
        twohot.Run(run.path / "nothing")


def test_a_run_that_has_only_begun_or_is_corrupt_can_be_shown(tmp_path: Path) -> None:
    save_config(CONFIG, tmp_path / "config.json")
    run = twohot.Run(tmp_path)
    assert (run.scores, repr(run)) == ({}, f"Run({str(tmp_path)!r})")
    (tmp_path / "metrics.jsonl").write_text("nonsense\n{}\n")
    assert repr(run) == f"Run({str(tmp_path)!r})"


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_bars_where_it_can(widgets: bool, monkeypatch) -> None:
    monkeypatch.setattr("twohot.training.progress.find_spec", lambda name: widgets or None)
    assert Progress(Console(force_jupyter=True))._bar.disable is not widgets
    assert Progress(Console(force_jupyter=True, quiet=True))._bar.disable
    assert Progress(Console(force_terminal=False))._bar.disable
    assert not Progress(Console(force_terminal=True))._bar.disable


def test_what_is_printed(tmp_path: Path, capsys) -> None:
    twohot.train(with_epochs(1), run=tmp_path / "run")
    out = capsys.readouterr().out
    assert out.startswith(f"Run directory: {tmp_path / 'run'}\nTraining one agent on 2 tasks of popgym")
    assert "epoch 1:" in out
    twohot.train(resume=tmp_path / "run", epochs=2, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert twohot.Run(tmp_path / "run").config.epochs == 2


def test_without_a_directory_the_first_free_one_is_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "mine", Preset("Small.", with_epochs(1)))
    assert twohot.train("mine", quiet=True).path == Path("runs/mine-1")
    assert twohot.train(with_epochs(1), quiet=True).path == Path("runs/popgym-1")
    with pytest.raises(ConfigurationError, match=r"sead: unknown setting; did you mean seed\?"):
        twohot.train("mine", sead=3)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine-1", "popgym-1"]


def test_a_file_changes_the_preset_options_change_the_file_and_keywords_change_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'epochs = 7\nagent.width = 32\n[evaluate]\ntrials = 3\nheld_out_tasks = ["a"]\n[agent.bins]\nlow = -7\n'
    )
    preset = PRESETS["quickstart"].config
    found = configuration("quickstart", file, {"agent.width": 64, "evaluate": {"trials": 5, "every": 2}, "seed": 4})
    expected = dataclasses.replace(
        preset,
        seed=4,
        epochs=7,
        agent=dataclasses.replace(preset.agent, width=64, bins=dataclasses.replace(preset.agent.bins, low=-7.0)),
        evaluate=dataclasses.replace(preset.evaluate, trials=5, every=2, held_out_tasks=("a",)),
    )
    assert found == expected
    save_config(expected, tmp_path / "config.json")
    assert configuration("quickstart", tmp_path / "config.json") == expected
    assert configuration(expected) is expected
    assert configuration("quickstart", options={"agent": expected.agent}).agent == expected.agent
    assert nested({"a.b": 1, "a": {"c.d": 2}, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "agent.width = ", "not TOML"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "expected a JSON object"),
        ("a.toml", "agent.witdh = 3", "did you mean agent.width"),
        ("a.json", '{"agent.width": "3"}', "agent.width: expected int, got '3'"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        configuration("quickstart", tmp_path / name)


def test_what_does_not_go_together_is_said(tmp_path: Path, run: twohot.Run) -> None:
    with pytest.raises(UsageError, match="did you mean quickstart"):
        twohot.train("quickstrat")
    with pytest.raises(UsageError, match="expected the name of a preset, a TrainConfig, or resume=RUN"):
        twohot.train()
    with pytest.raises(UsageError, match="no such file"):
        twohot.train("quickstart", config=tmp_path / "nothing.toml")
    with pytest.raises(UsageError, match="run=RUN"):
        twohot.train("quickstart", continue_=True)
    with pytest.raises(UsageError, match="resume: takes the place"):
        twohot.train("quickstart", resume=run.path)
    with pytest.raises(UsageError, match="seed: a run goes on with the settings that it was started with"):
        twohot.train(resume=run.path, seed=3)
    with pytest.raises(ConfigurationError, match="epochs: expected int, got '3'"):
        twohot.train(resume=run.path, epochs="3")
    with pytest.raises(ConfigurationError, match="no run here"):
        twohot.train(resume=tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        twohot.train(CONFIG, run=run.path, quiet=True)
    with pytest.raises(UsageError, match="writers: expected tensorboard, wandb, trackio or a Writer, got 'board'"):
        twohot.train(CONFIG, run=tmp_path / "new", writers=["board"])
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_there_is_continued_where_asked(tmp_path: Path, capsys) -> None:
    twohot.train(CONFIG, run=tmp_path / "run", continue_=True, epochs=2, quiet=True)
    whole = twohot.train(with_epochs(4), run=tmp_path / "whole", quiet=True)
    again = twohot.train(CONFIG, run=tmp_path / "run", continue_=True, epochs=4)
    assert "continued after epoch 2" in capsys.readouterr().out
    assert agent_bytes(again.path) == agent_bytes(whole.path)
    assert twohot.train(CONFIG, run=again.path, continue_=True, epochs=3).config.epochs == 4
    assert "trains the 4 epochs that it was given before, not 3" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="was started with seed = 0, and now it is asked for 5"):
        twohot.train(CONFIG, run=again.path, continue_=True, seed=5)


def test_a_signal_says_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(end) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"twohot.train\(resume='.*run'\) goes on with the run"):
        twohot.train(CONFIG, run=tmp_path / "run", callbacks=[interrupt], quiet=True)
    assert twohot.train(resume=tmp_path / "run", quiet=True).config.epochs == CONFIG.epochs


def test_the_command_line_does_the_same(tmp_path: Path, monkeypatch, capsys) -> None:
    """Its run has the bits of the function's; a run's own config.json repeats it, and options go above it."""
    monkeypatch.setitem(PRESETS, "mine", Preset("Small.", CONFIG))
    monkeypatch.setattr("twohot.presets.summaries", lambda: {"mine": "Small."})
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 2\nseed = 3\nagent.width = 32\n")
    line = ["train", "mine", "--config", str(file), "--seed", "4", "--run", str(tmp_path / "line")]
    assert cli.main(line) == 0
    assert "RepeatFirstEasy" in capsys.readouterr().out
    function = twohot.train("mine", config=file, seed=4, run=tmp_path / "function", quiet=True)
    assert twohot.Run(tmp_path / "line").config == function.config
    assert (function.config.seed, function.config.epochs, function.config.agent.width) == (4, 2, 32)
    assert agent_bytes(tmp_path / "line") == agent_bytes(function.path)
    own = str(function.path / "config.json")
    assert cli.main(["train", "mine", f"--config={own}", "--run", str(tmp_path / "repeated")]) == 0
    assert agent_bytes(tmp_path / "repeated") == agent_bytes(function.path)
    file.write_text("agent.witdh = 32\n")
    assert cli.main(["train", "mine", "--config", str(file)]) == 1
    assert "did you mean agent.width?" in capsys.readouterr().err
    assert cli.main(["train", "mine", "--config", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_old_module_of_that_name_is_called_as_the_function_is(run: twohot.Run, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "twohot.train", raising=False)
    with pytest.warns(DeprecationWarning, match=r"twohot.train is now twohot\.training\.train"):
        importlib.import_module("twohot.train")
    try:
        assert twohot.train(resume=run.path, quiet=True).path == run.path
    finally:
        del twohot.__dict__["train"]
    assert json.loads((run.path / "config.json").read_text()) == json.loads(json.dumps(to_json(run.config)))
    assert isinstance(run.config, TrainConfig)
