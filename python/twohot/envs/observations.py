"""Observations of every layout as an agent sees them: one vector, one image, or parts by their names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.errors import ObservationError, UnsupportedSpaceError
from twohot.envs.parts import Part, part_of
from twohot.spaces import ACTION_MASK, OBSERVATION, convention

_Gather = Callable[[Any, list[Any]], None]


class ObservationReader:
    """Turns what an environment shows into what an agent sees, or refuses it.

    Parts of nested Dicts and Tuples are named "a/b", those of a Tuple by their place; an action mask is "action_mask"
    wherever it stands.

    Args:
        own: the environment's observation space. action: its action space, which a mask must fit.
        where: the environment in words, for errors.
        one_vector: whether a Dict or Tuple of nothing but vectors becomes one, in the order of the space.
        leading: sizes of axes in front of each part's own, such as that of a vector's environments.
        part: makes a part from its name, space, `where` and `leading`.

    Attributes:
        space: what an agent sees: a Box, or a Dict of Boxes and perhaps the mask as MultiBinary.

    Raises:
        UnsupportedSpaceError: for a space that no agent can see; the message names the part.
    """

    space: spaces.Box | spaces.Dict

    def __init__(
        self,
        own: gym.Space,
        action: gym.Space | None,
        where: str,
        *,
        one_vector: bool = False,
        leading: tuple[int, ...] = (),
        part: Callable[..., Part] = part_of,
    ) -> None:
        self.where, self._leading = where, leading
        named: list[tuple[str, gym.Space]] = []
        self._gather = self._gatherer(own, "", named)
        self._parts = {name: part(name, space, where, leading) for name, space in named}
        if len(self._parts) < len(named) or not named:
            names = [name for name, _ in named]
            raise UnsupportedSpaceError(f"{where}: expected parts of an observation with different names, got {names}")
        if action is not None and ACTION_MASK in self._parts:
            _check_mask(self._parts[ACTION_MASK], action)
        shown = {name: each.space for name, each in self._parts.items()}
        if not isinstance(own, spaces.Dict | spaces.Tuple):
            (lone,) = self._parts.values()
            assert isinstance(lone.space, spaces.Box)  # a mask has a name, and so is a part of a Dict
            self.space, self.read, self.write = lone.space, lone.read, lone.write
        elif one_vector and all(each.flat for each in self._parts.values()):
            low, high = (np.concatenate([getattr(each, end) for each in shown.values()]) for end in ("low", "high"))
            self.space = spaces.Box(low, high, dtype=np.float32)
        else:
            self.space = spaces.Dict({**shown})
        ends = np.cumsum([each.shape[0] for each in shown.values()]).tolist()
        self._slices = [slice(end - each.shape[0], end) for end, each in zip(ends, shown.values(), strict=True)]

    def read(self, value: Any) -> Any:
        """What an agent sees of a value of the own space: an array or a Dict of arrays, perhaps the value's own.

        Raises:
            ObservationError: where the value is not in the own space.
        """
        if isinstance(self.space, spaces.Dict):
            values = self._values(value)
            return {name: part.read(each) for (name, part), each in zip(self._parts.items(), values, strict=True)}
        shown = np.zeros((*self._leading, *self.space.shape), np.float32)
        self.write(value, shown)
        return shown

    def write(self, value: Any, entries: np.ndarray) -> None:
        """Set zeros [*leading, size] to what `read` gives, where that is a vector.

        Raises:
            ObservationError: as `read`.
        """
        for part, own, place in zip(self._parts.values(), self._values(value), self._slices, strict=True):
            part.write(own, entries[..., place])

    def _values(self, value: Any) -> list[Any]:
        found: list[Any] = []
        self._gather(value, found)
        return found

    def _gatherer(self, space: gym.Space, name: str, named: list[tuple[str, gym.Space]]) -> _Gather:
        """What appends the values of all parts of `space`, whose names and spaces come into `named` in that order."""
        is_mask = convention(name) == ACTION_MASK
        if is_mask or not isinstance(space, spaces.Dict | spaces.Tuple):
            named.append((ACTION_MASK if is_mask else name or OBSERVATION, space))
            return lambda value, found: found.append(value)
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        inner = [(key, self._gatherer(part, f"{name}/{key}" if name else str(key), named)) for key, part in items]
        keys, kinds = {key for key, _ in inner}, (tuple, list, np.ndarray)

        def gather_dict(value: Any, found: list[Any]) -> None:
            if not isinstance(value, Mapping) or value.keys() != keys:
                came = sorted(map(str, value)) if isinstance(value, Mapping) else f"a {type(value).__name__}"
                self._refuse(name, f"a dict of {sorted(map(str, keys))}", came)
            for key, gather in inner:
                gather(value[key], found)

        def gather_tuple(value: Any, found: list[Any]) -> None:
            if not isinstance(value, kinds) or len(value) != len(inner):
                came = f"{len(value)}" if isinstance(value, kinds) else f"a {type(value).__name__}"
                self._refuse(name, f"a tuple of {len(inner)} parts", came)
            for part, (_, gather) in zip(value, inner, strict=True):
                gather(part, found)

        return gather_dict if isinstance(space, spaces.Dict) else gather_tuple

    def _refuse(self, name: str, wanted: str, came: Any) -> NoReturn:
        part = f"observation {name!r}" if name else "the observation"
        raise ObservationError(
            f"{self.where}: expected {wanted} as {part}, got {came}: fix the environment, or the space it declares"
        )


class SeenObservation(gym.ObservationWrapper):
    """An environment whose observations are what an agent sees; see `ObservationReader`.

    Args:
        env: any. where: the environment in words, for errors. one_vector: as for `ObservationReader`.

    Raises:
        UnsupportedSpaceError: as for `ObservationReader`.
    """

    def __init__(self, env: gym.Env, where: str, *, one_vector: bool = False) -> None:
        super().__init__(env)
        self.reader = ObservationReader(env.observation_space, env.action_space, where, one_vector=one_vector)
        self.observation_space = self.reader.space
        self._read = self.reader.read

    def observation(self, observation: Any) -> Any:
        """What the agent sees of it."""
        return self._read(observation)


def as_parts(observation: Any) -> dict[str, Any]:
    """An observation, of one environment or of many, or its space, by name."""
    if isinstance(observation, spaces.Dict):
        return dict(observation.spaces)
    return observation if isinstance(observation, dict) else {OBSERVATION: observation}


def _check_mask(mask: Part, action: gym.Space) -> None:
    """Raises UnsupportedSpaceError unless the mask has an entry for each choice of the action."""
    if isinstance(action, spaces.Discrete):
        choices = int(action.n)
    elif isinstance(action, spaces.MultiDiscrete):
        choices = int(action.nvec.sum())
    elif isinstance(action, spaces.MultiBinary):
        choices = int(np.prod(action.shape))
    else:
        raise UnsupportedSpaceError(
            f"{mask.where}: expected Discrete, MultiDiscrete or MultiBinary actions with an action mask, got {action}"
        )
    if math.prod(mask.space.shape) != choices:
        raise UnsupportedSpaceError(
            f"{mask.where}: observation {mask.name!r}: expected a mask with an entry for each of the {choices} choices "
            f"of {action}, got {mask.own}"
        )
