"""An evaluation whose trials are divided over processes of Ray's."""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.data.rollout import Trial
from twohot.envs import Layout
from twohot.errors import TwohotError
from twohot.extras import package
from twohot.nets.frozen import freeze
from twohot.runs.scores import TaskScore
from twohot.training.actor_pool import ActorError
from twohot.training.evaluate import ENVIRONMENTS, Part, parts_of, play, scores_of

if TYPE_CHECKING:
    from twohot.agent import AgentNetworks

SHARES = 2
"""Of an actor in each part, so that one that is done early takes another."""
MAX_FAILURES = 3
"""Deaths of those that played one share, which is then taken to be what kills them."""
POLL_SECONDS = 0.5


class Player:
    """An actor's process."""

    def __init__(self, networks: AgentNetworks, options: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        self._policy, self._options = freeze(networks), options

    def play(self, part: Part, jobs: list[int]) -> list[Trial]:
        """Play these trials of a part."""
        try:
            return play(self._policy, part.environment, split=part.split, jobs=jobs, **self._options)
        except TwohotError as error:
            raise ActorError(f"an actor on {socket.gethostname()}: {error}") from error


def evaluate_placed(
    networks: AgentNetworks,
    environment: EnvironmentConfig,
    evaluation: EvaluateConfig,
    *,
    layout: Layout,
    trials: int,
    seed: int,
    greedy: bool,
    actors: int,
    cpus: float = 1.0,
    played: Callable[[int], None] | None = None,
) -> list[TaskScore]:
    """As `evaluate_all`, by at most so many processes of Ray's, to which there is a connection.

    Which trials go together depends on the number of actors, and with it the random numbers by which their actions are
    sampled; who plays them does not matter, nor whether some were begun by an actor that has died.

    Args:
        networks: on a CPU. cpus: of the cluster that each actor takes. played: called with numbers of trials that have
            been played.

    Raises:
        ActorError: playing has failed, or actors die again and again.
    """
    parts = parts_of(environment, evaluation)
    shares = [(index, jobs) for index, part in enumerate(parts) for jobs in _shares(part, trials, actors)]
    options = {"trials": trials, "seed": seed, "layout": layout, "step_limit": evaluation.step_limit, "greedy": greedy}
    done = _play_all(networks, options, parts, shares, min(actors, len(shares)), cpus, played or (lambda count: None))
    scores = []
    for index, part in enumerate(parts):
        mine = [zip(jobs, found, strict=True) for (of, jobs), found in done.items() if of == index]
        by_job = dict(pair for pairs in mine for pair in pairs)
        scores += scores_of(part, [by_job[job] for job in sorted(by_job)])
    return scores


def _shares(part: Part, trials: int, actors: int) -> list[tuple[int, ...]]:
    """Numbers of the trials of a part that go together; the tasks are dealt out among them."""
    count = len(part.environment.tasks) * trials
    size = min(ENVIRONMENTS, -(-count // (SHARES * actors)))
    return [tuple(range(first, count, -(-count // size))) for first in range(-(-count // size))]


def _play_all(
    networks: AgentNetworks,
    options: dict[str, Any],
    parts: Sequence[Part],
    shares: Sequence[tuple[int, tuple[int, ...]]],
    actors: int,
    cpus: float,
    played: Callable[[int], None],
) -> dict[tuple[int, tuple[int, ...]], list[Trial]]:
    ray = package("ray", "ray", "--actors")
    kept = ray.put(networks)
    waiting, done, calls, deaths = deque(shares), {}, {}, Counter()

    def begin() -> Any:
        remote = ray.remote(Player).options(num_cpus=cpus, max_restarts=0, scheduling_strategy="SPREAD")
        return remote.remote(kept, options)

    players = [begin() for _ in range(actors)]
    free = deque(players)
    try:
        while len(done) < len(shares):
            while waiting and free:
                player, (index, jobs) = free.popleft(), waiting.popleft()
                calls[player.play.remote(parts[index], list(jobs))] = player, (index, jobs)
            ready, _ = ray.wait(list(calls), timeout=POLL_SECONDS)
            for call in ready:
                player, share = calls.pop(call)
                try:
                    done[share] = ray.get(call)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, Exception) else error) from None
                except ray.exceptions.RayError as error:  # the process, or the node that had what it gave
                    deaths[share] += 1
                    if deaths[share] > MAX_FAILURES:
                        last = (str(error).strip() or repr(error)).splitlines()[-1]
                        raise ActorError(
                            f"actors have died {deaths[share]} times in the same trials: {last:.500}"
                        ) from error
                    waiting.append(share)
                    players.remove(player)
                    ray.kill(player)
                    player = begin()
                    players.append(player)
                else:
                    played(len(share[1]))
                free.append(player)
    finally:
        for player in players:
            ray.kill(player)
    return done
