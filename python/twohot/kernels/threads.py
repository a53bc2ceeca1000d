"""How many threads native code has, and torch's operations beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ONE_THREAD_NUMBERS = 1 << 18
"""Numbers of the largest tensor up to which waking a second thread costs torch's operations more than it brings."""
_asked = threading.local()


def native_threads() -> int:
    """Threads of native code: as many as torch has been given, also where its own operations run on one."""
    return getattr(_asked, "native", None) or torch.get_num_threads()


@contextmanager
def one_torch_thread(numbers: int) -> Iterator[None]:
    """Within, torch's operations on the CPU run on one thread where they work on no more than so many `numbers`.

    Native code keeps its threads: a call of it does much at once.
    """
    threads = torch.get_num_threads()
    if numbers > ONE_THREAD_NUMBERS or threads == 1:
        yield
        return
    before, _asked.native = getattr(_asked, "native", None), native_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _asked.native = before
