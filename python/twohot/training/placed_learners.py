"""Several learners of one run, each in a process that Ray places; `ranks.py` has what they are to each other."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle

import twohot
from twohot.config import ConfigurationError, TrainConfig
from twohot.errors import UsageError
from twohot.extras import package
from twohot.info import job, own_code
from twohot.training.cluster import cluster
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.progress import Progress
from twohot.training.ranks import LostLearnerError, RankError, Ranks, learners

POLL_SECONDS = 0.2
START_SECONDS = 300.0
"""Until all learners have begun."""
ROOM_SECONDS = 60.0
"""Until the cluster has room for them."""
LAST_SECONDS = 5.0
"""For the others to end by themselves where one has failed."""

Work = Callable[..., None]
"""What each learner does: called with `progress` and `placed`."""


@dataclass(frozen=True)
class Placed:
    """What a process of Ray's that trains knows from the one that has placed it.

    Attributes:
        interruption: hears signals that were sent to the driver, too. about: what started the driver, for `run.json`.
    """

    interruption: Interruption
    about: dict[str, str]


def about_driver() -> dict[str, str]:
    """What started this process, for the `run.json` of what it has placed; empty strings say that there is no such."""
    return {"command": shlex.join(sys.orig_argv), "code": own_code(), "job": job()}


class SentProgress(Progress):
    """Progress that another process shows: calls are kept, until they are taken."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        for name in ("start", "finished", "interrupted", "say", "update", "epoch"):
            setattr(self, name, self._kept(name))

    def _kept(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self._calls.put((name, arguments))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def take(self, seconds: float) -> list[tuple[str, tuple[Any, ...]]]:
        """Calls since the last time, for the first of which this waits."""
        calls = []
        with suppress(queue.Empty):
            calls.append(self._calls.get(timeout=seconds))
            while True:
                calls.append(self._calls.get_nowait())
        return calls


class Learner:
    """A learner's process. One thread of it trains, others answer the driver (`max_concurrency`)."""

    def __init__(self, rank: int, size: int) -> None:
        # Ray shows each process its own GPU alone, which is the first for it.
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
        self._interruption, self._progress = Interruption(), SentProgress()
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if self._interruption.heard is None:
            self._interruption.hear(number)
        elif callable(self._before):
            self._before(number, frame)

    def describe(self) -> dict[str, Any]:
        """Where this is, and a port that is free here."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        address = package("ray", "ray", "--learners").util.get_node_ip_address()
        return {"host": socket.gethostname(), "address": address, "port": port, "twohot": twohot.__version__}

    def work(self, work: bytes, folder: str, run: str, master: tuple[str, int], about: dict[str, str]) -> int | None:
        """Do this learner's part; returns the number of the signal that has ended it, or None.

        Args:
            work: a `Work`, as cloudpickle gives it. folder: the working directory of the driver. run: of the run.
            master: address and port of the first learner. about: see `Placed`.
        """
        with suppress(OSError):
            os.chdir(folder)
        if not Path(folder, run).is_dir():
            raise ConfigurationError(
                f"{run}: a learner on {socket.gethostname()} does not see what was made there; expected a directory "
                "that all machines share"
            )
        os.environ |= {"MASTER_ADDR": master[0], "MASTER_PORT": str(master[1])}
        try:
            cloudpickle.loads(work)(progress=self._progress, placed=Placed(self._interruption, about))
        except Interrupted as interrupted:  # Ray would take it for a cancelled task
            return interrupted.signal
        return None

    def interrupt(self, number: int) -> None:
        """End as by this signal: after this update, and saved."""
        self._interruption.hear(number)

    def shown(self, seconds: float) -> list[tuple[str, tuple[Any, ...]]]:
        """What the progress has to show."""
        return self._progress.take(seconds)


def place_learners(
    config: TrainConfig, run: Path, progress: Progress, first: Work, again: Work, placed: Placed | None = None
) -> None:
    """Let `config.learners` processes train; where one dies, all start again from the newest checkpoint.

    Args:
        config: of the run, whose threads are known. run: its directory. progress: shows what the first learner does.
        first: what each of them does. again: what they do once the run has begun. placed: of this process.

    Raises:
        ConfigurationError, RankError: they cannot be placed, or do not go together. LostLearnerError: they have died
        too often. Interrupted: by a signal. What training raises in one of them.
    """
    Ranks(size=config.learners).part(config)
    if learners() > 1:
        raise ConfigurationError(
            f"learners: expected 1 under torchrun, which has started {learners()}, got {config.learners}: leave "
            "torchrun or --learners away"
        )
    if config.device.startswith("cuda:"):
        raise ConfigurationError(f"device: expected auto, cpu or cuda, of which Ray gives each learner one, got "
                                 f"{config.device}")  # fmt: skip
    works = [_packed(work) for work in (first, again)]
    made = not run.exists()
    try:
        found = placed or Placed(Interruption(), about_driver())
        with cluster(config), found.interruption as interruption, progress, _room(config) as room:
            run.mkdir(parents=True, exist_ok=True)
            for restart in count():
                work = works[(run / "config.json").exists()]
                lost = _Group(config, room).train(work, run, progress, interruption, found.about)
                if lost is None:
                    return
                if restart == config.ray.max_restarts:
                    raise lost
                progress.say(
                    f"{lost}. All start again, from the newest checkpoint (restart {restart + 1} of at most "
                    f"{config.ray.max_restarts})."
                )
    finally:
        if made:
            with suppress(OSError):
                run.rmdir()


def _packed(work: Work) -> bytes:
    try:
        return cloudpickle.dumps(work)
    except Exception as error:  # whatever an object of the user's raises
        raise UsageError(
            "callbacks, writers: expected objects that can be copied to the first learner's process (by cloudpickle), "
            f"got one that cannot: {error}"
        ) from error


@contextmanager
def _room(config: TrainConfig) -> Iterator[Any]:
    """A placement group of Ray's: CPUs and GPUs for all learners, or for none."""
    ray, util = (package(name, "ray", "--learners") for name in ("ray", "ray.util"))
    found = ray.cluster_resources()
    each = {"CPU": float(config.threads)}
    if wants_gpu(config, found):
        each["GPU"] = 1.0
    gpus = int(found.get("GPU", 0))
    if gpus < config.learners and "GPU" in each:
        raise ConfigurationError(
            f"learners: {config.learners} need a GPU each, the cluster has {gpus}: ask for {gpus or 'fewer'}, or for "
            "--device cpu"
        )
    group = util.placement_group([each] * config.learners, strategy="PACK")
    try:
        if not group.wait(ROOM_SECONDS):
            free = {name: ray.available_resources().get(name, 0.0) for name in each}
            raise ConfigurationError(
                f"learners: {config.learners} need {_amounts(each)} each, and for {ROOM_SECONDS:.0f} s no nodes had "
                f"them free at once ({_amounts(free)} free in all; `ray status` says who has the rest)"
            )
        yield group
    finally:
        util.remove_placement_group(group)


def wants_gpu(config: TrainConfig, resources: dict[str, float]) -> bool:
    """Whether a learner asks a cluster with these resources for a GPU."""
    return config.device.startswith("cuda") or (config.device == "auto" and resources.get("GPU", 0) > 0)


def _amounts(resources: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in resources.items())


class _Group:
    """Learners that have been started together, and end together."""

    def __init__(self, config: TrainConfig, room: Any) -> None:
        self._ray = package("ray", "ray", "--learners")
        strategies = package("ray.util.scheduling_strategies", "ray", "--learners")
        self._handles = []
        for rank in range(config.learners):
            place = strategies.PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=rank)
            asked = room.bundle_specs[rank]
            options = {"num_cpus": asked["CPU"], "num_gpus": asked.get("GPU", 0), "scheduling_strategy": place}
            remote = self._ray.remote(Learner).options(**options, max_restarts=0, max_concurrency=4)
            self._handles.append(remote.remote(rank, config.learners))
        self._hosts = ["a machine"] * config.learners
        self._told = False

    def train(
        self, work: bytes, run: Path, progress: Progress, interruption: Interruption, about: dict[str, str]
    ) -> LostLearnerError | None:
        """Until all have done their work (None), or one is lost. Whatever happens, no process is left."""
        try:
            try:
                master = self._described()
            except self._ray.exceptions.RayActorError as error:
                if "creation task" in str(error):  # as where a node lacks the package
                    raise RankError(
                        f"learners: cannot begin: {(str(error).strip() or repr(error)).splitlines()[-1]:.500}"
                    ) from None
                return LostLearnerError(f"A learner has died while it began: {_reason(error)}")
            arguments = work, str(Path.cwd()), str(run), master, about
            calls = {handle.work.remote(*arguments): rank for rank, handle in enumerate(self._handles)}
            with interruption.deferred():
                return self._judged(self._followed(calls, progress, interruption), interruption)
        finally:
            for handle in self._handles:
                self._ray.kill(handle)

    def _described(self) -> tuple[str, int]:
        """Wait for all to begin; address and port of the first."""
        try:
            found = self._ray.get([handle.describe.remote() for handle in self._handles], timeout=START_SECONDS)
        except self._ray.exceptions.GetTimeoutError:
            raise RankError(
                f"learners: have not begun after {START_SECONDS:.0f} s; `ray status` says what they wait for"
            ) from None
        self._hosts = [about["host"] for about in found]
        for about in found:
            if about["twohot"] != twohot.__version__:
                raise RankError(
                    f"learners: {about['host']} has twohot {about['twohot']}, this machine {twohot.__version__}: "
                    "install the same there"
                )
        return found[0]["address"], found[0]["port"]

    def _followed(self, calls: dict[Any, int], progress: Progress, interruption: Interruption) -> dict[int, Any]:
        """Show what they do until they end; by rank, what each has ended with, as far as it has."""
        ended: dict[int, Any] = {}
        shown, until = self._handles[0].shown.remote(POLL_SECONDS), float("inf")
        while calls and time.monotonic() < until:
            if interruption.heard is not None and not self._told:
                for handle in self._handles:
                    handle.interrupt.remote(interruption.heard)
                self._told = True
            ready, _ = self._ray.wait([*calls, *([shown] if shown else [])], timeout=POLL_SECONDS)
            for call in ready:
                found = self._result(call)
                if call != shown:
                    ended[calls.pop(call)] = found
                    if isinstance(found, self._ray.exceptions.RayActorError):
                        until = 0.0
                    elif isinstance(found, BaseException):
                        until = min(until, time.monotonic() + LAST_SECONDS)
                elif isinstance(found, BaseException):
                    shown = None
                else:
                    self._show(found, progress)
                    shown = self._handles[0].shown.remote(POLL_SECONDS)
        if shown and isinstance(found := self._result(shown), list):
            self._show(found, progress)
        return ended

    def _show(self, calls: Sequence[tuple[str, tuple[Any, ...]]], progress: Progress) -> None:
        for name, arguments in calls:
            getattr(progress, name)(*arguments)

    def _result(self, call: Any) -> Any:
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except self._ray.exceptions.RayError as error:
            return error

    def _judged(self, ended: dict[int, Any], interruption: Interruption) -> LostLearnerError | None:
        """None where all are done, what to say of a learner that is lost; or raise what has ended them."""
        died = {rank: found for rank, found in ended.items() if isinstance(found, self._ray.exceptions.RayActorError)}
        failed = [found for found in ended.values() if isinstance(found, Exception)]
        lost = [found for found in failed if isinstance(found, LostLearnerError)]
        raised = [found for found in failed if not isinstance(found, LostLearnerError)]
        if failed and interruption.heard is not None:
            for error in raised:
                if not isinstance(error, (RankError, self._ray.exceptions.RayError)):  # as while it saved
                    raise error
            interruption.check()
        if died:
            rank, error = min(died.items())
            return LostLearnerError(f"Learner {rank} on {self._hosts[rank]} has died: {_reason(error)}")
        if raised:
            raise min(raised, key=lambda error: isinstance(error, RankError))  # which often says that another has
        if lost:
            return lost[0]
        for number in ended.values():
            if number is not None:
                raise Interrupted(number)
        return None


def _reason(error: Exception) -> str:
    return "its node is gone" if "node" in str(error).partition("\n")[0] else "its process has ended"
