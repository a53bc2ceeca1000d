"""Filling batches on a thread of their own, ahead of who uses them."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Protocol

from twohot.replay.arguments import MOST_ROWS, integer
from twohot.replay.batch import Batch


class Source(Protocol):
    """What batches are drawn from."""

    def batch(self, batch_size: int, length: int, lookahead: int = 0, *, torch: bool, pin_memory: bool) -> Batch:
        """Memory for one batch."""

    def sample(self, batch_size: int, length: int, *, out: Batch, **options: Any) -> Batch:
        """One batch, in `out`."""


def load_ahead(
    source: Source,
    batch_size: int,
    length: int,
    *,
    batches: int,
    ahead: int,
    torch: bool,
    pin_memory: bool,
    options: dict[str, Any],
) -> Iterator[Batch]:
    """Yields `batches` batches of a source, sampled up to `ahead` batches ahead; see `Replay.loader`."""
    batches, ahead = integer("batches", batches, 0), integer("ahead", ahead, 1, MOST_ROWS)
    sizes = (batch_size, length, options.get("lookahead", 0))
    memories = [
        source.batch(*sizes, torch=torch, pin_memory=pin_memory) for _ in range(max(1, min(ahead + 1, batches)))
    ]
    return prefetch(lambda out: source.sample(batch_size, length, out=out, **options), memories, batches)


def prefetch(fill: Callable[[Batch], Batch], memories: list[Batch], batches: int) -> Iterator[Batch]:
    """Yields `batches` results of `fill`, each called with one of `memories` that nobody uses.

    A batch is valid until the next one is asked for. The thread starts with the first `next()` and has ended when the
    iterator is exhausted, closed or raises, or the interpreter exits. What `fill` raises is raised by `next()`, behind
    the batches before it. In a forked child `next()` raises RuntimeError, for the thread stayed with the parent.
    """
    free: SimpleQueue[Batch | None] = SimpleQueue()
    filled: SimpleQueue[Batch | BaseException] = SimpleQueue()
    closing = threading.Event()
    process = os.getpid()
    for memory in memories:
        free.put(memory)

    def work() -> None:
        try:
            for _ in range(batches):
                out = free.get()
                if out is None or closing.is_set():
                    return
                filled.put(fill(out))
        except BaseException as error:  # raised again by the consumer
            filled.put(error)

    def end() -> None:
        if os.getpid() != process:
            return
        closing.set()
        free.put(None)
        if thread.ident is not None:
            thread.join()

    thread = threading.Thread(target=work, name="twohot-replay-loader", daemon=True)
    atexit.register(end)  # later, the interpreter no longer runs threads, and to wait for this one would be for ever
    try:
        thread.start()
        for _ in range(batches):
            item = filled.get()
            if isinstance(item, BaseException):
                raise item
            yield item.own()
            if os.getpid() != process:
                raise RuntimeError(
                    "this loader was started before a fork, and its thread stayed in the parent process: make a loader "
                    "of a replay that is opened in this process"
                )
            free.put(item)
    finally:
        end()
        atexit.unregister(end)
