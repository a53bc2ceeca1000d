"""The command line: what it prints, and that bad input ends in one sentence with a non-zero code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest

import forked
from small import quiet, with_epochs
from twohot import presets
from twohot.cli import commands
from twohot.cli import main as cli
from twohot.cli.options import options_of
from twohot.cli.train_options import TrainOptions
from twohot.runs.checkpoint import signed
from twohot.training import video
from twohot.training.train import train

FAST = [
    *("--epochs", "2", "--updates-per-epoch", "2", "--batch-size", "4", "--window", "8"),
    *("--device", "cpu", "--threads", "1", "--agent.width", "16", "--agent.heads", "2", "--agent.layers", "1"),
    *("--agent.encoder-hidden", "16", "--agent.head-hidden", "16", "--agent.feed-forward", "16"),
    *("--collect.environments", "2", "--collect.steps-per-epoch", "60", "--collect.workers", "in-process"),
    *("--evaluate.trials", "2", "--evaluate.final-trials", "2"),
    *("--environment.tasks", "RepeatFirstEasy", "PositionOnlyCartPoleEasy"),
    *("--environment.reward-multipliers", "1", "10"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "run"
    train(with_epochs(2), directory, quiet())
    return directory


def fails(capsys, *arguments: str, code: int = 1) -> str:
    """The one sentence with which a command ends."""
    assert cli.main(arguments) == code
    error = capsys.readouterr().err.strip()
    assert error.startswith("twohot: ")
    assert "\n" not in error
    return error


def test_train_ends_with_a_table_and_the_report(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "quickstart", *FAST]) == 0
    out = capsys.readouterr().out
    assert "RepeatFirst" in out
    assert "Report: runs/quickstart-1/report.html" in out
    assert (tmp_path / "runs/quickstart-1/report.html").stat().st_size > 10_000
    assert cli.main(["train", "quickstart", *FAST, "--seed", "1"]) == 0
    assert (tmp_path / "runs/quickstart-2/report.html").exists()


@pytest.mark.parametrize("words", [["--env", "CartPole-v1"], ["--env=CartPole-v1"]])
def test_env_names_what_gymnasium_makes(tmp_path: Path, capsys, words: list[str]) -> None:
    few = ["--epochs", "1", "--collect.steps-per-epoch", "4", "--evaluate.final-trials", "1"]
    assert cli.main(["train", "gym-small", *words, *few, "--run", str(tmp_path / "run")]) == 0
    assert "Training one agent on CartPole-v1 of gym" in capsys.readouterr().out


def test_resume_goes_on_for_longer(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert cli.main(["train", "quickstart", *FAST, "--run", str(run)]) == 0
    assert cli.main(["train", "--resume", str(run), "--epochs", "3"]) == 0
    assert "continued after epoch 2" in capsys.readouterr().out
    assert (run / "checkpoints/epoch-000003").is_dir()


def test_evaluate_and_report(run: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["evaluate", str(run), "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert "PositionOnlyCartPoleEasy" in out
    assert "bootstrapped over trials" in out
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["trials"], found["seed"], len(found["tasks"])) == (2, 1, 2)
    assert cli.main(["report", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()


def test_other_tasks_are_played_by_an_agent_that_they_fit(run: Path, tmp_path: Path, capsys) -> None:
    own = (run / "evaluation.json").read_bytes()
    arguments = ["evaluate", str(run), "--trials", "2", "--json", str(tmp_path / "other.json"), "--tasks"]
    assert cli.main([*arguments, "RepeatFirstEasy", "RepeatFirstMedium"]) == 0
    assert "RepeatFirstMedium" in capsys.readouterr().out
    found = json.loads((tmp_path / "other.json").read_text())
    assert [task["task"] for task in found["tasks"]] == ["RepeatFirstEasy", "RepeatFirstMedium"]
    assert cli.main([*arguments, "gym:CartPole-v1", "RepeatFirstEasy"]) == 0  # of a suite that no part of it knows
    found = json.loads((tmp_path / "other.json").read_text())
    assert [task["task"] for task in found["tasks"]] == ["gym:CartPole-v1", "RepeatFirstEasy"]
    assert (run / "evaluation.json").read_bytes() == own
    assert "--tasks: expected tasks that fit" in fails(capsys, *arguments, "HigherLowerEasy", code=2)
    assert "no popgym task named 'RepeatEasy'" in fails(capsys, *arguments, "RepeatEasy")
    for twice in (["RepeatFirstEasy", "RepeatFirstEasy"], ["popgym:RepeatFirstEasy", "RepeatFirstEasy"]):
        assert "--tasks: expected every task once, got" in fails(capsys, *arguments, *twice, code=2)


def test_videos_of_another_suite_have_a_folder_of_their_own(run: Path, capsys, monkeypatch) -> None:
    folders = []
    monkeypatch.setattr(video, "record", lambda *given, **_: (folders.append(given[3]), [])[1])
    arguments = ["evaluate", str(run), "--trials", "1", "--video", "--tasks", "gym:CartPole-v1", "RepeatFirstEasy"]
    assert cli.main(arguments) == 0
    assert sorted(folders) == [run / "videos", run / "videos/gym"]


def test_a_task_of_no_suite_says_so_where_the_run_s_suite_knows_open_names(tmp_path: Path, capsys) -> None:
    few = ["--epochs", "1", "--collect.steps-per-epoch", "4", "--evaluate.final-trials", "1"]
    run = str(tmp_path / "run")
    assert cli.main(["train", "gym-small", "--env", "CartPole-v1", *few, "--run", run]) == 0
    capsys.readouterr()
    said = fails(capsys, "evaluate", run, "--tasks", "popgm:RepeatFirstEasy")
    assert "no suite named 'popgm': did you mean popgym" in said
    assert "no popgym task named 'RepeatEasy'" in fails(capsys, "evaluate", run, "--tasks", "popgym:RepeatEasy")


def test_several_runs_are_evaluated_together(run: Path, tmp_path: Path, capsys) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    arguments = ["evaluate", str(run), str(other), "--trials", "3", "--json", str(tmp_path / "new" / "both.json")]
    assert cli.main([*arguments, "--video"]) == 0
    out = capsys.readouterr().out
    assert "bootstrapped over runs and trials" in out
    assert out.count("RepeatFirstEasy: draws no images") == 2
    both = json.loads((tmp_path / "new" / "both.json").read_text())
    assert both["runs"] == [str(run), str(other)]
    assert both["tasks"][0]["runs"][0] == both["tasks"][0]["runs"][1]
    assert "every run once" in fails(capsys, "evaluate", str(run), str(run), code=2)
    state_file = max((other / "checkpoints").iterdir()) / "state.json"
    state = json.loads(state_file.read_text())
    state["config"]["environment"]["attempts"] = state.pop("crc32") and 2
    state_file.write_bytes(signed(state))
    assert "runs that play the same tasks" in fails(capsys, "evaluate", str(run), str(other), "--trials", "1", code=2)
    assert "expected a split of 'popgym', train, got 'test'" in fails(capsys, "evaluate", str(run), "--splits", "test")


def test_envs_and_info(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["envs"]) == 0
    assert "installed" in capsys.readouterr().out
    assert cli.main(["envs", "popgym"]) == 0
    assert capsys.readouterr().out.split()[:1] == ["AutoencodeEasy"]
    monkeypatch.setattr("twohot.envs.registry.find_spec", lambda name: None)
    assert cli.main(["envs"]) == 0
    assert "missing: pip install" in capsys.readouterr().out
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "native module" in out
    assert "_native" in out
    assert cli.main(["info", "--attention", "--head-size", "24"]) == 0
    assert "one step              reference (the head size is 24" in capsys.readouterr().out


def test_help_teaches(capsys) -> None:
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "train PRESET" in capsys.readouterr().out
    assert cli.main(["train", "--help"]) == 0
    assert "popgym-multitask" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "quickstart", "--help"])
    assert stopped.value.code == 0
    assert "--agent.heads" in capsys.readouterr().out


def test_a_file_in_the_folder_of_commands_is_one(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    (tmp_path / "greet.py").write_text('"""Greet.\n\ngreet NAME  say hello\n"""\nfrom builtins import print as run\n')
    (tmp_path / "wave.py").write_text('"""Wave to all."""\nraise ImportError("only listed")\n')
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^  greet NAME  +say hello$", listed, re.MULTILINE)
    assert re.search(r"^  wave  +Wave to all.$", listed, re.MULTILINE)
    cli.main(["greet", "you"])
    assert capsys.readouterr().out == "['you']\n"
    sys.modules.pop("twohot.cli.commands.greet")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "quickstrat"]])
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    code = f"import sys; from twohot.cli.main import main; main({arguments}); print(sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "gymnasium", "tyro", "numpy"} & set(eval(ended.stdout.splitlines()[-1]))


def test_the_presets_are_listed_as_they_are(tmp_path: Path, monkeypatch) -> None:
    assert list(presets.summaries().items()) == [(name, preset.summary) for name, preset in presets.PRESETS.items()]
    made = "from twohot.presets.gymnasium import PRESETS as GYM\nPRESETS = {f'my-{name}': GYM[name] for name in GYM}\n"
    (tmp_path / "made.py").write_text(made)
    monkeypatch.setattr(presets, "__path__", [*presets.__path__, str(tmp_path)])
    assert presets.summaries()["my-gym-small"] == presets.PRESETS["gym-small"].summary
    sys.modules.pop("twohot.presets.made")


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--optimizer.lr", "--optimizer.learning-rate"),
        ("--lr=1", "--optimizer.learning-rate"),
        ("--learning_rate", "--optimizer.learning-rate"),
        ("--optimiser.learning-rate", "--optimizer.learning-rate"),
        ("--agent.bins.cnt", "--agent.bins.count"),
        ("--epoch", "--epochs"),
        ("--continu", "--continue"),
    ],
)
def test_a_misspelt_option_is_told_what_is_meant(capsys, option: str, meant: str) -> None:
    error = fails(capsys, "train", "quickstart", option, "1", code=2)
    assert f"no option {option.partition('=')[0].replace('_', '-')}: did you mean {meant}? `twohot train qu" in error


def test_what_is_close_to_nothing_is_told_where_the_options_are(capsys) -> None:
    error = fails(capsys, "train", "quickstart", "--quantum-flux", "1", code=2)
    assert error == "twohot: no option --quantum-flux: `twohot train quickstart --help` lists all"
    assert "expected options, got 'more'" in fails(capsys, "info", "more", code=2)
    assert "did you mean --trials?" in fails(capsys, "evaluate", "run", "--trial", "3", code=2)


def test_every_option_that_help_lists_is_known_to_suggestions(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "quickstart", "--help"])
    listed = {each for each in re.findall(r"(--[a-z][\w.-]*)", capsys.readouterr().out) if "." in each}
    assert len(listed) > 100
    known = set(options_of(TrainOptions(presets.PRESETS["quickstart"].config)))
    assert {each.replace(".no-", ".") for each in listed} == {each for each in known if "." in each}


def test_gym_small_plays_what_gymnasium_has_alone() -> None:
    for name in ("gym", "gym-small"):
        (task,) = presets.PRESETS[name].config.environment.tasks
        assert "classic_control" in str(gym.spec(task).entry_point)


def test_unknown_words(capsys, tmp_path: Path) -> None:
    assert cli.main(["trian"]) == 2
    said = "no command 'trian': did you mean train? there are envs, evaluate, info, replay, report, study, train"
    assert said in capsys.readouterr().err
    assert "no preset 'quickstrat': did you mean quickstart? `twohot train --help` lists all" in fails(
        capsys, "train", "quickstrat", code=2
    )
    assert "twohot envs" in fails(capsys, "envs", "popgim")
    name = fails(
        capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / "r"), "--environment.tasks", "RepeatFrstEasy", "x"
    )
    assert "RepeatFirstEasy" in name
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent.heads", "3"], "agent.heads: expected a divisor of the width 16, got 3"),
        (["--agent.bins.count", "1"], "ValueBins.count: expected an integer of at least 2 bins, got 1"),
        (["--agent.bins.low", "5", "--agent.bins.high", "4"], "expected finite low < high, got low=5.0, high=4.0"),
        (["--window", "500"], "window: expected at most the agent's context"),
        (["--replay.capacity-steps", "40"], "agent.context: expected at most replay.capacity_steps = 40"),
        (["--environment.observation-size", "2"], "environment: expected at most 2 observation entries, got 4"),
        (["--environment.reward-multipliers", "1"], "one for each of the 2 tasks, got 1"),
        (["--environment.reward-multipliers", "nan", "1"], "reward_multipliers: expected finite numbers"),
        (["--device", "abacus"], "device: expected"),
        (["--device", "meta"], "neither cpu nor cuda"),
        (["--device", "cuda:63"], "device: expected"),
    ],
)
def test_impossible_configurations(capsys, tmp_path: Path, options: list[str], message: str) -> None:
    run = tmp_path / "run"
    assert message in fails(capsys, "train", "quickstart", *FAST, "--run", str(run), *options)
    assert not run.exists()


def test_two_kinds_of_actions_are_refused(capsys, tmp_path: Path) -> None:
    tasks = ["--environment.tasks", "PositionOnlyPendulumEasy", "RepeatFirstEasy"]
    error = fails(capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / "run"), *tasks)
    assert "expected tasks with one kind of action, got Box and Discrete" in error


def test_a_missing_run(capsys, tmp_path: Path) -> None:
    for command in (["train", "--resume"], ["evaluate"], ["report"]):
        assert "no run here" in fails(capsys, *command, str(tmp_path / "nothing"), code=2)


def test_a_run_without_a_checkpoint(capsys, run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    assert "no checkpoint here" in fails(capsys, "evaluate", str(tmp_path))


def test_a_configuration_that_was_edited_badly(capsys, run: Path, tmp_path: Path) -> None:
    text = (run / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"heads"', '"haeds"'))
    assert "agent.haeds: unknown setting" in fails(capsys, "train", "--resume", str(tmp_path))
    (tmp_path / "config.json").write_text(text[:100])
    assert "not JSON" in fails(capsys, "train", "--resume", str(tmp_path))


def test_a_full_disk(capsys, tmp_path: Path, monkeypatch) -> None:
    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("twohot.runs.checkpoint.save_file", full)
    error = fails(capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / "run"))
    assert "No space left" in error
    assert f"twohot train --resume {tmp_path / 'run'}" in error


def test_a_disk_that_fills_up_elsewhere(capsys, tmp_path: Path, monkeypatch) -> None:
    def full(self, *arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("twohot.runs.metrics.MetricsWriter.write", full)
    error = fails(capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / "run"))
    assert "No space left" in error
    assert f"twohot train --resume {tmp_path / 'run'}" in error


def test_a_trial_longer_than_the_memory(capsys, tmp_path: Path) -> None:
    options = ["--replay.capacity-steps", "30", "--agent.context", "20"]
    error = fails(capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / "run"), *options)
    assert error.startswith("twohot: replay.capacity_steps: too small for one trial")


def test_a_directory_that_cannot_be_a_run(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("")
    for name in ("file", "full"):
        error = fails(capsys, "train", "quickstart", *FAST, "--run", str(tmp_path / name))
        assert "expected a new or an empty directory" in error


def test_reports_of_runs_that_cannot_be_read(capsys, run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    assert "no metrics.jsonl" in fails(capsys, "report", str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text("nonsense\n{}\n")
    assert "line 1" in fails(capsys, "report", str(tmp_path))
    assert "directory" in fails(capsys, "report", str(run), "--output", str(tmp_path)).lower()


def test_resume_with_fewer_epochs_changes_nothing(capsys, run: Path) -> None:
    before = (run / "config.json").read_text()
    assert "at least the 2 that the run has done" in fails(capsys, "train", "--resume", str(run), "--epochs", "1")
    assert (run / "config.json").read_text() == before
    assert "takes the place of a preset" in fails(capsys, "train", "quickstart", "--resume", str(run), code=2)


def test_interrupted(tmp_path: Path) -> None:
    run, error = tmp_path / "run", tmp_path / "error"
    arguments = ["train", "quickstart", *FAST, "--epochs", "10000", "--run", str(run)]
    process = forked.command(arguments, Path(os.devnull), error)
    deadline = time.monotonic() + 600
    while not (run / "checkpoints").exists() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(600)
    assert process.exitcode == 130, error.read_text()
    assert error.read_text().strip() == f"twohot: interrupted; continue with: twohot train --resume {run}"
