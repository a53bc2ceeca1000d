"""Environments of every layout of an observation, every convention and every kind of action; workers can import it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from twohot import envs
from twohot.envs.vector.batched import EnvBatch

STATE, CAMERA = spaces.Box(-1, 1, (2, 2), np.float64), spaces.Box(0, 255, (6, 5, 3), np.uint8)
ACTIONS = {
    "discrete": spaces.Discrete(4, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 3], start=[0, -1]),
    "multi_binary": spaces.MultiBinary(3),
    "box": spaces.Box(-2, 2, (2,), np.int16),
}
CHOICES = {"discrete": (4,), "multi_discrete": (2, 3), "multi_binary": (3,)}
LAYOUTS = {
    "vector": lambda parts: spaces.Dict({"state": STATE, **parts}),
    "image": lambda parts: spaces.Dict({"camera": CAMERA, **parts}),
    "both": lambda parts: spaces.Dict({"camera": CAMERA, **parts, "state": STATE}),
    "nested": lambda parts: spaces.Dict({"camera": CAMERA, "inner": spaces.Dict({"state": STATE, **parts})}),
    "tuple": lambda parts: spaces.Tuple((STATE, spaces.Dict(parts), spaces.Discrete(2))),
}


def mask_spaces(action: str) -> dict[str, gym.Space]:
    """All ways to declare a mask."""
    counts = CHOICES[action]
    size = sum(counts)
    found: dict[str, gym.Space] = {
        "mask_int8": spaces.Box(0, 1, (size,), np.int8),
        "mask_float": spaces.Box(0, 1, (size,), np.float32),
        "mask_bool": spaces.Box(0, 1, (size,), bool),
        "mask_binary": spaces.MultiBinary(size),
        "mask_choices": spaces.MultiDiscrete([2] * size),
    }
    if len(counts) > 1:
        found["mask_tuple"] = spaces.Tuple([spaces.MultiBinary(count) for count in counts])
    return found


CONVENTIONS: dict[str, dict[str, gym.Space]] = {
    "choice": {"choice": spaces.Discrete(3, start=1)},
    "choices": {"choices": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [-2, 0]])},
    "bits": {"bits": spaces.MultiBinary([2, 2])},
    "scalar": {"scalar": spaces.Box(-9, 9, (), np.float16)},
    "bytes": {"bytes": spaces.Box(0, 255, (4,), np.uint8)},
    "tokens": {"tokens_text": spaces.Box(0, 300, (5,), np.int64), "tokens": spaces.MultiDiscrete([9, 9], start=[1, 0])},
    "grid": {"grid": spaces.Box(0, 9, (4, 3, 2), np.int32), "grid_2d": spaces.Box(0, 255, (4, 3), np.uint8)},
}


def names() -> list[str]:
    """All combinations: layout, convention and action."""
    found = [f"{layout}-{name}-discrete" for layout, name in itertools.product(LAYOUTS, CONVENTIONS)]
    found += [f"{layout}-tokens-box" for layout in LAYOUTS]
    for layout, action in itertools.product(LAYOUTS, CHOICES):
        masks = mask_spaces(action) if layout == "nested" else ("mask_int8", "mask_binary")
        found += [f"{layout}-{mask}-{action}" for mask in masks]
    return found


def space_of(name: str) -> gym.Space:
    """The observation space of a combination."""
    layout, convention, action = name.split("-")
    masks = mask_spaces(action) if action in CHOICES else {}
    parts = {"action_mask": masks[convention]} if convention in masks else CONVENTIONS[convention]
    return LAYOUTS[layout](parts)


@cache
def observation_at(name: str, time: int) -> Any:
    """What is shown `time` steps after a reset, always the same; in each part of the action something is legal."""
    space = space_of(name)
    space.seed(time)
    return _legal(space.sample(), CHOICES.get(name.split("-")[2], ()))


def _legal(value: Any, counts: tuple[int, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(_legal(part, counts) for part in value)
    if not isinstance(value, dict):
        return value
    value = {key: _legal(part, counts) for key, part in value.items()}
    if "action_mask" in value:
        mask = value["action_mask"]
        parts = mask if isinstance(mask, tuple) else np.split(mask, np.cumsum(counts)[:-1])  # views
        for part in parts:
            part[...] = np.round(part)
            part[0] = 1
    return value


def find_mask(value: Any) -> np.ndarray | None:
    """The mask of an observation as it was shown, its parts side by side."""
    if isinstance(value, dict) and "action_mask" in value:
        mask = value["action_mask"]
        return np.concatenate(mask if isinstance(mask, tuple) else [mask])
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return next((mask for mask in map(find_mask, inner) if mask is not None), None)


class Shows(gym.Env):
    """Shows `observation_at`, refuses illegal actions, and ends after some steps, the last of which is a success."""

    def __init__(self, name: str, length: int = 3, render_mode: str | None = None) -> None:
        self.name, self.length, self.render_mode = name, length, render_mode
        self.kind = name.split("-")[2]
        self.observation_space, self.action_space = space_of(name), ACTIONS[self.kind]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return observation_at(self.name, 0), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        mask = find_mask(observation_at(self.name, self.time))
        if mask is not None:
            assert self._allowed(action, mask), (action, mask)
        self.time += 1
        told = np.array([self.time == self.length]) if "mask" in self.name else np.float32(self.time == self.length)
        info = {"success" if "mask" in self.name else "is_success": told}
        return observation_at(self.name, self.time), 1.0, self.time == self.length, False, info

    def _allowed(self, action, mask) -> bool:
        if self.kind == "multi_binary":
            return not (action & ~mask.astype(bool)).any()
        chosen = np.ravel(action - self.action_space.start)
        firsts = np.cumsum(CHOICES[self.kind]) - CHOICES[self.kind]
        return bool(mask[firsts + chosen].all())


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    return Shows(task)


class ShowsBatch(EnvBatch):
    """Rows of `Shows` as a custom batch."""

    def __init__(self, name: str, rows: int) -> None:
        super().__init__(rows)
        self.observation_space = space_of(name)
        self.action_space = envs.common_action_space([ACTIONS[name.split("-")[2]]])
        self.environments = [envs.pad_actions(Shows(name), self.action_space) for _ in range(rows)]
        self.shown = [observation_at(name, 0)] * rows

    def reset(self, row, random, *, new_task=True):
        self.shown[row] = self.environments[row].reset()[0]

    def observe(self):
        return concatenate(
            self.observation_space, self.shown, create_empty_array(self.observation_space, self.num_envs)
        )

    def step(self, actions):
        over, self.told = np.zeros(self.num_envs, bool), np.ones(self.num_envs, bool)
        for row, (env, action) in enumerate(zip(self.environments, actions, strict=True)):
            self.shown[row], _, over[row], _, _ = env.step(action)
        self.success = over.copy()
        return np.ones(self.num_envs, np.float32), over, np.zeros(self.num_envs, bool)

    def picture(self, row):
        return None


OWN = envs.Suite("layouts", "All layouts.", (), "", tuple(names()), make)
BATCHES = replace(OWN, name="batches", make_batch=lambda task, split, rows: ShowsBatch(task, rows))
MODES = {mode.name.lower(): mode for mode in AutoresetMode}


def make_rows(name: str, num_envs: int, mode: str) -> SyncVectorEnv:
    """Row r ends after 3 + r steps."""
    makes = [partial(Shows, name, 3 + row) for row in range(num_envs)]
    return SyncVectorEnv(makes, autoreset_mode=MODES[mode])


for _name in names():
    gym.register(f"Layout-{_name}-v0", entry_point=Shows, kwargs={"name": _name}, disable_env_checker=True)
    for _mode in MODES:
        gym.register(
            f"Layout-{_name}-{_mode}-v0",
            vector_entry_point=make_rows,
            kwargs={"name": _name, "mode": _mode},
        )
