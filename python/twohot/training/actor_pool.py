"""The processes of Ray's in which actors play: begun, asked for steps, and begun again where they end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import twohot
from twohot.config import TrainConfig
from twohot.config.files import to_json
from twohot.errors import TwohotError
from twohot.extras import package
from twohot.training.actor import Actor, Block, Place

CALLS = 2
"""Of an actor that are on their way at once, so that it need not wait for the learner between two."""
POLL_SECONDS = 0.05
START_SECONDS = 300.0
"""Until all actors have begun."""
MAX_FAILURES = 3
"""Of an actor one after the other before it has given anything, if that goes on for `GIVE_UP_SECONDS`."""
GIVE_UP_SECONDS = 60.0
"""In which no actor gives anything: Ray takes half a minute to see that a node is dead, where actors fail meanwhile."""
HELD_SECONDS = 1.0
"""Of an actor's silence that count, at most, between two times of listening: it is not longer for a long checkpoint."""
MAX_WAIT_SECONDS = 10.0
"""Until an actor that fails again and again is begun again."""

logger = logging.getLogger("twohot")


class ActorError(TwohotError, RuntimeError):
    """An actor cannot be, or what it plays has failed."""


@dataclass
class ActorProcess:
    """An actor's process, and what is asked of it."""

    handle: Any
    life: int
    begins: Any
    """Its answer to `describe`, which is awaited; None once it has come."""
    calls: dict[Any, int] = field(default_factory=dict)
    """Steps that each call on its way may bring."""
    silent: float = 0.0
    """Seconds of listening since it has answered, or begun, or was asked for something while it had nothing to do."""
    failures: int = 0
    failing: float = 0.0
    """Since when, where there are failures."""


@dataclass(frozen=True)
class _Retry:
    """When which process begins in the place of one that has ended."""

    when: float
    life: int
    failures: int
    failing: float


class ActorPool:
    """The actors of one learner, one process each.

    Args:
        config: of the run. actors: their numbers among those of all learners. steps: of the run when they begin.
        spaces: of the learner's agent, as JSON values, which theirs have to equal; None: whatever they are.

    Attributes:
        actors: their numbers. restarts: how many have ended, in whose place others began.
    """

    def __init__(self, config: TrainConfig, actors: range, steps: int, spaces: list[dict[str, Any]] | None) -> None:
        self._ray = package("ray", "ray", "--actors")
        self._config, self._json, self._steps, self._spaces = config, to_json(config), steps, spaces
        self.actors, self.restarts = actors, 0
        self._processes: dict[int, ActorProcess] = {}
        self._retries: dict[int, _Retry] = {}
        self._policy_is_lost = False
        self._given = time.monotonic()  # when an actor has last given anything
        self._listened = time.monotonic()

    def start(self) -> None:
        """Begin all of them, and wait for them. Raises ActorError, or what the beginning of one raises."""
        began = time.monotonic()
        self._processes = {actor: self._begin(actor, 0) for actor in self.actors}
        for actor in self.actors:
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
                        raise _failed(actor, error) from error
                    time.sleep(1.0)  # its node may be dead
                    self._processes[actor] = self._begin(actor, process.life + 1)
                    continue
                self._require_alike(actor, about)
                process.begins = None

    def kill(self) -> None:
        """End all of them; what they have not finished is lost."""
        for process in list(self._processes.values()):
            self._ray.kill(process.handle)

    @property
    def promised(self) -> int:
        """Steps that calls on their way may bring."""
        return sum(sum(process.calls.values()) for process in list(self._processes.values()))

    @property
    def is_asked(self) -> bool:
        """Whether calls are on their way."""
        return any(process.calls for process in list(self._processes.values()))

    def free(self) -> list[ActorProcess]:
        """A process for each call that could be made now, those with the fewest calls first."""
        ready = [process for process in self._processes.values() if process.begins is None]
        return [process for number in range(CALLS) for process in ready if len(process.calls) <= number]

    def ask(self, process: ActorProcess, promised: int, *arguments: Any) -> None:
        """Call `Actor.collect` with these arguments, which may bring so many steps."""
        if not process.calls:
            process.silent = 0.0
        process.calls[process.handle.collect.remote(*arguments)] = promised

    def put(self, value: Any) -> Any:
        """A reference to a value in the object store."""
        return self._ray.put(value)

    def take_lost_policy(self) -> bool:
        """Whether an actor has found no policy where it was put, since the last call."""
        lost, self._policy_is_lost = self._policy_is_lost, False
        return lost

    def answers(self) -> Iterator[tuple[int, Block]]:
        """Wait a moment, and give what has come, by actor; let others begin where some have ended or are stuck.

        Raises ActorError where one ends again and again, and what playing raises.
        """
        self._begin_again()
        self._end_silent()
        actor_of = {call: actor for actor, process in self._processes.items() for call in process.calls}
        actor_of |= {each.begins: actor for actor, each in self._processes.items() if each.begins is not None}
        if not actor_of:
            time.sleep(POLL_SECONDS)
            return
        ready, rest = self._ray.wait(list(actor_of), num_returns=1, timeout=POLL_SECONDS)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in ready:
            if (block := self._answer(actor_of[call], call)) is not None:
                yield actor_of[call], block

    def _answer(self, actor: int, call: Any) -> Block | None:
        process = self._processes.get(actor)
        if process is None or (call not in process.calls and call != process.begins):
            return None  # of a process that has ended
        try:
            value = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, self._ray.exceptions.ObjectLostError):
                raise _failed(actor, error) from error
            logger.warning("actor %d has not found the policy in the object store; it is put there again", actor)
            process.calls.pop(call, None)
            self._policy_is_lost = True
            return None
        except self._ray.exceptions.RayActorError as error:
            self._ended(actor, error)
            return None
        except self._ray.exceptions.RayError as error:  # the object is lost with the node that had it
            if call == process.begins:
                self._ended(actor, error)
            process.calls.pop(call, None)
            return None
        process.silent = 0.0
        if call == process.begins:
            self._require_alike(actor, value)
            process.begins = None
            return None
        del process.calls[call]
        process.failures, self._given = 0, time.monotonic()
        return value

    def _begin(self, actor: int, life: int) -> ActorProcess:
        place = Place(actor, self._config.actors, self._steps, life)
        options = {"num_cpus": self._config.ray.cpus_per_actor, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        handle = self._ray.remote(Actor).options(**options).remote(self._json, place)
        return ActorProcess(handle, life, handle.describe.remote())

    def _require_alike(self, actor: int, about: dict[str, Any]) -> None:
        mine = {"twohot": twohot.__version__, "spaces": self._spaces}
        for name, value in mine.items():
            if value is not None and about[name] != value:
                raise ActorError(
                    f"actor {actor} on {about['host']} has {name} {about[name]!r:.200}, the learner {value!r:.200}: "
                    "install the same there"
                )

    def _ended(self, actor: int, error: Exception) -> None:
        """Let another process begin in the place of one that has ended."""
        process = self._processes.pop(actor)
        self._ray.kill(process.handle)  # one that cannot be reached may live
        failures, now = process.failures + 1, time.monotonic()
        failing = process.failing if process.failures else now
        if failures > MAX_FAILURES and now - max(failing, self._given) > GIVE_UP_SECONDS:
            raise _failed(actor, error) from error
        said = f"{(str(error).strip() or repr(error)).splitlines()[0]:.200}"
        logger.warning("actor %d has ended (%s); another begins in its place", actor, said)
        self.restarts += 1
        wait = min(2.0 ** min(failures - 1, 10) - 1, MAX_WAIT_SECONDS)
        self._retries[actor] = _Retry(now + wait, process.life + 1, failures, failing)

    def _begin_again(self) -> None:
        for actor, retry in list(self._retries.items()):
            if time.monotonic() >= retry.when:
                del self._retries[actor]
                self._processes[actor] = process = self._begin(actor, retry.life)
                process.failures, process.failing = retry.failures, retry.failing

    def _end_silent(self) -> None:
        limit, now = self._config.ray.stuck_seconds, time.monotonic()
        passed, self._listened = min(now - self._listened, HELD_SECONDS), now
        for actor, process in list(self._processes.items()):
            process.silent += passed
            if process.calls and process.silent > limit:
                self._ended(actor, ActorError(f"no answer for {limit:.0f} s"))
            elif process.begins is not None and process.silent > START_SECONDS:
                process.silent = 0.0  # it is said again after as long
                logger.warning(
                    "actor %d has not begun after %.0f s; `ray status` says what it waits for", actor, START_SECONDS
                )


def _failed(actor: int, error: Exception) -> Exception:
    """What a failure of an actor's code is here, and the end of a process."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TwohotError):
        return cause
    return ActorError(f"actor {actor}: {(str(error).strip() or repr(error)).splitlines()[-1]:.500}")
