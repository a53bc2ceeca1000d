"""SIGINT, SIGTERM and SIGHUP while a run trains: heard at once, acted upon where the run can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal has ended the training; what was done until then is saved.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.signal = number

    @property
    def exit_code(self) -> int:
        """What a shell calls the end by this signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


class Interruption:
    """Hears the signals: the first is an `Interrupted` where one is raised, a second goes to the handler before.

    In another thread than the main one, which alone may hear signals, and where a signal is ignored (`nohup`; a shell's
    job in the background), all is as it was.
    """

    def __init__(self) -> None:
        self._heard: int | None = None
        self._deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: heard by code that is not Python's
                    self._before[number] = before
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
        if (
            kind is KeyboardInterrupt and self._heard is not None
        ):  # Ray's, in the place of the `Interrupted` in its calls
            raise Interrupted(self._heard) from error

    @property
    def heard(self) -> int | None:
        """The signal that waits to be acted upon, if one does."""
        return self._heard

    def hear(self, number: int) -> None:
        """Take it that this signal has come; `check` acts upon it. May be called by any thread."""
        self._heard = self._heard or number

    def check(self) -> None:
        """Raise `Interrupted` where a signal has been heard."""
        if self._heard is not None:
            raise Interrupted(self._heard)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal waits until `check` is called; outside of it, it raises `Interrupted` wherever it comes."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._heard is not None:
            before = self._before[number]
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, before)
                signal.raise_signal(number)
            return
        self._heard = number
        if not self._deferred:
            raise Interrupted(number)
