"""Files and the page cache (Linux): what of them is in memory, how to get it out, and how fast the disk reads."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

BLOCK = 1 << 22
LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder on a disk: in TWOHOT_BENCH_DIRECTORY where that is set, else where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="twohot-", dir=os.environ.get("TWOHOT_BENCH_DIRECTORY")) as directory:
        yield Path(directory)


def files(directory: Path) -> list[Path]:
    """The files in a directory and its folders that hold anything."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def sync(directory: Path) -> None:
    """Waits until the files are on the disk: only such pages can leave memory."""
    for path in files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def evict(paths: Sequence[Path]) -> None:
    """Takes files out of the page cache, this process's shared mappings of them included."""
    names = {str(path.resolve()) for path in paths}
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.match(r"(\w+)-(\w+) ...s \S+ \S+ \S+\s+(.*)", line)
        if found and found[3] in names:
            first, last = (int(found[index], 16) for index in (1, 2))
            LIBC.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(paths: Sequence[Path]) -> int:
    """Bytes of files in the page cache. Raises OSError where the system does not tell."""
    total = 0
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            view = np.frombuffer(mapping, np.uint8)
            pages = np.zeros(-(-view.size // mmap.PAGESIZE), np.uint8)
            address, size, found = view.ctypes.data, view.size, pages.ctypes.data
            del view  # or the mapping could not be closed
            if LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(found)):
                raise OSError(ctypes.get_errno(), f"mincore of {path}")
            total += mmap.PAGESIZE * int((pages & 1).sum())
    return total


def sequential_rate(paths: Sequence[Path], most: int = 1 << 30) -> float:
    """GB/s of reading files that are not in memory from end to end, up to `most` bytes."""
    evict(paths)
    buffer = bytearray(BLOCK)
    done, start = 0, time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while done < most and (count := file.readinto(buffer)):
                done += count
    return done / (time.perf_counter() - start) / 1e9


def random_rate(paths: Sequence[Path], size: int, reads: int = 100) -> float:
    """GB/s of reading `size` bytes at random places of the largest file, none of which are in memory."""
    evict(paths)
    path = max(paths, key=lambda path: path.stat().st_size)
    places = np.random.default_rng().integers(0, max(path.stat().st_size - size, 1), reads)
    buffer = bytearray(size)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        done, start = 0, time.perf_counter()
        for place in places.tolist():
            file.seek(place)
            done += file.readinto(buffer)
    return done / (time.perf_counter() - start) / 1e9
