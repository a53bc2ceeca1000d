"""Processes that need not load torch, for they are forks of one that has loaded it and does nothing else."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from perturbation import perturb_as_asked
from small import quiet
from twohot.cli import main as cli
from twohot.config import TrainConfig
from twohot.runs import replay as run_replay
from twohot.training.train import resume, train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [f"twohot.{name}" for name in ("training.train", "cli.commands.train", "cli.commands.evaluate", "reports.report")]
)


UNREAD, CLOSED = "unread", "closed"
"""What a standard stream may be besides a file: a pipe that nobody reads, and no descriptor at all."""


def command(arguments: list[str], output: Path | str = UNREAD, error: Path | str = UNREAD) -> ForkServerProcess:
    """The `twohot` command, which has begun, with these standard streams; it keeps back nothing that it prints."""
    process = CONTEXT.Process(target=_command, args=(arguments, output, error), daemon=True)
    process.start()
    return process


def _command(arguments: list[str], *streams: Path | str) -> None:
    for descriptor, name, stream in zip((1, 2), ("stdout", "stderr"), streams, strict=True):
        os.close(descriptor)
        if stream == CLOSED:
            setattr(sys, name, None)
            continue
        if stream == UNREAD:
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open(stream, os.O_WRONLY | os.O_CREAT)
        if writer != descriptor:
            os.dup2(writer, descriptor)
            os.close(writer)
        setattr(sys, name, io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), write_through=True))
    sys.exit(cli.main(arguments))


def training(config: TrainConfig, run: Path, die: tuple[str, str] | None = None) -> ForkServerProcess:
    """A process that trains or, where there is a run already, resumes it; files of a replay on disk are small.

    It kills itself "before" or "after" it renames a path to one that ends so, the two words of `die`.
    """
    process = CONTEXT.Process(target=_train, args=(config, run, die), daemon=True)
    process.start()
    return process


def _train(config: TrainConfig, run: Path, die: tuple[str, str] | None) -> None:
    perturb_as_asked()
    run_replay.SEGMENT_BYTES = 2000
    if die is not None:
        moment, end = die
        rename = os.rename

        def deadly(source: Path, target: Path) -> None:
            meant = str(target).endswith(end)
            if not meant or moment == "after":
                rename(source, target)
            if meant:
                os.kill(os.getpid(), signal.SIGKILL)

        os.rename = deadly
    if (run / "config.json").exists():
        resume(run, quiet())
    else:
        train(config, run, quiet())
