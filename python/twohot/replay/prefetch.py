"""Batches that a background thread fills ahead of the consumer."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from twohot._moved import renamed_arguments
from twohot.replay.arguments import MAX_COUNT, integer
from twohot.replay.batch import Batch


class Loadable:
    """What batches are sampled from; `loader` samples them ahead of the consumer."""

    def batch(self, *args: Any, **options: Any) -> Batch:
        """Memory for one batch; see `Replay.batch`."""
        raise NotImplementedError

    def sample(self, *args: Any, **options: Any) -> Batch:
        """One batch; see `Replay.sample`."""
        raise NotImplementedError

    @renamed_arguments(ahead="prefetch")
    def loader(
        self,
        batch_size: int,
        length: int,
        *,
        batches: int,
        prefetch: int = 2,
        torch: bool = False,
        pin_memory: bool = False,
        **options: Any,
    ) -> Iterator[Batch]:
        """Yields `batches` batches that a background thread samples up to `prefetch` batches ahead.

        A batch is valid until the next one is asked for: `prefetch + 1` memories serve all. The batches are those that
        `sample` would return with the same `options`, in order. The thread starts with the first `next()` and has ended
        when the iterator is exhausted, closed or raises; an iterator closed early may have drawn up to `prefetch`
        batches that nobody saw. What the thread raises is raised by `next()`, after the batches before it. Raises
        ValueError for sizes below 1.
        """
        batches, prefetch = integer("batches", batches, 0), integer("prefetch", prefetch, 1, MAX_COUNT)
        sizes = (batch_size, length, options.get("lookahead", 0))
        memories = [
            self.batch(*sizes, torch=torch, pin_memory=pin_memory) for _ in range(max(1, min(prefetch + 1, batches)))
        ]
        return prefetched(lambda out: self.sample(batch_size, length, out=out, **options), memories, batches)


def prefetched(fill: Callable[[Batch], Batch], memories: list[Batch], batches: int) -> Iterator[Batch]:
    """Yields `batches` results of `fill`, each called with one of `memories` that nobody uses.

    A batch is valid until the next one is asked for. The thread starts with the first `next()` and has ended when the
    iterator is exhausted, closed or raises, or the interpreter exits. What `fill` raises is raised by `next()`, after
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
