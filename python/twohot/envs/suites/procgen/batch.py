"""Many Procgen games, stepped by a few threads: the library does not need Python while it plays and draws."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from twohot.envs.suites.procgen.game import Procgen, ProcgenMemory
from twohot.envs.vector.batched import EnvBatch


class ProcgenBatch(EnvBatch):
    """Many games of any of `tasks`, each the same as `Procgen` plays it, whatever the number of threads.

    Args:
        tasks: of `TASKS`. split: as for `Procgen`. num_envs: number of games.
        threads: that play, the caller's among them; at least 1.
    """

    hidden_task = reports_success = True

    def __init__(self, tasks: Sequence[str], split: str, num_envs: int, threads: int) -> None:
        super().__init__(num_envs)
        self._memory = ProcgenMemory(num_envs)
        self._tasks, self._split = tuple(tasks), split
        self._games: list[dict[int, Procgen]] = [{} for _ in range(num_envs)]
        self._playing = [self._game(index, 0) for index in range(num_envs)]
        self.observation_space, self.action_space = self._playing[0].observation_space, self._playing[0].action_space
        self._helpers = min(threads, num_envs) - 1
        self._pool = ThreadPoolExecutor(self._helpers, "procgen") if self._helpers else None
        self._before = self._memory.image.copy()
        self._over = np.ones(num_envs, bool)  # in the library's next episode; or not begun
        self._marked = np.zeros(num_envs, bool)
        self._steps, self._limit = np.zeros((2, num_envs), np.int64)

    def choose(self, index: int, task: int) -> None:
        game = self._game(index, task)
        if game is not self._playing[index]:
            self._playing[index].close()  # a new level is a new game in any case
            self._playing[index] = game

    def reset(self, index: int, random: np.random.Generator, *, new_task: bool = True) -> None:
        game = self._playing[index]
        game.over = self._over[index]
        game.np_random = random
        game.reset(options={"attempt": int(not new_task)})
        self._over[index] = self.success[index] = False
        self._marked[index] = not new_task
        self._steps[index], self._limit[index] = 0, game.limit

    def observe(self) -> np.ndarray:
        images = self._memory.image.copy()
        if self._over.any():
            images[self._over] = self._before[self._over]  # the library has drawn the next episode already
        images[self._marked, 1:5, 1:5] = 0
        return images

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        memory = self._memory
        np.copyto(self._before, memory.image)
        memory.action[...] = actions
        self._act([game for game, over in zip(self._playing, self._over.tolist(), strict=True) if not over])
        self._steps += 1
        first = memory.first != 0
        self.success = first & (memory.complete != 0)
        self._over |= first
        return memory.reward.copy(), first, ~first & (self._steps >= self._limit)

    def picture(self, index: int) -> np.ndarray:
        return self.observe()[index]

    def close(self) -> None:
        for games in self._games:
            for game in games.values():
                game.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _game(self, index: int, task: int) -> Procgen:
        games = self._games[index]
        if task not in games:
            games[task] = Procgen(self._tasks[task], self._split, memory=self._memory, index=index)
        return games[task]

    def _act(self, games: Sequence[Procgen]) -> None:
        """Each thread takes the next game that none has taken."""
        waiting = iter(games)

        def act() -> None:
            for game in waiting:
                game.act()

        helpers = [self._pool.submit(act) for _ in range(self._helpers)] if self._pool is not None else ()
        act()
        for helper in helpers:
            helper.result()
