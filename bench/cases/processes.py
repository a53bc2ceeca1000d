"""Processes of this machine, as /proc shows them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def descendants(process: int) -> dict[int, str]:
    """The command lines of the processes that a process and its own have started, by their numbers."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, new = {}, {process}
    while new := {child for child, parent in parents.items() if parent in new}:
        found |= {child: command_of(child) for child in new}
    return found


def command_of(process: int) -> str:
    """The command line of a process; empty where there is none (any more)."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def kill(process: int) -> bool:
    """End a process at once; whether there was one."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def thread_seconds(thread: int) -> float:
    """CPU time that a thread of this process has taken."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def cpu_seconds(process: int) -> float:
    """CPU time that a process has taken, in ticks of the clock; 0 where there is none (any more)."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def resident_mb(process: int, kinds: tuple[str, ...] = ("RssAnon", "RssShmem")) -> float:
    """Resident memory of a process in 10^6 bytes, without files that are mapped; 0 where there is none (any more)."""
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return sum(int(lines[kind].split()[0]) for kind in kinds if kind in lines) * 1024 / 1e6
    return 0.0
