"""Who works in a run directory: one process at a time, by a lock that ends with it, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twohot.errors import TwohotError
from twohot.text import printable

OWNER_NAME = "owner.json"
"""The locked file: host and process of the last owner, who owns the run no more once the lock is free."""
ATTEMPTS = 100
"""To lock a file that others remove in between."""
_CONTENDED = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

_held: set[int] = set()  # descriptors of locked files; a forked child that kept one would keep the lock
logger = logging.getLogger("twohot")


class OwnedRunError(TwohotError, RuntimeError):
    """A run directory in which another process works."""


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Own a run directory within the block; it is made where it is missing, and goes again where it stays empty
    and nobody else comes meanwhile.

    The lock is flock's: the system frees it when the process ends, `kill -9` and the loss of power included. It is not
    inherited by children, forked or not. Over NFS it holds between hosts (Linux passes it on to the server) unless the
    file system is mounted with `nolock` or `local_lock`; where a file system has no locks, a warning says so.

    Raises:
        OwnedRunError: naming host and process of the owner. OSError: the directory cannot be made or written.
    """
    made = not run.exists()
    descriptor = _locked(run / OWNER_NAME)
    try:
        about = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)
        yield
    finally:
        if descriptor in _held:  # not so in a forked child
            with suppress(OSError):
                if os.listdir(run) == [OWNER_NAME]:
                    (run / OWNER_NAME).unlink()
                    if made:
                        run.rmdir()
            _release(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file, which it locks."""
    for left in reversed(range(ATTEMPTS)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError):  # mkdir says either of a directory that goes meanwhile
            if left:
                continue  # another owner has just removed an empty directory
            raise  # there can be none
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:  # else its owner has removed it in between
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                logger.warning(
                    "%s cannot be locked (%s): see to it that no other process trains there", path.parent, error
                )
                return descriptor
            owner = _owner(descriptor) if error.errno in _CONTENDED else None
            _release(descriptor)
            if owner is None:
                raise
            raise OwnedRunError(
                f"{path.parent}: {owner} works in this run; wait until it ends, or end it, and try again "
                "(evaluate and report may be used meanwhile)"
            ) from None
        _release(descriptor)
    raise OwnedRunError(f"{path.parent}: other processes come and go in this run; try again")


def _owner(descriptor: int) -> str:
    """Who has the lock, in words."""
    for _ in range(20):  # a new owner writes it down once it has the lock
        try:
            about = json.loads(os.pread(descriptor, 4096, 0))
            return printable(f"process {about['process']} on host {about['host']}, since {about['since']},")
        except (ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"


def _release(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _let_go_in_child() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)
