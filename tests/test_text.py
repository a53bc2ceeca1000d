"""Text from outside is text wherever it is printed, drawn, or made a file name; and printing never ends the work."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import forked
from small import quiet, with_epochs
from twohot.cli import main as cli
from twohot.cli.commands.evaluate import print_report
from twohot.config import ConfigurationError
from twohot.replay import Field, Replay, Schema
from twohot.reports.markup import escape
from twohot.reports.replay_plot import plot
from twohot.reports.results import TaskResult, print_results
from twohot.runs.scores import TaskScore, report
from twohot.streams import EnduringStream
from twohot.text import file_stems, printable
from twohot.training.progress import Progress
from twohot.training.train import train

HOSTILE = [
    "[red]",
    "[/]",
    ":smile:",
    "$x_{",
    "a\nb",
    "\x1b[2J",
    "\x00",
    "\udcff",
    "<script>",
    "é日",
    "\u202eabc",
    "%s{0}",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_printed_as_it_is_in_one_line(text: str) -> None:
    said = printable(text)
    assert said.isprintable()
    assert said == text or "\\" in said
    said.encode()
    assert printable("a\u00a0b") == "a\u00a0b"
    assert not set(escape(text)) & set("<>\n\x00\x1b\udcff")


@pytest.mark.parametrize("markup", [True, False])
def test_tables_and_progress_show_it(markup: bool) -> None:
    tasks = [text or "empty" for text in HOSTILE]
    scores = [TaskScore(task, np.ones((3, 2)), np.ones((3, 2)), 0) for task in tasks]
    console = Console(file=io.StringIO(), markup=markup, width=200)
    print_report(console, report({"[/]run": scores}, trials=3, seed=0))
    print_results(console, [TaskResult(task, 1.0, 0.1, 0.0, 0.1, True) for task in tasks])
    config = with_epochs(2)
    environment = dataclasses.replace(config.environment, tasks=("[/x]",), reward_multipliers=())
    progress = Progress(console)
    progress.start(dataclasses.replace(config, environment=environment), 0)
    rows = {"evaluation": {f"evaluation/return/{task}": 1.0 for task in tasks}, "update": {}, "collect": {}}
    progress.epoch(1, 1, 1, rows)
    shown = console.file.getvalue()
    assert "on [/x] of" in shown
    assert "[/]run" in shown
    for task in tasks:
        assert shown.count(printable(task)) >= 3, task


def test_file_names_are_portable_and_different() -> None:
    names = [
        "a",
        "A",
        "ALE/Pong-v5",
        "ALE-Pong-v5",
        "../../x",
        "..",
        "",
        ":",
        "x" * 300,
        "x" * 299,
        "\udcff",
        "日本",
        "a-test",
        "con",
        "NUL.x",
        "lpt1",
        "a?b",
        'a"b',
        "a.",
    ]
    stems = file_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names)
    for stem in stems:
        assert stem.isascii()
        assert 0 < len(stem) < 120
        assert not set(stem) & set('/\\:*?"<>|\0 ')
        assert stem.partition(".")[0].casefold() not in ("con", "nul", "lpt1")
        assert not stem.endswith(".")
        assert stem not in (".", "..")
    assert file_stems(["ALE/Pong-v5", "Maze_1.5"]) == ["ALE-Pong-v5", "Maze_1.5"]
    assert file_stems(names) == stems


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plots_draw_it(tmp_path: Path, suffix: str) -> None:
    replay = Replay.create(Schema({"x": Field("float32", (1,))}, Field("int64")), capacity_steps=100)
    names = [text for text in HOSTILE if text.isascii()] + ["\udcff", "\\$a$", "$x_{$"]
    for task in range(len(names)):
        flags = np.ones(1, bool)
        replay.add(
            {"x": np.ones((2, 1), np.float32)}, np.zeros(1, np.int64), np.ones(1, np.float32), flags, ~flags, task
        )
    plot(replay, tmp_path / f"replay.{suffix}", names=dict(enumerate(names)))
    assert (tmp_path / f"replay.{suffix}").stat().st_size > 1000


def test_a_stream_that_fails_is_written_no_more() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    other = io.StringIO()
    stream = EnduringStream(Full(), other)
    for _ in range(3):
        print("x", file=stream, flush=True)
    assert other.getvalue() == "twohot: nothing more can be printed (No space left on device); the work goes on\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "[red] é <b>"
    train(with_epochs(1), directory, quiet())
    schema = Schema({"[/]": Field("float32", (1,))}, Field("int64"))
    Replay.create(schema, capacity_steps=100, directory=directory.parent / "[/] replay").close()
    return directory


def test_a_run_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="UTF-8"):
        train(with_epochs(1), tmp_path / "\udcff", quiet())
    assert list(tmp_path.iterdir()) == []


COMMANDS = {
    "report": lambda run: ["report", run],
    "evaluate": lambda run: ["evaluate", run, "--trials", "1"],
    "replay info": lambda run: ["replay", "info", str(Path(run).parent / "[/] replay")],
    "resume": lambda run: ["train", "--resume", run],
    "info": lambda run: ["info"],
    "help": lambda run: ["train", "quickstart", "--help"],
    "a wrong word": lambda run: ["train", "\udcff[red]"],
}


@pytest.mark.parametrize(
    ("name", "stream"),
    [(name, forked.UNREAD) for name in COMMANDS] + [("report", forked.CLOSED), ("evaluate", forked.CLOSED)],
)
def test_no_command_minds_that_nobody_reads(run: Path, name: str, stream: str) -> None:
    process = forked.command(COMMANDS[name](str(run)), stream, stream)
    process.join(600)
    assert process.exitcode == (2 if name == "a wrong word" else 0)


def test_what_is_kept_back_for_a_closed_pipe_goes_nowhere_at_the_end() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as unread:
        command = [sys.executable, "-m", "twohot", "--version"]
        done = subprocess.run(command, stdout=unread, stderr=unread, env=environment, check=False)
    assert done.returncode == 0  # 120 where Python cannot write it at its end


def test_a_process_without_standard_streams_gives_their_descriptors_to_no_file() -> None:
    program = (
        "import os; from twohot.cli import main as cli; os._exit(cli.main(['--version']) or os.open(os.devnull, 0) < 3)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_path_that_the_encoding_lacks_is_printed(run: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, "-m", "twohot", "report", str(run)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"[red] \xe9 <b>" in done.stdout


def test_one_line_starts_a_job_and_resumes_it(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    run.mkdir()
    line = [
        "train",
        "gym-small",
        "--env",
        "CartPole-v1",
        "--run",
        str(run),
        "--continue",
        "--collect.workers",
        "in-process",
    ]
    line += ["--collect.steps-per-epoch", "4", "--evaluate.final-trials", "1", "--updates-per-epoch", "1"]
    assert cli.main([*line, "--epochs", "1"]) == 0
    assert "from the beginning" in capsys.readouterr().out
    assert cli.main([*line, "--epochs", "1"]) == 0
    assert "has finished its 1 epochs" in capsys.readouterr().out
    assert cli.main([*line, "--epochs", "2"]) == 0
    assert "continued after epoch 1" in capsys.readouterr().out
    assert cli.main([*line, "--epochs", "1", "--checkpoint-minutes", "3"]) == 0
    assert "trains the 2 epochs that it was given before, not 1" in capsys.readouterr().out
    assert cli.main([*line, "--epochs", "2", "--agent.layers", "7"]) == 1
    assert "was started with agent.layers = 2, and now it is asked for 7" in capsys.readouterr().err
    assert cli.main(["train", "quickstart", "--run", str(run), "--continue"]) == 1
    assert "was started with " in capsys.readouterr().err
    assert cli.main(["train", "quickstart", "--continue"]) == 2
    assert "expected the directory of the run too" in capsys.readouterr().err
