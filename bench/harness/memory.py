"""Peak memory of a piece of work, as the kernel counts it (Linux), and whether it has huge pages."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def peak(work: Callable[[], Result]) -> tuple[int, Result]:
    """Bytes resident at the peak of two calls of `work` beyond those before the first, and what the second returned.

    What the work keeps for its next call counts. Pages that malloc has free are given back first: they would hide what
    is put into them.
    """
    before = resident()
    start_of_peak()
    work()
    result = work()
    return until_peak() - before, result


def start_of_peak() -> None:
    """Let the peak start again at what is resident."""
    Path("/proc/self/clear_refs").write_text("5")


def until_peak() -> int:
    """Bytes of this process in memory at the peak since `start_of_peak`."""
    return _status("VmHWM")


def resident() -> int:
    """Bytes of this process in memory, those that malloc has free not among them where it is glibc's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    return _status("VmRSS")


def _status(key: str) -> int:
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def in_fork(work: Callable[[], int]) -> int | str:
    """What `work` returns in a fork of this process, or the text of its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = json.dumps(work())
        except BaseException as error:
            answer = json.dumps(f"{type(error).__name__}: {error}".splitlines()[0])
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else f"ended with {status} and no figure"


def huge_pages() -> int:
    """Bytes of huge pages of this process, which allocates 64 MiB by torch for the question."""
    memory = torch.ones(1 << 24)
    found = re.search(r"AnonHugePages:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text())
    return 1024 * int(found[1]) if memory.numel() and found else 0
