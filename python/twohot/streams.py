"""Standard output and error that may be closed, or lack a character, while the work goes on."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO


class EnduringStream:
    """A text stream that drops what is written once it can be written no more: a pipe that was closed, a full disk.

    A character that its encoding lacks is written as Python escapes it.

    Args:
        stream: where to write. other: where to say once why nothing is written any more, unless nobody reads.
    """

    def __init__(self, stream: TextIO, other: TextIO | None = None) -> None:
        self._stream, self._other, self._ended = stream, other, False
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if not self._ended:
            try:
                self._stream.write(text)
            except OSError as error:
                self._end(error)
        return len(text)

    def flush(self) -> None:
        """Write what has been kept back, or drop it."""
        if not self._ended:
            try:
                self._stream.flush()
            except OSError as error:
                self._end(error)

    def _end(self, error: OSError) -> None:
        self._ended = True
        with suppress(OSError, ValueError):  # what is still kept back goes nowhere instead of failing at exit
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if error.errno != errno.EPIPE and self._other is not None:
            with suppress(OSError):
                print(f"twohot: nothing more can be printed ({error.strerror}); the work goes on", file=self._other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def enduring_streams() -> Iterator[None]:
    """Within, printing fails for no reason that lies outside of this process, and descriptors 0 to 2 are taken."""
    for descriptor in (0, 1, 2):  # else the next file that is opened is where libraries print to
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    out, error = sys.stdout, sys.stderr
    with ExitStack() as stack:
        if error is not None:
            stack.enter_context(redirect_stderr(EnduringStream(error)))
        if out is not None:
            stack.enter_context(redirect_stdout(EnduringStream(out, sys.stderr)))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
