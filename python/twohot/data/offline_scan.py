"""What the columns of recorded trajectories hold, and the spaces of an agent that fits them."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import Space, spaces

from twohot.data.offline_columns import (
    FEATURES,
    MAX_CHOICES,
    OfflineError,
    Recorded,
    choices_of,
    image_shape,
    is_image,
    is_vector,
)
from twohot.envs.parts import INTEGERS
from twohot.envs.wrappers.padding import CONTEXT
from twohot.replay import Schema
from twohot.replay.formats import Trajectory, schema_of
from twohot.replay.formats.amago import one_hot
from twohot.spaces import ACTION_MASK, OBSERVATION, convention, dtype_of, shape_of


class Scan:
    """What the columns of a source hold, seen once through.

    Args:
        source: names it in errors. recorded: what is known of its spaces.
        one_hot: whether actions that are rows of one 1 and else zeros are choices.
    """

    def __init__(self, source: str, recorded: Recorded, one_hot: bool = False) -> None:
        self.source = source
        self._schema: Schema | None = None
        self.recorded = recorded
        self._ranges: dict[str, tuple[int, int]] = {}
        """The minimum and maximum of lone integers among the observations, and of integer actions."""
        self._maximum = np.zeros(0, np.int64)
        """Of each entry of an integer action."""
        self._one_hot = one_hot
        self.order: list[str] = []
        """Observations that are one vector where the environment shows one, in its order; else none."""

    @property
    def schema(self) -> Schema:
        """The columns of every trajectory. Raises OfflineError where there is none."""
        if self._schema is None:
            raise OfflineError(f"{self.source}: expected at least one trajectory, got none")
        return self._schema

    def add(self, trajectory: Trajectory) -> None:
        trajectory = {**trajectory, "step": None}
        schema = schema_of(trajectory)
        if self._schema is None:
            self._schema = schema
        if schema != self._schema:
            raise OfflineError(f"{self.source}: expected trajectories with equal columns, got {schema}")
        for name, values in trajectory["observation"].items():
            if values.ndim == 1 and values.dtype.kind in "iu":
                self._see(f"observation {name!r}", values)
        action = trajectory["action"]
        self._one_hot = self._one_hot and one_hot(action)
        if action.dtype.kind in "iub":
            self._see("action", action)
            largest = action.max(0).ravel()
            self._maximum = np.maximum(self._maximum, largest) if self._maximum.size else largest

    def _see(self, name: str, values: np.ndarray) -> None:
        minimum, maximum = self._ranges.get(name, (0, 0))
        self._ranges[name] = min(minimum, int(values.min())), max(maximum, int(values.max()))

    def _count(self, name: str, parameter: str) -> int:
        """How many choices a column has that runs from 0, as far as was seen."""
        minimum, maximum = self._ranges[name]
        if minimum < 0 or maximum >= MAX_CHOICES:
            raise OfflineError(
                f"{self.source}: {name}: expected choices from 0 to below {MAX_CHOICES}, got {minimum} to {maximum}: "
                f"{parameter} says what they are, or write them as floating-point numbers"
            )
        return maximum + 1

    def choices(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each observation that becomes one-hot: how many choices its entries have, and the first of them."""
        found = {}
        for name, about in self.schema.observation.items():
            known = choices_of(self.recorded.observation.get(name))
            if np.dtype(about.dtype).kind not in "iu" or convention(name):
                continue
            if known is not None:
                if len(known[0]) != math.prod(about.shape) or known[0].sum() > MAX_CHOICES:
                    raise OfflineError(
                        f"{self.source}: observation {name!r}: expected {self.recorded.observation[name]} of at most "
                        f"{MAX_CHOICES} choices, got {about.dtype} {about.shape}"
                    )
                found[name] = known
            elif not about.shape and name not in self.recorded.observation:
                count = self._count(f"observation {name!r}", "recorded_observation_space")
                found[name] = np.array([count]), np.array([0])
        return found

    def observation_space(self, given: spaces.Dict | None, context_features: bool) -> spaces.Dict:
        """Of an agent that sees this source; checked against, and padded to, the one that is given."""
        features = FEATURES if context_features else 0
        choices, recorded = self.choices(), self.recorded.observation
        parts: dict[str, Space] = {name: self._part(name, given, choices.get(name)) for name in self.schema.observation}
        vectors = len(parts) > 1 and all(part.dtype == np.float32 for part in parts.values())
        if given is not None and is_vector(given) and vectors and parts.keys() == recorded.keys():
            self.order = list(recorded)
            parts = {OBSERVATION: spaces.Box(-np.inf, np.inf, (sum(shape_of(part)[0] for part in parts.values()),))}
        if features and is_vector(parts):
            size = shape_of(parts[OBSERVATION])[0] + features
            parts[OBSERVATION] = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        elif features:
            parts[CONTEXT] = spaces.Box(-np.inf, np.inf, (features,), np.float32)
        own = spaces.Dict(parts)
        if given is None:
            return own
        if not fits(own, given):
            raise OfflineError(
                f"{self.source}: the observations do not fit those of the environment: expected {given}, got {own} "
                "(name what to keep with fields; features come with context_features)"
            )
        for name, about in () if self.order else self.schema.observation.items():
            known, wanted = name in choices or name in recorded, shape_of(given[name])
            vector = own[name].dtype == np.float32 and own[name].shape != wanted
            if np.dtype(about.dtype).kind in "iu" and vector and not known:
                raise OfflineError(
                    f"{self.source}: observation {name!r}: {math.prod(about.shape)} integers may be numbers or choices "
                    f"of the {wanted[0]} that the environment shows: recorded_observation_space says which"
                )
        return given

    def _part(
        self, name: str, given: spaces.Dict | None, choices: tuple[np.ndarray, np.ndarray] | None
    ) -> spaces.Box | spaces.MultiBinary:
        """What an agent sees of a column."""
        about = self.schema.observation[name]
        if is_image(name, about.dtype, about.shape) and choices is None:
            return spaces.Box(0, 255, image_shape(about.shape), np.uint8)
        if name == ACTION_MASK:
            return spaces.MultiBinary(about.shape[0])
        if convention(name) and np.dtype(about.dtype).kind in "biu":
            return self._integers(name, given)
        size = math.prod(about.shape) if choices is None else int(choices[0].sum())
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def _integers(self, name: str, given: spaces.Dict | None) -> spaces.Box:
        """Tokens [T] or a grid [H, W, C], in the dtype of what is given."""
        about, tokens = self.schema.observation[name], convention(name) == "tokens"
        if len(about.shape) not in ((1,) if tokens else (2, 3)):
            wanted = "tokens [T]" if tokens else "a grid [H, W] or [H, W, C]"
            raise OfflineError(
                f"{self.source}: observation {name!r}: expected {wanted}, which its name promises, got {about.shape}"
            )
        dtype = np.dtype(about.dtype if about.dtype in ("uint8", "int16", "int32") else "int32")
        if given is not None and name in given.spaces and given[name].dtype in INTEGERS:
            dtype = dtype_of(given[name])
        return spaces.Box(0, np.iinfo(dtype.type).max, about.shape if tokens else (*about.shape, 1)[:3], dtype.type)

    def action_space(self) -> Space:
        """Of an agent that acts as this source does."""
        known, about = self.recorded.action, self.schema.action
        size, numbers = math.prod(about.shape), np.dtype(about.dtype).kind == "f" and not self._one_hot
        if isinstance(known, spaces.Box) or (known is None and numbers):
            return spaces.Box(-1, 1, (size,), np.float32)
        if isinstance(known, spaces.MultiBinary):
            return spaces.MultiBinary(size)
        if known is not None:
            counts = (choices_of(known) or (np.zeros(0, int),))[0]
            if not counts.size or counts.max() > MAX_CHOICES:
                raise OfflineError(
                    f"{self.source}: action: expected a Box, MultiBinary, Discrete or MultiDiscrete of at most "
                    f"{MAX_CHOICES} choices, got {known}"
                )
            single = isinstance(known, spaces.Discrete)
        elif self._one_hot:
            counts, single = np.array([size]), True
        else:
            choices = self._count("action", "recorded_action_space")
            if about.dtype == "bool" or (about.dtype == "int8" and about.shape and choices <= 2):
                return spaces.MultiBinary(size)
            counts, single = self._maximum.astype(np.int64) + 1, size == 1
        return spaces.Discrete(max(2, int(counts[0]))) if single else spaces.MultiDiscrete(counts)


def fits(own: spaces.Dict, given: spaces.Dict) -> bool:
    """Whether parts of `own` are those of `given`, vectors and tokens perhaps shorter."""
    if set(own) != set(given):
        return False
    for name, part in own.items():
        other = given[name]
        shape, wanted = shape_of(part), shape_of(other)
        if part.dtype != other.dtype or len(shape) != len(wanted):
            return False
        longer = len(shape) == 1 and shape < wanted and name != ACTION_MASK
        if shape != wanted and not longer:
            return False
    return True
