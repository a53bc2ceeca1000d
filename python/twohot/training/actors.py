"""Actors that collect while the learner learns, as the learner sees them: processes of Ray's."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

import twohot
from twohot.config import TrainConfig
from twohot.config.files import to_json
from twohot.data.rollout import RolloutState, Trial
from twohot.errors import TwohotError
from twohot.extras import package
from twohot.replay import Replay
from twohot.runs import replay as run_replay
from twohot.training.actor import Actor, Block, Place, policy_weights

if TYPE_CHECKING:
    from twohot.agent import AgentNetworks

BLOCK_SECONDS = 0.2
"""Of playing in one call; an actor's next one has the newest policy."""
CALLS = 2
"""Of an actor that are on their way at once, so that it need not wait for the learner between two."""
POLL_SECONDS = 0.05
FINISH_SECONDS = 2.0
START_SECONDS = 300.0
"""Until all actors have begun."""
MAX_FAILURES = 3
"""Of an actor one after the other before it has given anything, if that goes on for `GIVE_UP_SECONDS`."""
GIVE_UP_SECONDS = 60.0
"""In which no actor gives anything: Ray takes half a minute to see that a node is dead, where actors fail meanwhile."""
MAX_WAIT_SECONDS = 10.0
"""Until an actor that fails again and again is begun again."""
FIRST_STEPS = 100
"""Of each environment, again and again until the first trajectory has ended."""
MAX_STEPS = 2**40
"""Of one call, which ends by the clock where nothing else ends it."""

logger = logging.getLogger("twohot")


class ActorError(TwohotError, RuntimeError):
    """An actor cannot be, or what it plays has failed."""


@dataclass
class _Process:
    """An actor's process, and what is asked of it."""

    handle: Any
    life: int
    begins: Any
    """Its answer to `describe`, which is awaited; None once it has come."""
    calls: dict[Any, int] = field(default_factory=dict)
    """Steps that each call on its way may bring."""
    heard: float = field(default_factory=time.monotonic)
    failures: int = 0
    failing: float = 0.0
    """Since when, where there are failures."""


@dataclass
class _Counts:
    """Since the last row of metrics."""

    began: float = field(default_factory=time.perf_counter)
    trials: list[Trial] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    lags: list[int] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    dropped: int = 0
    restarts: int = 0
    waited: float = 0.0


class Actors:
    """The actors of one learner. A thread asks them to play, and puts into the replay what they have played.

    Everything else is called by the learner's own thread, and waits for nothing but where it says so.

    Args:
        config: of the run. agent: of the learner. replay: where finished trajectories go.
        steps: environment steps that the run has taken before. learner, learners: which learner this is, of how many.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: AgentNetworks,
        replay: Replay,
        steps: int = 0,
        learner: int = 0,
        learners: int = 1,
        spaces: list[dict[str, Any]] | None = None,
    ) -> None:
        self._ray = package("ray", "ray", "--actors")
        self._config, self._json, self._replay, self._spaces = config, to_json(config), replay, spaces
        self._count, self._first, self._learners = (
            config.actors // learners,
            config.actors // learners * learner,
            learners,
        )
        self._own = config.collect.environments // config.actors
        self._since = steps
        self.steps = steps // learners
        """Environment steps that these actors have brought, those of open trials too, and what was taken before."""
        self._limit = 0.0
        self._version, self._weights = -1, None
        self._staged: dict[str, torch.Tensor] = {}
        self._new = threading.Event()  # weights are staged that have not been put into the object store
        self._staging = threading.Lock()
        self._changed = threading.Condition()
        self._store = threading.Lock()
        self._counts = _Counts()
        self._error: BaseException | None = None
        self._closing = False
        self._processes: dict[int, _Process] = {}
        self._retry: dict[int, tuple[float, int, int, float]] = {}
        self._given = time.monotonic()  # when an actor has last given anything
        self.publish(agent)
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        self._thread = threading.Thread(target=self._work, name="actors", daemon=True)
        self._thread.start()

    # What the learner's thread calls.

    @property
    def environment_steps(self) -> int:
        """Of all learners' actors, if those of each have taken as many as these."""
        return self.steps * self._learners

    def publish(self, agent: AgentNetworks) -> None:
        """Give the actors the policy as it is now; returns when it is copied."""
        weights = policy_weights(agent)
        with self._staging:
            if not self._staged:
                self._staged = {name: torch.empty_like(tensor, device="cpu") for name, tensor in weights.items()}
            for name, tensor in weights.items():
                self._staged[name].copy_(tensor)
            self._version += 1
            self._new.set()

    def allow(self, steps: float) -> None:
        """Let the actors take steps until there are so many in all."""
        self._limit = steps

    def wait(self, steps: float, stop: Callable[[], bool]) -> float:
        """Until there are `steps` steps and a trajectory, or `stop` says to wait no more; returns the seconds waited.

        Raises:
            ActorError, or what playing or storing has raised.
        """
        began = time.perf_counter()
        with self._changed:
            while self.steps < steps or len(self._replay) == 0:
                self._raise()
                if stop():
                    break
                self._changed.wait(POLL_SECONDS)
        self._raise()
        waited = time.perf_counter() - began
        self._counts.waited += waited
        return waited

    def take(self) -> tuple[list[Trial], dict[str, float]]:
        """Trials that have ended since the last call, and metrics of that time."""
        with self._changed:
            counts, self._counts = self._counts, _Counts()
        seconds = time.perf_counter() - counts.began
        steps = sum(counts.steps.values())
        metrics = {
            "collect/steps_per_second": steps * self._learners / seconds,
            "actors/learner_wait_share": counts.waited / seconds,
            "actors/wait_share": 1 - sum(counts.seconds.values()) / (seconds * self._count),
            "actors/received_per_second": counts.received / seconds,
            "actors/sent_per_second": counts.sent / seconds,
            "actors/dropped_steps": counts.dropped,
            "actors/restarts": counts.restarts,
        }
        if counts.lags:
            metrics |= {"actors/lag": sum(counts.lags) / len(counts.lags), "actors/max_lag": max(counts.lags)}
        for actor in range(self._first, self._first + self._count):
            metrics[f"actors/steps_per_second/{actor}"] = counts.steps[actor] / seconds
        return counts.trials, metrics

    @contextmanager
    def still(self) -> Iterator[None]:
        """A block in which the replay and the counts do not change."""
        with self._store:
            yield

    def finish(self) -> None:
        """Ask for nothing more, and take in what is on its way."""
        self.allow(0)
        until = time.monotonic() + FINISH_SECONDS
        while time.monotonic() < until and any(process.calls for process in list(self._processes.values())):
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the actors; what they have not finished is lost."""
        self._closing = True
        self._thread.join()
        self._kill()

    def _kill(self) -> None:
        for process in self._processes.values():
            self._ray.kill(process.handle)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # What its own thread does.

    def _start(self) -> None:
        for actor in range(self._first, self._first + self._count):
            self._processes[actor] = self._begin(actor, 0)
        began = time.monotonic()
        for actor in self._processes:
            while (process := self._processes[actor]).begins is not None:
                try:
                    about = self._ray.get(process.begins, timeout=max(0.0, began + START_SECONDS - time.monotonic()))
                except self._ray.exceptions.GetTimeoutError:
                    raise ActorError(
                        f"actor {actor}: has not begun after {START_SECONDS:.0f} s; `ray status` says what it waits for"
                    ) from None
                except Exception as error:
                    died = isinstance(error, self._ray.exceptions.RayActorError) and "creation task" not in str(error)
                    if not died or time.monotonic() - began > GIVE_UP_SECONDS:
                        raise self._failed(actor, error) from error
                    time.sleep(1.0)  # its node may be dead
                    self._processes[actor] = self._begin(actor, process.life + 1)
                    continue
                self._require_alike(actor, about)
                process.begins = None

    def _begin(self, actor: int, life: int) -> _Process:
        place = Place(actor, self._config.actors, self._since, life)
        options = {"num_cpus": self._config.ray.cpus_per_actor, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        handle = self._ray.remote(Actor).options(**options).remote(self._json, place)
        return _Process(handle, life, handle.describe.remote())

    def _failed(self, actor: int, error: Exception) -> Exception:
        """What a failure of an actor's code is here, and the end of a process."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, TwohotError):
            return cause
        return ActorError(f"actor {actor}: {_last_line(error)}")

    def _require_alike(self, actor: int, about: dict[str, Any]) -> None:
        mine = {"twohot": twohot.__version__, "spaces": self._spaces}
        for name, value in mine.items():
            if value is not None and about[name] != value:
                raise ActorError(
                    f"actor {actor} on {about['host']} has {name} {about[name]!r:.200}, the learner {value!r:.200}: "
                    "install the same there"
                )

    def _work(self) -> None:
        try:
            while not self._closing:
                self._put()
                self._ask()
                self._receive()
                self._replace_stuck()
        except BaseException as error:  # it ends the run, in the learner's thread
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _put(self) -> None:
        """Put a policy that is new into the object store."""
        if not self._new.is_set():
            return
        with self._staging:
            self._new.clear()
            version = self._version
            self._weights = version, self._ray.put({name: each.numpy() for name, each in self._staged.items()})
            size = sum(each.numel() * each.element_size() for each in self._staged.values())
        with self._changed:
            self._counts.sent += size * self._count

    def _ask(self) -> None:
        """Give actors that have begun their next calls, as long as steps are allowed."""
        ready = [process for process in self._processes.values() if process.begins is None]
        promised = sum(sum(process.calls.values()) for process in ready)
        limit = self._limit
        if limit <= 0:
            return
        if not len(self._replay):  # trials longer than what is allowed would never end
            limit = max(limit, self.environment_steps + FIRST_STEPS * self._config.collect.environments)
        free = CALLS * len(ready) - sum(len(process.calls) for process in ready)
        version, weights = self._weights or (0, None)
        for process in sorted(CALLS * ready, key=lambda each: len(each.calls)):
            if len(process.calls) >= CALLS or free == 0:
                continue
            left = limit / self._learners - self.steps - promised
            if left <= 0:
                return
            steps = max(1, int(min(left / (self._own * free), MAX_STEPS)))
            call = process.handle.collect.remote(steps, BLOCK_SECONDS, self.environment_steps, version, weights)
            if not process.calls:
                process.heard = time.monotonic()
            process.calls[call] = steps * self._own
            promised += steps * self._own
            free -= 1

    def _receive(self) -> None:
        """Take what has come, and wait for it a moment."""
        actor_of = {call: actor for actor, process in self._processes.items() for call in process.calls}
        actor_of |= {each.begins: actor for actor, each in self._processes.items() if each.begins is not None}
        self._retry_failed()
        if not actor_of:
            time.sleep(POLL_SECONDS)
            return
        calls = list(actor_of)
        ready, rest = self._ray.wait(calls, num_returns=1, timeout=POLL_SECONDS)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in ready:
            actor = actor_of[call]
            process = self._processes.get(actor)
            if process is None or (call not in process.calls and call != process.begins):
                continue  # of a process that has ended
            try:
                value = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise self._failed(actor, error) from error
            except self._ray.exceptions.RayActorError as error:
                self._ended(actor, error)
                continue
            except self._ray.exceptions.RayError as error:  # the object is lost with the node that had it
                if call == process.begins:
                    self._ended(actor, error)
                process.calls.pop(call, None)
                continue
            process.heard = time.monotonic()
            if call == process.begins:
                self._require_alike(actor, value)
                process.begins = None
                continue
            process.calls.pop(call)
            process.failures, self._given = 0, time.monotonic()
            self._store_block(actor, value)

    def _store_block(self, actor: int, block: Block) -> None:
        lag = self._version - block.version
        with self._store:
            if lag <= self._config.ray.max_lag:
                if len(block.columns["length"]):
                    with run_replay.capacity_checked():
                        self._replay.extend(block.columns)
                self.steps += block.steps
        with self._changed:
            counts = self._counts
            counts.seconds[actor] += block.seconds
            counts.received += _bytes(block.columns)
            counts.lags.append(lag)
            if lag > self._config.ray.max_lag:
                counts.dropped += block.steps
            else:
                counts.trials += block.trials
                counts.steps[actor] += block.steps
            self._changed.notify_all()

    def _ended(self, actor: int, error: Exception) -> None:
        """Let another process begin in the place of one that has ended."""
        process = self._processes.pop(actor)
        self._ray.kill(process.handle)  # one that cannot be reached may live
        failures, now = process.failures + 1, time.monotonic()
        failing = process.failing if process.failures else now
        if failures > MAX_FAILURES and now - max(failing, self._given) > GIVE_UP_SECONDS:
            raise self._failed(actor, error) from error
        logger.warning("actor %d has ended (%s); another begins in its place", actor, _first_line(error))
        with self._changed:
            self._counts.restarts += 1
        self._retry[actor] = (
            now + min(2.0 ** min(failures - 1, 10) - 1, MAX_WAIT_SECONDS),
            process.life + 1,
            failures,
            failing,
        )

    def _retry_failed(self) -> None:
        for actor, (when, life, failures, failing) in list(self._retry.items()):
            if time.monotonic() >= when:
                del self._retry[actor]
                self._processes[actor] = process = self._begin(actor, life)
                process.failures, process.failing = failures, failing

    def _replace_stuck(self) -> None:
        limit = self._config.ray.stuck_seconds
        for actor, process in list(self._processes.items()):
            if process.calls and time.monotonic() - process.heard > limit:
                self._ended(actor, ActorError(f"no answer for {limit:.0f} s"))

    # As a `Rollout` has it.

    def state_dict(self) -> RolloutState:
        """How many steps there are; the generator is nobody's."""
        return {"environment_steps": self.environment_steps, "generator": torch.Generator().get_state()}

    def load_state_dict(self, state: RolloutState) -> None:
        """They have begun with these steps."""

    def restart(self, seeds: Sequence[int]) -> None:
        """They go on: runs with actors are not repeated bit for bit."""

    def cut(self) -> None:
        """Open trials go on."""


def _first_line(error: Exception) -> str:
    return f"{str(error).strip().splitlines()[0]:.200}"


def _last_line(error: Exception) -> str:
    return f"{str(error).strip().splitlines()[-1]:.500}"


def _bytes(columns: Any) -> int:
    if isinstance(columns, dict):
        return sum(_bytes(each) for each in columns.values())
    return getattr(columns, "nbytes", 0)
