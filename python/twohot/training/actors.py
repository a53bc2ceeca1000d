"""Actors that collect while the learner learns, as the learner sees them: processes of Ray's."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from twohot.config import TrainConfig
from twohot.data.rollout import RolloutState, Trial
from twohot.replay import Replay
from twohot.runs import replay as run_replay
from twohot.training.actor import Block
from twohot.training.actor_pool import CALLS, POLL_SECONDS, ActorPool
from twohot.training.publication import PolicyNetworks

if TYPE_CHECKING:
    from twohot.agent import AgentNetworks

FINISH_SECONDS = 2.0
"""Beside that of the calls on their way, for them to come in when a learner ends."""
MAX_FINISH_SECONDS = 20.0
FIRST_STEPS = 100
"""Of each environment, again and again until the first trajectory has ended."""
MAX_STEPS = 2**40
"""Of one call, which ends by the clock where nothing else ends it."""


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
        count = config.actors // learners
        self._config, self._replay, self._learners = config, replay, learners
        self._pool = ActorPool(config, range(count * learner, count * (learner + 1)), steps, spaces)
        self._restarts = 0  # that rows of metrics have
        self._own = config.collect.environments // config.actors
        self.steps = steps // learners
        """Environment steps that these actors have brought, those of open trials too, and what was taken before."""
        self._limit = 0.0
        self._version = -1
        self._policy: tuple[int, list[Any]] = -1, []
        self._staged, self._packed = PolicyNetworks(agent).on_cpu(), PolicyNetworks(agent).on_cpu()
        self._new = threading.Event()  # weights are staged that have not been put into the object store
        self._staging = threading.Lock()
        self._changed = threading.Condition()
        self._store = threading.Lock()
        self._counts = _Counts()
        self._error: BaseException | None = None
        self._closing = False
        self.publish(agent)
        try:
            self._pool.start()
        except BaseException:
            self._pool.kill()
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
        with self._staging:
            self._staged.copy_from(agent)
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

    def take_trials(self) -> list[Trial]:
        """Trials that have ended since the last call of this or of `take`."""
        with self._changed:
            trials, self._counts.trials = self._counts.trials, []
        return trials

    def take(self) -> tuple[list[Trial], dict[str, float]]:
        """Trials that have ended since the last call, and metrics of the time since the last `take`."""
        with self._changed:
            counts, self._counts = self._counts, _Counts()
        restarts, self._restarts = self._pool.restarts - self._restarts, self._pool.restarts
        seconds = time.perf_counter() - counts.began
        steps = sum(counts.steps.values())
        metrics = {
            "collect/steps_per_second": steps * self._learners / seconds,
            "actors/learner_wait_share": counts.waited / seconds,
            "actors/wait_share": 1 - sum(counts.seconds.values()) / (seconds * len(self._pool.actors)),
            "actors/received_per_second": counts.received / seconds,
            "actors/sent_per_second": counts.sent / seconds,
            "actors/dropped_steps": counts.dropped,
            "actors/restarts": restarts,
        }
        if counts.lags:
            metrics |= {"actors/lag": sum(counts.lags) / len(counts.lags), "actors/max_lag": max(counts.lags)}
        for actor in self._pool.actors:
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
        calls = CALLS * self._config.ray.block_seconds
        until = time.monotonic() + min(FINISH_SECONDS + calls, MAX_FINISH_SECONDS)
        while time.monotonic() < until and self._pool.is_asked:
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the actors; what they have not finished is lost."""
        self._closing = True
        self._thread.join()
        self._pool.kill()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # What its own thread does.

    def _work(self) -> None:
        try:
            while not self._closing:
                self._put()
                self._ask()
                for actor, block in self._pool.answers():
                    self._store_block(actor, block)
        except BaseException as error:  # it ends the run, in the learner's thread
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _put(self) -> None:
        """Put a policy that is new, or was lost there, into the object store."""
        version, lost = self._policy[0], self._pool.take_lost_policy()
        if self._new.is_set():
            with self._staging:  # not longer: the learner's next publication does not wait for the packing
                self._new.clear()
                version, self._staged, self._packed = self._version, self._packed, self._staged
        elif not lost:
            return
        message = self._packed.frozen()
        self._policy = version, [self._pool.put(message)]  # in a list, or each call would fetch it
        with self._changed:
            self._counts.sent += message.nbytes * len(self._pool.actors)

    def _ask(self) -> None:
        """Give actors that have begun their next calls, as long as steps are allowed."""
        limit = self._limit
        if limit <= 0:
            return
        if not len(self._replay):  # trials longer than what is allowed would never end
            limit = max(limit, self.environment_steps + FIRST_STEPS * self._config.collect.environments)
        left = limit / self._learners - self.steps - self._pool.promised
        free = self._pool.free()
        for index, process in enumerate(free):
            if left <= 0:
                return
            steps = max(1, int(min(left / (self._own * (len(free) - index)), MAX_STEPS)))
            promised = steps * self._own
            seconds = self._config.ray.block_seconds
            self._pool.ask(process, promised, steps, seconds, self.environment_steps, *self._policy)
            left -= promised

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


def _bytes(columns: Any) -> int:
    if isinstance(columns, dict):
        return sum(_bytes(each) for each in columns.values())
    return getattr(columns, "nbytes", 0)
