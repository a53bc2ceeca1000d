"""Environments in processes: each worker steps some of them, and all write into shared memory.

A worker that dies is started again, and so are its environments: their episodes are interrupted, which their info
says. An exception of an environment is no death: it is raised here.

Workers do not run the main script, which may do anything: what was defined or registered there, or in a notebook, is
sent to them by value.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import util
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, cast

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvCreator, EnvSpec, load_env_creator

from twohot.envs.checked import FAILURES
from twohot.envs.registry import Suite, register, registered_suites
from twohot.envs.vector.serial import INTERRUPTED, Arrays, Infos, SerialEnvironments, allocate
from twohot.errors import TwohotError
from twohot.streams import EnduringStream

DEATHS_IN_A_ROW = 3
START_SECONDS = 60.0
"""The longest that a worker may take to start: to import this package and what its environments come from."""
# Not forked: threads of torch and of the replay would be forked half-way.
_CONTEXT = multiprocessing.get_context("spawn")
_DEATH = (EOFError, ConnectionError)
_READY = ("ready",)
_PARENTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals that often go to a whole group of processes, a terminal's or a job's, and are for the parent to act upon."""

logger = logging.getLogger("twohot")

_ALL: weakref.WeakSet[Workers] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: multiprocessing would end the processes of its parent when the child ends."""
    for workers in _ALL:
        children = multiprocessing.process._children  # pyright: ignore[reportAttributeAccessIssue]  # private
        children.difference_update(workers.processes)


os.register_at_fork(after_in_child=_leave_to_parent)


class WorkerError(TwohotError, RuntimeError):
    """Environments that cannot be played in worker processes; the message says why, and what to do."""


class DeadWorkerError(WorkerError):
    """A worker process that dies whenever it is started."""


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised, as text: the cause of that exception in this process."""


class _Failure(NamedTuple):
    """An exception of a worker and its cause, as `cloudpickle.dumps` gives them, and the traceback of both."""

    error: bytes
    cause: bytes
    text: str


class Workers:
    """The interface of `SerialEnvironments` over several processes.

    Args:
        makes: what makes each environment, all of the spaces that follow.
        suite: registered in the workers too, as is all that gymnasium knows here.
        observation_space, action_space: of one environment.
        workers: number of processes, at most one for each environment.

    Attributes:
        arrays: of all environments, in memory that the processes share.
        processes: those that run now. slices: the environments of each.
        patience: seconds that a worker may take for an answer; None: as long as it needs.

    Raises:
        WorkerError: no process can be started, or something cannot be sent to one or imported there.
        DeadWorkerError: a worker died `DEATHS_IN_A_ROW` times without finishing anything in between.
        TwohotError: from every call but `close` in a forked child.
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
        self._suite = suite.name
        memory: list[Any] = []

        def share(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            memory.append(_CONTEXT.RawArray("b", int(np.prod(shape)) * dtype.itemsize))
            return _view(memory[-1], shape, dtype)

        self._runs = np.zeros(len(makes), bool)
        self._seeds = np.random.default_rng()
        self._deaths = [0] * workers
        self.processes: list[Any] = []
        self._connections: list[Any] = []
        self._process = os.getpid()
        _ALL.add(self)
        # When this process ends without close(): workers, which no signal ends, do once their connections do.
        util.Finalize(self, _disconnect, (self._connections,), exitpriority=0)
        self.patience: float | None = START_SECONDS
        try:
            self.arrays = allocate(observation_space, action_space, len(makes), share)
            spaces, specs = (observation_space, action_space, len(makes)), _registered()
            self._jobs = [
                (cloudpickle.dumps((list(makes[own]), suite, spaces)), specs, memory, own) for own in self.slices
            ]
            for worker in range(workers):
                self._start(worker)
            self._ask(dict.fromkeys(range(workers), _READY))
        except BaseException as error:
            for process in self.processes:
                process.kill()
            self.close()
            if isinstance(error, TwohotError) or not isinstance(error, Exception):
                raise
            raise WorkerError(f"suite {suite.name!r} {_advice(error)}") from error
        self.patience = None

    def reset(
        self, indices: Sequence[int], seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None]
    ) -> Infos:
        """As `SerialEnvironments.reset`."""
        asked: dict[int, Any] = {}
        for worker, own in enumerate(self.slices):
            mine = [place for place, index in enumerate(indices) if own.start <= index < own.stop]
            if mine:
                local = [indices[place] - own.start for place in mine]
                asked[worker] = ("reset", local, [seeds[place] for place in mine], [options[place] for place in mine])
        infos = self._ask(asked)
        self._runs[list(indices)] = True
        return infos

    def step(self) -> Infos:
        """As `SerialEnvironments.step`."""
        infos = self._ask(dict.fromkeys(range(len(self.slices)), ("step",)))
        self._runs &= ~(self.arrays.terminated | self.arrays.truncated)
        return infos

    def render(self) -> list[tuple[int, Any]]:
        """As `SerialEnvironments.render`."""
        return self._ask(dict.fromkeys(range(len(self.slices)), ("render",)))

    def close(self) -> None:
        """End the processes; a forked child leaves them to its parent."""
        if os.getpid() != self._process:
            return
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
        if os.getpid() != self._process:
            raise TwohotError("these environments belong to the process that was forked: make others in this one")
        for worker, command in asked.items():
            with suppress(*_DEATH):  # found out when the answer is awaited
                self._connections[worker].send(command)
        infos: Infos = []
        failure = None
        for worker, command in asked.items():
            try:
                answer = self._answer(worker)
                self._deaths[worker] = 0
            except _DEATH:
                answer = self._revive(worker, command)
            if isinstance(answer, Exception):
                failure = failure or answer
            else:
                infos += [(index + self.slices[worker].start, info) for index, info in answer]
        if failure is not None:
            raise failure
        return infos

    def _answer(self, worker: int) -> Any:
        if self.patience is not None and not self._connections[worker].poll(self.patience):
            self.processes[worker].kill()
            raise WorkerError(
                f"a worker of suite {self._suite!r} gave no answer for {self.patience:.0f} seconds: see what it waits "
                "for when it imports or resets, or set collect.workers to in-process"
            )
        answer = self._connections[worker].recv()
        return _received(answer) if isinstance(answer, _Failure) else answer

    def _start(self, worker: int) -> None:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, *self._jobs[worker]), daemon=True)
        # A worker takes the mask over: until it can hear a signal, one that goes to all processes does not end it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)  # raises what the handler of one just heard does
            with _no_main():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that a death ends the connection
        self.processes[worker : worker + 1], self._connections[worker : worker + 1] = [process], [ours]

    def _revive(self, worker: int, command: tuple[Any, ...]) -> Infos | Exception:
        """Start a worker that has died; begin what was to begin, and again the episodes that were going on."""
        own = self.slices[worker]
        wanted = {index: (seed, options) for index, seed, options in zip(*command[1:] or ((), (), ()), strict=True)}
        going_on = np.flatnonzero(self._runs[own]).tolist()
        interrupted = [index for index in going_on if index not in wanted]
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
            begin = dict.fromkeys(interrupted, (None, None)) | wanted
            seeds = [int(self._seeds.integers(2**31 - 1)) if seed is None else seed for seed, _ in begin.values()]
            try:
                self._connections[worker].send(
                    ("reset", list(begin), seeds, [options for _, options in begin.values()])
                )
                answer = self._answer(worker)
            except _DEATH:
                continue
            if isinstance(answer, Exception):
                return answer
            return [(index, {**info, INTERRUPTED: True} if index in interrupted else info) for index, info in answer]


def _disconnect(connections: Sequence[Connection | None]) -> None:
    for connection in connections:
        if connection is not None:
            connection.close()


def _view(memory: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the main module while a process starts, which would run its file again, as far as it goes."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _registered() -> dict[str, bytes | str]:
    """All that gymnasium knows, by id, as `cloudpickle.dumps` gives it; or why it cannot."""
    specs: dict[str, bytes | str] = {}
    for name, spec in gym.registry.items():
        try:
            if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
                creator = cast("EnvCreator", load_env_creator(spec.entry_point))
                spec = copy.copy(spec)  # noqa: PLW2901
                spec.entry_point = creator
            specs[name] = cloudpickle.dumps(spec)
        except Exception as error:  # whatever its parts do when they are copied
            specs[name] = f"{type(error).__name__}: {error}"
    return specs


def _advice(reason: Exception | str) -> str:
    said = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    return (
        f"cannot be played in processes ({said}): put the environment, and what registers it, into a module that "
        "Python finds (a file my_file.py in the working directory has tasks my_file:Id-v0), of things that can be "
        "pickled; or set collect.workers to in-process"
    )


def inside_worker() -> bool:
    """Whether this process is a worker."""
    return _works


_works = False


def _work(
    connection: Connection, job: bytes, specs: Mapping[str, bytes | str], memory: Sequence[Any], own: slice
) -> None:
    """What a worker does until its connection ends."""
    global _works  # noqa: PLW0603 (a fact about this process)
    _works = True
    # An interruption is the parent's to handle. What is not ignored but heard in vain ends what an environment starts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _PARENTS - {signal.SIGINT}:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS)
    sys.stdout, sys.stderr = (stream and EnduringStream(stream) for stream in (sys.stdout, sys.stderr))
    # Modules that are imported here register again what came from the parent.
    warnings.filterwarnings("ignore", ".*Overriding environment .* already in registry")
    prepared = environments = None
    with suppress(*_DEATH):
        while (command := connection.recv())[0] != "close":
            answer: Any = []
            try:
                prepared = prepared or _prepare(job, specs, memory, own)
                if command != _READY:
                    if environments is None:
                        makes, arrays = prepared
                        environments = SerialEnvironments([make() for make in makes], arrays)
                    answer = getattr(environments, command[0])(*command[1:])
            except FAILURES as error:
                text = "".join(traceback.format_exception(error))
                answer = _Failure(_sent(error), _sent(error.__cause__), text)
            connection.send(answer)
    if environments is not None:
        environments.close()


def _prepare(
    job: bytes, specs: Mapping[str, bytes | str], memory: Sequence[Any], own: slice
) -> tuple[list[Callable[[], gym.Env]], Arrays]:
    """What makes a worker's environments, and the arrays that they write into."""
    for name, spec in specs.items():
        reason = spec if isinstance(spec, str) else ""
        if isinstance(spec, bytes):
            try:
                gym.registry[name] = cloudpickle.loads(spec)
                continue
            except Exception as error:  # what cannot be sent or imported is missed only where it is played
                reason = f"{type(error).__name__}: {error}"
        gym.registry[name] = EnvSpec(name, entry_point=partial(_unsent, reason))
    makes, suite, (observation_space, action_space, count) = cloudpickle.loads(job)
    if suite.name not in registered_suites():
        register(suite)
    shared = iter(memory)
    arrays = allocate(observation_space, action_space, count, lambda shape, dtype: _view(next(shared), shape, dtype))
    return makes, arrays.part(own)


def _unsent(reason: str, **_: Any) -> NoReturn:
    raise WorkerError(_advice(reason))


def _sent(error: BaseException | None) -> bytes:
    """An exception as bytes from which the parent can make it."""
    try:
        sent = cloudpickle.dumps(error)
        cloudpickle.loads(sent)
    except Exception:  # whatever its class does when it is copied
        return cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return sent


def _received(failure: _Failure) -> Exception:
    """The exception of a worker, whose chain of causes ends with where it was raised."""
    error, cause = cloudpickle.loads(failure.error), cloudpickle.loads(failure.cause)
    (cause or error).__cause__ = WorkerTraceback(f'\n"""\n{failure.text}"""')
    if cause is not None:
        error.__cause__ = cause
    return error
