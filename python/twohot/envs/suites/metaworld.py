"""Meta-World (Yu et al., CoRL 2019, arXiv 1910.10897): fifty tasks of one robot arm, with the goal hidden or shown.

Needs metaworld 3. Its fifty classes are the tasks; ML10, ML45, MT10 and MT50 are tuples of their names.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite
from twohot.files import atomic_write
from twohot.replay.formats import FormatError
from twohot.replay.formats.archive import opened

_LETTERED = (
    "assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press "
    "button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open "
    "door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press "
    "handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side "
    "plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push "
    "push-wall push-back reach reach-wall shelf-place sweep-into sweep window-open window-close"
)
GOAL_OBSERVABLE = "-goal-observable"


def _names(games: str, ending: str = "-v3") -> tuple[str, ...]:
    return tuple(game + ending for game in games.split())


CLASSES = _names(_LETTERED)
ML45_TEST = _names("bin-picking box-close hand-insert door-lock door-unlock")
ML45_TRAIN = tuple(name for name in CLASSES if name not in ML45_TEST)
ML10_TRAIN = _names(
    "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep basketball"
)
ML10_TEST = _names("drawer-open door-close shelf-place sweep-into lever-pull")
MT50 = tuple(name + GOAL_OBSERVABLE for name in CLASSES)
MT10 = _names(
    "reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open "
    "window-close",
    "-v3" + GOAL_OBSERVABLE,
)

TASKS = CLASSES + MT50
GOALS = 50
STEPS = 500
_OBSERVATION_SIZE = 39


class MetaWorld(gym.Env[np.ndarray, np.ndarray]):
    """One class of Meta-World; its hidden task is one of 50 goals.

    Observation: Box, float32, (39,): the hand and up to two objects, now and one step ago, then the goal, which is
    zeros where it is hidden. Action: Box in [-1, 1], (4,): the hand's move and the grip. Reward: Meta-World's own,
    from 0 to 10 a step. An episode is truncated after 500 steps and never terminates; info["success"] is 1.0 at a
    step on which the goal is met.

    The simulation is taken from a pool of this process when an episode begins and given back when it ends: one is
    20 MB and takes a fifth of a second to build, and its state follows from the goal alone. So an actor that plays
    45 classes in turn holds one simulation, not 45.

    Args:
        task: one of `TASKS`; with the ending "-goal-observable" the goal is shown (the MT benchmarks).
        split: which of the class's two sets of 50 goals, "train" or "test".
        render: whether `render` returns frames; it needs OpenGL, so without a display MUJOCO_GL=egl.
        seed: the seed that Meta-World draws the goals from.
    """

    hidden_task = True
    render_mode: Literal["rgb_array"] | None

    def __init__(self, task: str, split: str = "train", *, render: bool = False, seed: int = 0) -> None:
        self.task, self.split, self.goal_seed = task, split, seed
        self.render_mode = "rgb_array" if render else None
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 80}
        self.observation_space = spaces.Box(-np.inf, np.inf, (_OBSERVATION_SIZE,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._class = task.removesuffix(GOAL_OBSERVABLE)
        self._goals: np.ndarray | None = None
        self._goal = -1
        self._simulation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; `options={"attempt": 0}`, or none, draws a goal, a later attempt keeps it."""
        super().reset(seed=seed)
        if self._goals is None:
            self._goals = goals(self._class, self.goal_seed)[self.split]
        if self._goal < 0 or not (options or {}).get("attempt", 0):
            self._goal = int(self.np_random.integers(len(self._goals)))
        if self._simulation is None:
            self._simulation = _take(self._class, self.render_mode)
        self._simulation.set_task(self._library_task())
        observation, _ = self._simulation.reset()
        return observation.astype(np.float32), {}

    def step(self, action):
        if self._simulation is None:
            raise gym.error.ResetNeeded("expected reset() before the first step and after an episode's end, got step()")
        observation, reward, _, truncated, info = self._simulation.step(action)
        if truncated:
            self.release()
        return observation.astype(np.float32), float(reward), False, truncated, {"success": info["success"]}

    def render(self):
        return self._simulation.render() if self._simulation else None

    def release(self) -> None:
        """Gives the simulation back to the pool; the episode, where one was going on, is over."""
        if self._simulation is not None:
            _give_back(self._class, self.render_mode, self._simulation)
            self._simulation = None

    def close(self) -> None:
        self.release()

    def _library_task(self) -> Any:
        from metaworld.types import Task

        assert self._goals is not None
        data = {
            "rand_vec": self._goals[self._goal],
            "env_cls": type(self._simulation),
            "partially_observable": self.task == self._class,
        }
        # The library takes a task as a pickle, which is made and read in this process only.
        return Task(self._class, pickle.dumps(data))


def make_metaworld(task: str, split: str = "train", render: bool = False) -> MetaWorld:
    """One class of Meta-World; arguments as for `MetaWorld`. Builds no simulation yet."""
    return MetaWorld(task, split, render=render)


def goals(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The goals of a class: what `metaworld.ML1(name, seed=seed)` draws, read from the cache when it holds them.

    Drawing takes a second or two, since the library runs the simulation for each goal; reading takes a millisecond.

    Returns:
        "train" and "test": float64, (50, size), where a row places the object and the goal.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twohot" / "metaworld"
    path = cache / f"{name}-seed{seed}-metaworld{metadata.version('metaworld')}.npz"
    try:
        with opened(path) as saved:
            found = {split: saved[split] for split in ("train", "test")}
            if saved["name"] == name and saved["seed"] == seed and all(len(rows) == GOALS for rows in found.values()):
                return found
    except (OSError, FormatError):
        pass  # not there yet, or corrupt: drawn again
    from metaworld import ML1

    benchmark = ML1(name, seed=seed)
    drawn: dict[str, Any] = {
        split: np.stack([pickle.loads(task.data)["rand_vec"] for task in tasks])
        for split, tasks in (("train", benchmark.train_tasks), ("test", benchmark.test_tasks))
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, name=name, seed=seed, **drawn)
    except OSError:
        pass  # a cache that cannot be written costs time only
    return drawn


# Simulations without an owner, by class and render mode, least recently used first.
_idle: OrderedDict[int, tuple[str, str | None, Any]] = OrderedDict()
_MAX_IDLE = 64


def _take(name: str, render_mode: Literal["rgb_array"] | None) -> Any:
    for key, (idle_name, idle_mode, simulation) in reversed(_idle.items()):
        if (idle_name, idle_mode) == (name, render_mode):
            del _idle[key]
            return simulation
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    simulation = ALL_V3_ENVIRONMENTS[name](render_mode=render_mode)
    if sys.platform == "linux":
        # Compiling the model frees megabytes that glibc would keep.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)
    return simulation


def _give_back(name: str, render_mode: str | None, simulation: Any) -> None:
    _idle[id(simulation)] = name, render_mode, simulation
    if len(_idle) > _MAX_IDLE:
        _, (_, _, oldest) = _idle.popitem(last=False)
        oldest.close()


SUITE = Suite(
    name="metaworld",
    summary="Meta-World: a robot arm, fifty tasks with hidden goals (ML1, ML10, ML45) or shown ones (MT10, MT50).",
    requires=("metaworld",),
    install="pip install 'twohot[metaworld]' (it has no wheels for Python 3.14 or newer)",
    tasks=TASKS,
    make=make_metaworld,
    splits=("train", "test"),
    uniform=True,
    reports_success=True,
)
