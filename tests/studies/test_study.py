"""Studies: what their file may say, and that what is finished, interrupted, failed or changed is treated as such."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from small import quiet
from twohot.cli import main as cli
from twohot.config import ConfigurationError
from twohot.errors import CorruptRunError, UsageError
from twohot.presets import PRESETS
from twohot.runs.metrics import read_metrics
from twohot.runs.ownership import owned
from twohot.studies.rows import COLUMNS, add_rows, read_rows
from twohot.studies.runner import finished_runs, run_missing, run_one
from twohot.studies.study import RunKey, load_study

TINY = """
summary = "Nothing is learnt."
preset = "dark-key-small"
seeds = [3, 4]

[options]
epochs = 2
updates_per_epoch = 2
warmup_epochs = 0
batch_size = 2
evaluate = {every = 1, trials = 2, final_trials = 3}
collect = {environments = 2, steps_per_epoch = 110, workers = "in-process"}
agent = {width = 16, heads = 2, layers = 1, feed_forward = 16, encoder_hidden = 16, head_hidden = 16}

[settings.two_hot]
agent.critic = "two_hot"

[settings.scalar]
agent.critic = "scalar"

[best]
"4x4" = 40.0
"""


def written(folder: Path, text: str = TINY) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of which one run is finished, its folder of runs, and the rows of that run."""
    folder = tmp_path_factory.mktemp("studies")
    study = load_study(written(folder))
    return study, folder / "runs", run_one(study, RunKey("scalar", 3), folder / "runs", quiet())


def test_a_setting_is_the_preset_with_the_common_and_its_own_changes(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    config = study.config(RunKey("scalar", 4))
    assert (config.agent.critic, config.seed, config.epochs, config.agent.width) == ("scalar", 4, 2, 16)
    assert study.config(RunKey("two_hot", 4)) == replace(config, agent=replace(config.agent, critic="two_hot"))
    preset = PRESETS["dark-key-small"].config
    assert config.objective == preset.objective
    assert config.evaluate == replace(preset.evaluate, every=1, trials=2, final_trials=3)
    assert study.settings["scalar"].differences == {"agent.critic": "scalar"}
    assert study.options["evaluate.final_trials"] == 3
    assert [str(run) for run in study.runs] == ["two_hot-3", "scalar-3", "two_hot-4", "scalar-4"]
    assert (study.name, study.rows_path, study.best) == ("tiny", tmp_path / "tiny.csv", {"4x4": 40.0})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("summary", "sumary", "sumary: unknown"),
        ("preset = ", "# ", "preset: missing"),
        ("dark-key-small", "dark", "preset: expected one of quickstart"),
        ("[3, 4]", "[3, 3]", "seeds: expected different whole numbers"),
        ("[3, 4]", "[true]", "seeds: expected different whole numbers"),
        ("[3, 4]", "3", "seeds: expected a list"),
        ("[settings.scalar]", '[settings."a/b"]', "settings.a/b: expected a table with a name of letters"),
        ("[settings.scalar]", "[settings.random]", "settings.random: expected"),
        ("[settings.scalar]", "[settings.Two_Hot]", "settings.Two_Hot: its runs are folders of that name"),
        ("[settings.scalar]", '[settings."aux.critic"]', "settings.aux.critic: its runs are folders of that name"),
        ("agent.critic =", "agent.critc =", "settings.two_hot: agent.critc: unknown setting"),
        ('agent.critic = "scalar"', 'agent = "scalar"', "settings.scalar: agent: expected"),
        ("epochs = 2\n", 'epochs = "two"\n', "settings.two_hot: epochs: expected int"),
        ("40.0", '"best"', "best.4x4: expected a return"),
        ("[best]", "[best", "not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert TINY.count(old) >= 1
    path = written(tmp_path, TINY.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=re.escape(f"tiny.toml: {said}")):
        load_study(path)


def test_a_study_without_settings_or_without_a_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="settings: expected at least one"):
        load_study(written(tmp_path, TINY.partition("[settings")[0] + "[settings]"))
    with pytest.raises(UsageError, match=r"gone\.toml: no such file"):
        load_study(tmp_path / "gone.toml")


def test_the_rows_of_a_run_are_its_evaluations(done) -> None:
    study, runs, rows = done
    metrics = read_metrics(runs / "scalar-3")
    evaluations = [row for row in metrics if row.kind == "evaluation"]
    mine = [row for row in rows if row.setting == "scalar"]
    assert [row.step for row in mine if row.attempt is None] == [row.environment_steps for row in evaluations]
    assert [row.trials for row in mine if row.attempt is None] == [2, 3]
    last = evaluations[-1].metrics
    (whole,) = [row for row in mine if row.attempt is None and row.step == evaluations[-1].environment_steps]
    assert whole.return_ == last["evaluation/return/4x4-short"]
    assert whole.std_error == last["evaluation/return_std_error/4x4-short"]
    assert (whole.updates, whole.seed, whole.task, whole.kind) == (4, 3, "4x4-short", "evaluation")
    tenth = [row for row in mine if row.attempt == 10 and row.step == whole.step]
    assert [row.return_ for row in tenth] == [last["evaluation/return/4x4-short/attempt_10"]]
    random = [row for row in rows if row.setting == "random"]
    assert {(row.step, row.trials, row.kind, row.digest) for row in random} == {(0, 3, "random", "")}
    assert {row.digest for row in mine} == {study.settings["scalar"].digest}
    stored = read_rows(study.rows_path)
    assert [row.return_ for row in stored] == pytest.approx([row.return_ for row in (*random, *mine)], rel=1e-5)
    assert [(row.setting, row.attempt, row.commit, row.processor) for row in stored] == [
        (row.setting, row.attempt, row.commit, row.processor) for row in (*random, *mine)
    ]


def test_what_is_finished_is_judged_from_the_rows_alone(done, tmp_path: Path) -> None:
    study, _, rows = done
    elsewhere = load_study(written(tmp_path))
    assert finished_runs(elsewhere) == set()
    add_rows(elsewhere, rows, tmp_path / "lock")
    assert finished_runs(elsewhere) == finished_runs(study) == {RunKey("scalar", 3)}


def test_the_random_policy_enters_once_for_each_seed_and_task(done, tmp_path: Path) -> None:
    _, _, rows = done
    study = load_study(written(tmp_path))
    other = [replace(row, setting="two_hot") if row.setting == "scalar" else row for row in rows]
    later, elsewhere = [replace(row, seed=4) for row in rows], [replace(row, task="another") for row in rows]
    for new in (rows, other, later, elsewhere, elsewhere[:1]):
        add_rows(study, new, tmp_path / "lock")
    stored = read_rows(study.rows_path)
    randoms = [row for row in rows if row.setting == "random"]
    assert len([row for row in stored if row.setting == "random"]) == 3 * len(randoms)
    assert len(stored) == 4 * len(rows) - len(randoms)
    assert [(row.setting, row.seed) for row in stored] == sorted(
        [(row.setting, row.seed) for row in stored],
        key=lambda pair: (["random", "two_hot", "scalar"].index(pair[0]), pair[1]),
    )


def test_rows_made_with_other_settings_are_not_mixed_with_these(done, tmp_path: Path) -> None:
    _, _, rows = done
    changed = load_study(written(tmp_path, TINY.replace("batch_size = 2", "batch_size = 3")))
    add_rows(changed, rows, tmp_path / "lock")
    with pytest.raises(ConfigurationError, match=r"the rows of scalar were made when tiny\.toml said something else"):
        finished_runs(changed)


def test_a_run_begun_with_other_settings_is_not_gone_on_with(done, tmp_path: Path) -> None:
    _, runs, _ = done
    changed = load_study(written(tmp_path, TINY.replace("batch_size = 2", "batch_size = 3")))
    with pytest.raises(ConfigurationError, match="scalar-3: was begun with batch_size = 2, and the study says 3"):
        run_one(changed, RunKey("scalar", 3), runs, quiet())


def test_a_finished_run_whose_rows_are_missing_is_not_trained_again(done, tmp_path: Path) -> None:
    _, runs, rows = done
    study = load_study(written(tmp_path))
    before = (runs / "scalar-3/metrics.jsonl").read_bytes()
    assert run_one(study, RunKey("scalar", 3), runs, quiet()) == rows
    assert (runs / "scalar-3/metrics.jsonl").read_bytes() == before
    assert finished_runs(study) == {RunKey("scalar", 3)}


@pytest.mark.parametrize("damage", [("kind", "best"), ("return", "much"), ("attempt", "x"), (None, "")])
def test_a_corrupt_file_of_rows_is_named_with_its_line(done, tmp_path: Path, damage: tuple) -> None:
    study, _, _ = done
    lines = list(csv.reader(study.rows_path.read_text().splitlines()))
    if damage[0]:
        lines[2][COLUMNS.index(damage[0])] = damage[1]
    else:
        lines[2].pop()
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(CorruptRunError, match=r"rows\.csv, line 3: not a row of a study"):
        read_rows(path)
    path.write_text("setting,seed\n")
    with pytest.raises(CorruptRunError, match=r"expected the columns setting,seed,step"):
        read_rows(path)


def test_missing_runs_go_side_by_side_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    study, runs = load_study(written(tmp_path)), tmp_path / "runs"
    (runs / "two_hot-3").mkdir(parents=True)
    (runs / "two_hot-3/something").write_text("of somebody else")
    screen = io.StringIO()
    failed = run_missing(study, study.runs[:3], runs, 2, Console(file=screen, width=400))
    assert failed == [RunKey("two_hot", 3)]
    assert "two_hot-3: failed (exit code 1)" in screen.getvalue()
    assert "expected a new or an empty directory" in screen.getvalue()
    assert finished_runs(study) == {RunKey("scalar", 3), RunKey("two_hot", 4)}
    assert "scalar-3: done in" in screen.getvalue()


LONG = TINY.replace("epochs = 2", "epochs = 25").replace("every = 1", "every = 100").replace("[3, 4]", "[3]")


def test_a_signal_saves_the_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path, runs = written(tmp_path, LONG), tmp_path / "runs"
    command = [sys.executable, "-m", "twohot", "study", "run", str(path), "--runs", str(runs), "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = [runs / name / "metrics.jsonl" for name in ("two_hot-3", "scalar-3")]
    deadline = time.monotonic() + 300
    while not all(file.is_file() and file.read_bytes().count(b"\n") > 5 for file in metrics):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert f"go on with: twohot study run {path}" in said
    for name in ("two_hot-3", "scalar-3"):
        with owned(runs / name):  # nobody works there any more
            pass
    assert read_rows(path.with_suffix(".csv")) == []
    assert subprocess.run(command, check=False).returncode == 0
    assert finished_runs(load_study(path)) == {RunKey("two_hot", 3), RunKey("scalar", 3)}
    for name in ("two_hot-3", "scalar-3"):
        log = (runs / f"{name}.log.txt").read_text()
        assert log.count("seed 3, from the beginning") == log.count("seed 3, continued after epoch") == 1


def test_the_command_says_what_is_done_and_what_it_does_not_know(done, capsys, monkeypatch, tmp_path: Path) -> None:
    study, runs, _ = done
    folder = ["--runs", str(runs)]
    assert cli.main(["study", "run", str(study.path), "--only", "scalar-3", *folder]) == 0
    assert "1 runs, 1 of them done" in capsys.readouterr().out
    assert cli.main(["study", "run", str(study.path), "--only", "scaler", *folder]) == 2
    assert "no run or setting 'scaler'; there are two_hot-3" in capsys.readouterr().err
    assert cli.main(["study", "walk"]) == 2
    assert "no command 'walk' of `twohot study`" in capsys.readouterr().err
    assert cli.main(["study"]) == 2
    assert "run FILE" in capsys.readouterr().out
    (runs / "two_hot-4").mkdir()
    os.symlink("nowhere", runs / "two_hot-4/link")
    assert cli.main(["study", "run", str(study.path), "--only", "two_hot-4", *folder]) == 1
    assert "expected a new or an empty directory" in capsys.readouterr().err
