"""One owner a run: who comes second is told who the first is, and a dead owner keeps nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from small import quiet, with_epochs
from twohot.api.train import free_directory
from twohot.cli import main as cli
from twohot.config import ConfigurationError
from twohot.runs import ownership
from twohot.runs.ownership import OWNER_NAME, OwnedRunError, owned
from twohot.training.train import resume, train

HOLD = (
    "import os, sys, subprocess, time, multiprocessing as m; from pathlib import Path\n"
    "from twohot.runs.ownership import owned, OwnedRunError\n"
    "with owned(Path(sys.argv[1])):\n    {0}\n    print(child, flush=True)\n    time.sleep(600)"
)


@contextmanager
def holder(run: Path, make_child: str = "child = 0") -> Iterator[tuple[subprocess.Popen, int]]:
    """A process that owns `run` until it is killed, and the process id of its child."""
    command = [sys.executable, "-c", HOLD.format(make_child), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_the_second_is_told_who_the_first_is_and_a_dead_one_keeps_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with holder(run) as (first, _):
        message = rf"run: process {first.pid} on host {socket.gethostname()}, .* try again"
        with pytest.raises(OwnedRunError, match=message), owned(run):
            pass
    with owned(run):
        assert json.loads((run / OWNER_NAME).read_text())["process"] == os.getpid()


@pytest.mark.parametrize(
    "make_child",
    [
        "child = subprocess.Popen(['sleep', '600'], close_fds=False).pid",
        "child = os.fork() or time.sleep(600)",
        "p = m.get_context('fork').Process(target=time.sleep, args=(600,)); p.start(); child = p.pid",
    ],
)
def test_children_of_a_dead_owner_do_not_keep_its_lock(tmp_path: Path, make_child: str) -> None:
    with holder(tmp_path / "run", make_child) as (first, child):
        first.kill()
        first.wait()
        deadline = time.monotonic() + 300
        try:
            while True:
                try:
                    with owned(tmp_path / "run"):
                        os.kill(child, 0)  # it is still there
                    break
                except OwnedRunError:  # as long as the child has only just been forked
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_frees_nothing(tmp_path: Path) -> None:
    leave = "child = os.fork()\n    if not child: sys.exit(0)\n    assert os.waitpid(child, 0)[1] == 0"
    with holder(tmp_path / "run", leave), pytest.raises(OwnedRunError), owned(tmp_path / "run"):
        pass


def test_of_many_that_come_at_once_one_at_a_time_is_in(tmp_path: Path) -> None:
    inside, most, refused = [0], [0], []

    def come() -> None:
        for _ in range(50):
            try:
                with owned(tmp_path / "run"):  # the directory may go and come, for nothing is put into it
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.0005)
                    inside[0] -= 1
            except OwnedRunError:
                refused.append(1)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_file_that_its_owner_has_just_removed_locks_nothing(tmp_path: Path, monkeypatch) -> None:
    flock, calls = ownership.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / OWNER_NAME).unlink()  # by an owner that leaves between the opening and the lock
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(ownership.fcntl, "flock", late)
    with owned(tmp_path), pytest.raises(OwnedRunError), owned(tmp_path):
        pass


def test_a_directory_that_stays_empty_goes(tmp_path: Path) -> None:
    with owned(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    with owned(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with owned(tmp_path):
        (tmp_path / "file").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"file", OWNER_NAME}


def test_where_no_directory_can_be_made_it_is_tried_no_longer(tmp_path: Path, monkeypatch) -> None:
    """Some file systems (/proc, an automounter's) call that a missing file, as where an owner has just gone."""
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=FileNotFoundError(errno.ENOENT, "none", "run")))
    with pytest.raises(FileNotFoundError, match="run"), owned(tmp_path / "run"):
        pass


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_directory_that_goes_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch, error: type[OSError]
) -> None:
    """Another owner's: the file is not to be made in it any more, or it was there for `mkdir` and is no directory."""
    mkdir, calls = Path.mkdir, []

    def late(self: Path, *arguments, **options) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise error(str(self))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    with owned(tmp_path / "run"):
        assert (tmp_path / "run" / OWNER_NAME).exists()


def test_an_owner_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    with owned(tmp_path):
        (tmp_path / OWNER_NAME).write_bytes(b"\xff[")
        with pytest.raises(OwnedRunError, match="another process works in this run"), owned(tmp_path):
            pass


def test_where_there_are_no_locks_a_warning_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    def flock(*_) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(ownership.fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING, "twohot"), owned(tmp_path):
        pass
    assert "cannot be locked (" in caplog.text


def test_nobody_trains_where_another_works(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    with owned(run):
        with pytest.raises(OwnedRunError):
            train(with_epochs(1), run, quiet())
        train_alone = ["train", "quickstart", "--run", str(run)]
        assert cli.main(train_alone) == 1
        assert cli.main([*train_alone, "--continue"]) == 1
        said = capsys.readouterr().err
        assert said.count(f"process {os.getpid()} on host {socket.gethostname()}") == 2
        assert "Traceback" not in said
        (run / ".1.partial").touch()  # and what a process leaves that is killed here
    train(with_epochs(1), run, quiet())
    with owned(run):
        with pytest.raises(OwnedRunError):
            resume(run, quiet())
        assert cli.main(["evaluate", str(run), "--trials", "1"]) == 0
        assert cli.main(["report", str(run)]) == 0
    with pytest.raises(ConfigurationError, match="no run here"):
        resume(tmp_path / "nothing", quiet())
    assert not (tmp_path / "nothing").exists()


def test_directories_without_a_name_are_claimed_as_they_are_made(tmp_path: Path) -> None:
    with free_directory(tmp_path / "runs", "x") as one, free_directory(tmp_path / "runs", "x") as two:
        assert (one.name, two.name) == ("x-1", "x-2")
        (one / "file").touch()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x-1"]
