"""One game of Procgen: a binding to the C library inside the procgen wheels.

So it runs with numpy 2 and without the old gym that their Python code needs. That code is not imported.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_float, c_int, c_int32, c_uint8, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import UnknownEnvironmentError
from twohot.extras import MissingExtraError

INSTALL = "pip install --no-deps procgen-mirror==0.10.7"

GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
MEMORY_GAMES = ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner")

_MODES = {"easy": 0, "hard": 1, "memory": 10}
TASKS = (
    *(f"{game}-easy" for game in GAMES),
    *(f"{game}-hard" for game in GAMES),
    *(f"{game}-memory" for game in MEMORY_GAMES),
)

ACTIONS = 15
LEVELS = {"train": (0, 10_000), "test": (10_000, 10_000_000)}
_SIZE, _RENDER_SIZE = 64, 512
_RESET = -1  # as an action: the library ends the episode
_NEVER = 2**31 - 1
_STATE_BYTES = 2**20


class ProcgenMemory:
    """What the library reads and writes of `num_envs` games, along the first axis of these arrays.

    Attributes:
        image: uint8 [num_envs, 64, 64, 3]. action: int32 [num_envs]. reward: float32 [num_envs].
        first: uint8 [num_envs], whether the image is the first of an episode.
        complete: uint8 [num_envs], whether the last episode ended with its level completed.
    """

    def __init__(self, num_envs: int) -> None:
        self.image = np.zeros((num_envs, _SIZE, _SIZE, 3), np.uint8)
        self.action = np.zeros(num_envs, np.int32)
        self.reward = np.zeros(num_envs, np.float32)
        self.first, self.complete = np.zeros((2, num_envs), np.uint8)


class Procgen(gym.Env[np.ndarray, np.int64]):
    """One game in one mode; its hidden task is one level.

    Observation: Box, uint8, (64, 64, 3). In every attempt after the first, the pixels 1 to 4 of both axes are black, as
    in AMAGO-2: the attempt is seen, also where the memory is short. Action: Discrete(15). Reward: the game's own.

    The game's time limit (500 to 6000 steps, which the image does not show) truncates, and the observation then is
    the true last one: the library's own clock, which would have replaced it by the next episode's first, is stopped.
    Where the game itself ends an episode the library draws no last image, so the image before it is returned again.
    info["success"] is True where the level was completed.

    Args:
        task: one of `TASKS`.
        split: "train" plays levels 0 to 9999, "test" later ones up to ten million.
        render: whether `render` returns frames of 512 x 512.
        memory, index: where the library reads its action and writes what it shows; None allocates it.

    Attributes:
        level: that is played; -1 before the first.
        over: whether the game has ended its episode, and the library is in the next.

    Raises:
        UnknownEnvironmentError: a game, mode or split that does not exist; the library would end the process.
        MissingExtraError: no procgen wheel is installed.
    """

    hidden_task = True
    observation_space: spaces.Box

    def __init__(
        self,
        task: str,
        split: str = "train",
        *,
        render: bool = False,
        memory: ProcgenMemory | None = None,
        index: int = 0,
    ) -> None:
        # The library ends the process on a mode that a game lacks, so nothing unknown may reach it.
        if task not in TASKS:
            raise UnknownEnvironmentError(f"there is no procgen task named {task!r}: `twohot envs procgen` lists all")
        if split not in LEVELS:
            raise UnknownEnvironmentError(f"expected a split of {tuple(LEVELS)}, got {split!r}")
        self._game, mode = task.rsplit("-", 1)
        self._mode = _MODES[mode]
        self.levels = LEVELS[split]
        self.level, self.over = -1, False
        self.render_mode = "rgb_array" if render else None
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 15}
        self.observation_space = spaces.Box(0, 255, (_SIZE, _SIZE, 3), np.uint8)
        self.action_space = spaces.Discrete(ACTIONS)
        self._library = _load()
        self._handle: int | None = None
        memory = memory or ProcgenMemory(1)
        self._image = memory.image[index]
        self._frame = np.zeros((_RENDER_SIZE, _RENDER_SIZE, 3), np.uint8) if render else None
        self._action, self._reward = (
            c_int32.from_buffer(memory.action.data, 4 * index),
            c_float.from_buffer(memory.reward.data, 4 * index),
        )
        self._first = c_uint8.from_buffer(memory.first.data, index)
        self._complete = c_uint8.from_buffer(memory.complete.data, index)
        self._previous_seed, self._seed = c_int32(), c_int32()
        info = [byref(self._previous_seed), byref(self._complete), byref(self._seed)]
        addresses = [ctypes.cast(pointer, c_void_p) for pointer in info]
        if self._frame is not None:
            addresses.append(self._frame.ctypes.data_as(c_void_p))
        # Kept here: the library reads the pointers at every step.
        self._pointers = (
            (c_void_p * 1)(self._image.ctypes.data),
            (c_void_p * len(addresses))(*addresses),
            (c_void_p * 1)(ctypes.addressof(self._action)),
        )
        image, infos, action = self._pointers
        self._buffers = _Buffers(image, ctypes.pointer(self._reward), ctypes.pointer(self._first), infos, action)
        self._last = self._image
        self._steps = self._limit = 0
        self._attempt = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; `options={"attempt": 0}`, or none, draws a level, a later attempt keeps it."""
        super().reset(seed=seed)
        self._attempt = (options or {}).get("attempt", 0) if self.level >= 0 else 0
        if not self._attempt:
            self.level = int(self.np_random.integers(*self.levels))
            self._open()
        elif not self.over:
            self._action.value = _RESET
            self.act()
        self._stop_clock()
        self._steps, self.over = 0, False
        return self._observe(), {}

    def step(self, action):
        if self._handle is None or self.over:
            raise gym.error.ResetNeeded("expected reset() before the first step and after an episode's end, got step()")
        self._action.value = int(action)
        self.act()
        self._steps += 1
        reward = self._reward.value
        if self._first.value:
            # The library is in its next episode, at the same level, since this one knows no other.
            self.over = True
            return self._last, reward, True, False, {"success": bool(self._complete.value)}
        return self._observe(), reward, False, self._steps >= self._limit, {"success": False}

    @property
    def limit(self) -> int:
        """Steps after which the present episode is truncated."""
        return self._limit

    def act(self) -> None:
        """Have the library take the action that stands in the memory. Other threads may run meanwhile."""
        self._library.libenv_act(self._handle)

    def render(self):
        self._library.libenv_observe(self._handle)
        return None if self._frame is None else self._frame.copy()

    def close(self) -> None:
        if self._handle is not None:
            self._library.libenv_close(self._handle)
            self._handle = None

    def _observe(self) -> np.ndarray:
        self._last = image = self._image.copy()
        if self._attempt:
            image[1:5, 1:5] = 0
        return image

    def _open(self) -> None:
        """A new environment of the library at `level`, which takes 0.2 ms."""
        self.close()
        options = {
            "env_name": self._game,
            "num_levels": 1,
            "start_level": self.level,
            "num_actions": ACTIONS,
            "distribution_mode": self._mode,
            "num_threads": 0,
            "rand_seed": 0,  # draws a level among the one that there is
            "use_sequential_levels": False,
            "debug_mode": 0,
            "render_human": self._frame is not None,
            "resource_root": str(_folder() / "assets") + "/",
            "center_agent": True,
            "use_backgrounds": True,
            "use_generated_assets": False,
            "use_monochrome_assets": False,
            "restrict_themes": False,
            "paint_vel_info": False,
        }
        items = (_Option * len(options))(*(_option(name, value) for name, value in options.items()))
        self._handle = self._library.libenv_make(1, _Options(items, len(options)))
        self._library.libenv_set_buffers(self._handle, byref(self._buffers))

    def _stop_clock(self) -> None:
        """Moves the library's time limit out of reach, in the state that it saves and restores.

        At every episode, since jumper sets its own again at each.
        """
        state = _state
        size = self._library.get_state(self._handle, 0, state, _STATE_BYTES)
        at = _clock(state)
        limit = c_int32.from_buffer(state, at)
        if limit.value != _NEVER:
            self._limit, limit.value = limit.value, _NEVER
            self._library.set_state(self._handle, 0, state, size)


_state = ctypes.create_string_buffer(_STATE_BYTES)


def _clock(state: Any) -> int:
    """Offset of the time limit in a saved state: what precedes it are numbers and three texts of given length."""

    def text(at: int) -> int:
        return at + 4 + c_int32.from_buffer(state, at).value

    at = text(4) + 4 * 17  # after the version and the game's name: the options and the range of levels
    for _ in range(2):  # two random generators: whether it was seeded, and its state as text
        at = text(at + 4)
    return at + 4 * 4  # after reward, done, completed and the action


class _Option(Structure):
    _fields_ = (("name", c_char * 128), ("dtype", c_int), ("count", c_int), ("data", c_void_p))


class _Options(Structure):
    _fields_ = (("items", POINTER(_Option)), ("count", c_int))


class _Buffers(Structure):
    _fields_ = (
        ("observations", POINTER(c_void_p)),
        ("rewards", POINTER(c_float)),
        ("first", POINTER(c_uint8)),
        ("infos", POINTER(c_void_p)),
        ("actions", POINTER(c_void_p)),
    )


def _option(name: str, value: str | int | bool) -> _Option:
    """A named value as the library takes it: uint8 for a bool and for text, int32 for a number."""
    if isinstance(value, str):
        data, dtype, count = ctypes.create_string_buffer(value.encode(), len(value)), 1, len(value)
    else:
        data, dtype, count = (c_uint8(value), 1, 1) if isinstance(value, bool) else (c_int32(value), 2, 1)
    option = _Option(name.encode(), dtype, count, ctypes.cast(ctypes.pointer(data), c_void_p))
    option.kept = data
    return option


@cache
def _folder() -> Path:
    spec = find_spec("procgen")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"'procgen' needs procgen, which is not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "data"


@cache
def _load() -> ctypes.CDLL:
    names = ("libenv.so", "libenv.dylib", "env.dll")
    found = [path for name in names if (path := _folder() / "prebuilt" / name).exists()]
    if not found:
        raise MissingExtraError(f"expected procgen's library in {_folder() / 'prebuilt'}, found none: {INSTALL}")
    library = ctypes.CDLL(str(found[0]))
    if library.libenv_version() != 1:
        raise MissingExtraError(f"expected version 1 of procgen's library, got {library.libenv_version()}: {INSTALL}")
    library.libenv_make.restype, library.libenv_make.argtypes = c_void_p, (c_int, _Options)
    for name in ("libenv_act", "libenv_observe", "libenv_close"):
        getattr(library, name).restype, getattr(library, name).argtypes = None, (c_void_p,)
    library.libenv_set_buffers.restype, library.libenv_set_buffers.argtypes = None, (c_void_p, POINTER(_Buffers))
    library.get_state.argtypes = library.set_state.argtypes = (c_void_p, c_int, c_char_p, c_int)
    library.set_state.restype = None
    return library
