"""Rows in processes: each worker steps some of them, and all write into shared memory.

A worker that dies is started again, and so are its rows: their episodes are lost, which their info says. An exception
of an environment is no death: it is raised here.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

from twohot.envs.registry import Suite, register, suites
from twohot.envs.rows import LOST, Infos, Rows, allocate
from twohot.errors import TwohotError

DEATHS_IN_A_ROW = 3
_DEATH = (EOFError, ConnectionError)

logger = logging.getLogger("twohot")


class DeadWorkerError(TwohotError, RuntimeError):
    """A worker process that dies whenever it is started."""


class Workers:
    """The interface of `Rows` over several processes.

    Args:
        makes: what makes each row's environment, all of the spaces that follow; must be picklable.
        suite: registered in the workers too; must be picklable.
        observation_space, action_space: of one row.
        workers: number of processes, at most one for each row.

    Attributes:
        arrays: of all rows, in memory that the processes share.
        processes: those that run now. slices: the rows of each.

    Raises:
        TwohotError: something in `makes` or `suite` cannot be sent to another process.
        DeadWorkerError: a worker died `DEATHS_IN_A_ROW` times without finishing anything in between.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], gym.Env]],
        suite: Suite,
        observation_space: gym.Space,
        action_space: gym.Space,
        workers: int,
    ) -> None:
        bounds = np.linspace(0, len(makes), workers + 1).astype(int).tolist()
        self.slices = [slice(*pair) for pair in zip(bounds, bounds[1:], strict=False)]
        try:
            pickle.dumps((makes, suite))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TwohotError(
                f"suite {suite.name!r} cannot be played in processes ({error}): make it with a function at the top of "
                "a module, or set collect.workers to in-process"
            ) from error
        # Not forked: threads of torch and of the replay would be forked half-way.
        self._context = multiprocessing.get_context("spawn")
        memory: list[Any] = []

        def share(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            memory.append(self._context.RawArray("b", int(np.prod(shape)) * dtype.itemsize))
            return _view(memory[-1], shape, dtype)

        self.arrays = allocate(observation_space, action_space, len(makes), share)
        self._jobs = [
            (list(makes[rows]), suite, (observation_space, action_space, len(makes)), memory, rows)
            for rows in self.slices
        ]
        self._runs = np.zeros(len(makes), bool)
        self._seeds = np.random.default_rng()
        self._deaths = [0] * workers
        self.processes: list[Any] = [None] * workers
        self._connections: list[Any] = [None] * workers
        for worker in range(workers):
            self._start(worker)

    def reset(
        self, rows: Sequence[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]
    ) -> Infos:
        """As `Rows.reset`."""
        asked: dict[int, Any] = {}
        for worker, own in enumerate(self.slices):
            mine = [index for index, row in enumerate(rows) if own.start <= row < own.stop]
            if mine:
                local = [rows[index] - own.start for index in mine]
                asked[worker] = ("reset", local, [seeds[index] for index in mine], [options[index] for index in mine])
        infos = self._ask(asked)
        self._runs[list(rows)] = True
        return infos

    def step(self) -> Infos:
        """As `Rows.step`."""
        infos = self._ask(dict.fromkeys(range(len(self.slices)), ("step",)))
        self._runs &= ~(self.arrays.terminated | self.arrays.truncated)
        return infos

    def render(self) -> list[tuple[int, Any]]:
        """As `Rows.render`."""
        return self._ask(dict.fromkeys(range(len(self.slices)), ("render",)))

    def close(self) -> None:
        """End the processes."""
        for connection in self._connections:
            with suppress(OSError):
                connection.send(("close",))
            connection.close()
        for process in self.processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()

    def _ask(self, asked: dict[int, Any]) -> Infos:
        """Send each worker its command, then gather the answers in order."""
        for worker, command in asked.items():
            with suppress(*_DEATH):  # found out when the answer is awaited
                self._connections[worker].send(command)
        infos: Infos = []
        failure = None
        for worker, command in asked.items():
            try:
                answer = self._connections[worker].recv()
                self._deaths[worker] = 0
            except _DEATH:
                answer = self._revive(worker, command)
            if isinstance(answer, Exception):
                failure = failure or answer
            else:
                infos += [(row + self.slices[worker].start, info) for row, info in answer]
        if failure is not None:
            raise failure
        return infos

    def _start(self, worker: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, *self._jobs[worker]), daemon=True)
        process.start()
        theirs.close()  # so that a death ends the connection
        self.processes[worker], self._connections[worker] = process, ours

    def _revive(self, worker: int, command: tuple[Any, ...]) -> Infos | Exception:
        """Start a worker that has died; begin what was to begin, and anew the episodes that were going on."""
        own = self.slices[worker]
        wanted = {row: (seed, options) for row, seed, options in zip(*command[1:] or ((), (), ()), strict=True)}
        lost = [row for row in range(own.stop - own.start) if self._runs[own.start + row] and row not in wanted]
        while True:
            self._deaths[worker] += 1
            self._connections[worker].close()
            self.processes[worker].join()
            what = (
                f"the worker of environments {own.start} to {own.stop - 1} died "
                f"(exit code {self.processes[worker].exitcode})"
            )
            if self._deaths[worker] >= DEATHS_IN_A_ROW:
                raise DeadWorkerError(f"{what}, {self._deaths[worker]} times in a row: see what it printed")
            logger.warning("%s; it starts again, and what its open trajectories held is dropped", what)
            self._start(worker)
            begin = dict.fromkeys(lost, (None, None)) | wanted
            seeds = [int(self._seeds.integers(2**31 - 1)) if seed is None else seed for seed, _ in begin.values()]
            try:
                self._connections[worker].send(
                    ("reset", list(begin), seeds, [options for _, options in begin.values()])
                )
                answer = self._connections[worker].recv()
            except _DEATH:
                continue
            if isinstance(answer, Exception):
                return answer
            return [(row, {**info, LOST: True} if row in lost else info) for row, info in answer]


def _view(memory: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


def _work(
    connection: Connection,
    makes: Sequence[Callable[[], gym.Env]],
    suite: Suite,
    spaces: tuple[gym.Space, gym.Space, int],
    memory: Sequence[Any],
    own: slice,
) -> None:
    """What a worker does until its connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the parent's to handle
    if suite.name not in suites():
        register(suite)
    shared = iter(memory)
    arrays = allocate(*spaces, lambda shape, dtype: _view(next(shared), shape, dtype)).part(own)
    rows = None
    with suppress(*_DEATH):
        while (command := connection.recv())[0] != "close":
            try:
                rows = rows or Rows([make() for make in makes], arrays)
                answer = getattr(rows, command[0])(*command[1:])
            except Exception as error:
                answer = _sendable(error)
            connection.send(answer)
    if rows is not None:
        rows.close()


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
