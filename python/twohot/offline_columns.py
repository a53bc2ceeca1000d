"""Columns of recorded trajectories as those of an agent: which spaces they have, and how they are converted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import Space, spaces

from twohot.conventions import convention
from twohot.envs.multitask import CONTEXT, CONTEXT_FEATURES
from twohot.errors import TwohotError
from twohot.replay import Replay, Schema
from twohot.replay.formats import Trajectory, schema_of
from twohot.spaces import OBSERVATION

_FEATURES = len(CONTEXT_FEATURES)


class OfflineError(TwohotError, ValueError):
    """A dataset that an agent cannot train from; the message says why and what to do."""


class Scan:
    """What the columns of a source hold, seen once through."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.schema: Schema | None = None
        self.largest: dict[str, int] = {}
        """Largest values of lone integers among the observations."""
        self.actions = np.zeros(0)
        """Largest value of each entry of an integer action."""

    def add(self, trajectory: Trajectory) -> None:
        trajectory = {**trajectory, "step": None}
        schema = schema_of(trajectory)
        if self.schema is None:
            self.schema = schema
        if schema != self.schema:
            raise OfflineError(f"{self.source}: expected trajectories with equal columns, got {schema}")
        for name, values in trajectory["observation"].items():
            if values.ndim == 1 and values.dtype.kind in "iu":
                self.largest[name] = max(self.largest.get(name, 0), int(values.max()))
        if trajectory["action"].dtype.kind in "iub":
            largest = trajectory["action"].max(0).astype(np.int64)
            self.actions = largest if not self.actions.size else np.maximum(self.actions, largest)

    def observation_space(self, given: spaces.Dict | None, context_features: bool) -> spaces.Dict:
        """Of an agent that sees this source; checked against, and padded to, the one that is given."""
        if self.schema is None:
            raise OfflineError(f"{self.source}: expected at least one trajectory, got none")
        features = _FEATURES if context_features else 0
        parts: dict[str, spaces.Box] = {}
        for name, field in self.schema.observation.items():
            kind = np.dtype(field.dtype).kind
            if field.dtype == "uint8" and len(field.shape) in (2, 3):
                parts[name] = spaces.Box(0, 255, (*field.shape, 1)[:3], np.uint8)
            elif kind in "iu" and convention(name) in ("grid", "tokens"):
                dtype = field.dtype if field.dtype in ("uint8", "int16", "int32") else "int32"
                limits = np.iinfo(dtype)
                parts[name] = spaces.Box(limits.min, limits.max, field.shape, np.dtype(dtype).type)
            else:
                size = self.largest[name] + 1 if name in self.largest else int(np.prod(field.shape))
                parts[name] = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        if features and is_vector(parts):
            parts[OBSERVATION] = spaces.Box(-np.inf, np.inf, (parts[OBSERVATION].shape[0] + features,), np.float32)
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
        return given

    def action_space(self, low: np.ndarray) -> Space:
        """Of an agent that acts as this source does."""
        field = self.schema.action
        if np.dtype(field.dtype).kind == "f":
            return spaces.Box(-1, 1, (int(np.prod(field.shape)),), np.float32)
        if field.dtype == "bool" or (field.dtype == "int8" and field.shape):
            return spaces.MultiBinary(int(np.prod(field.shape)))
        if field.shape and field.shape != (1,):
            return spaces.MultiDiscrete(self.actions.ravel() + 1)
        return spaces.Discrete(max(2, int(self.actions.max()) + 1))


def is_vector(parts: Mapping[str, spaces.Box]) -> bool:
    """Whether an observation is one vector, at whose end the features stand."""
    return set(parts) == {OBSERVATION} and len(parts[OBSERVATION].shape) == 1 and parts[OBSERVATION].dtype == np.float32


def fits(own: spaces.Dict, given: spaces.Dict) -> bool:
    """Whether parts of `own` are those of `given`, vectors and tokens perhaps shorter."""
    if set(own) != set(given):
        return False
    for name, part in own.items():
        other = given[name]
        if part.dtype != other.dtype or len(part.shape) != len(other.shape):
            return False
        if part.shape != other.shape and not (len(part.shape) == 1 and part.shape < other.shape):
            return False
    return True


def observation_columns(
    columns: dict[str, np.ndarray], reward: np.ndarray, space: spaces.Dict, context_features: bool
) -> dict[str, np.ndarray]:
    """The columns of one trajectory, T + 1 rows each, as parts of `space`."""
    rows = len(reward) + 1
    context = np.zeros((rows, _FEATURES), np.float32)
    context[:, 0] = np.arange(rows) / 1000
    context[:, 2] = 1.0
    context[1:, 3] = reward
    vector = context_features and is_vector(space)
    converted = {CONTEXT: context} if context_features and not vector else {}
    for name, values in columns.items():
        part = space[name]
        filled = np.zeros((rows, *part.shape), part.dtype)
        if values.ndim == 1 and values.dtype.kind in "iu" and part.dtype == np.float32:
            filled[np.arange(rows), values] = 1.0
        elif len(part.shape) == 1:
            flat = values.reshape(rows, -1)
            filled[:, : flat.shape[1]] = flat
        else:
            filled[:] = values.reshape(filled.shape)
        if vector:
            filled[:, -_FEATURES:] = context
        converted[name] = filled
    return converted


def action_column(actions: np.ndarray, space: Space, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The actions of one trajectory as a replay stores those of `space`."""
    rows = len(actions)
    if isinstance(space, spaces.Box):
        scaled = (2 * (actions.reshape(rows, -1) - low) / (high - low) - 1).astype(np.float32)
        if scaled.shape[1] != space.shape[0]:
            raise ValueError(f"action: expected {space.shape[0]} numbers, got {scaled.shape[1]}")
        if not (np.abs(scaled) <= 1 + 1e-5).all():
            raise ValueError(
                f"action: expected numbers from {low} to {high}, got {actions.min()} to {actions.max()}: rescale them"
            )
        return np.clip(scaled, -1, 1)
    if isinstance(space, spaces.Discrete):
        counts, shape, dtype = space.n, (rows,), np.int32
    elif isinstance(space, spaces.MultiDiscrete):
        counts, shape, dtype = space.nvec, (rows, len(space.nvec)), np.int32
    else:
        counts, shape, dtype = 2, (rows, space.n), np.int8
    if actions.dtype.kind not in "iub" or actions.size != np.prod(shape):
        raise ValueError(f"action: expected integers {shape[1:]}, got {actions.dtype} {actions.shape[1:]}")
    chosen = actions.reshape(shape)
    if (chosen < 0).any() or (chosen >= counts).any():
        raise ValueError(f"action: expected {space}, got {chosen.min()} to {chosen.max()}")
    return chosen.astype(dtype)


def columns_space(schema: Schema) -> spaces.Dict | None:
    """The observation space whose columns these are, if there is one."""
    parts = {}
    for name, field in schema.observation.items():
        dtype = np.dtype(field.dtype)
        if dtype == np.float32 and len(field.shape) == 1:
            parts[name] = spaces.Box(-np.inf, np.inf, field.shape, np.float32)
        elif field.dtype in ("uint8", "int16", "int32") and field.shape:
            parts[name] = spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, field.shape, dtype.type)
        else:
            return None
    return spaces.Dict(parts)


def columns_action(replay: Replay) -> Space | None:
    """The action space whose column this is, if there is one; counts are the largest that were taken, and one."""
    field = replay.schema.action
    if field.dtype == "float32" and len(field.shape) == 1:
        return spaces.Box(-1, 1, field.shape, np.float32)
    if field.dtype == "int8" and len(field.shape) == 1:
        return spaces.MultiBinary(field.shape[0])
    if field.dtype != "int32" or len(field.shape) > 1 or not replay.stats().trajectories:
        return None
    largest = np.max([replay.get(id)["action"].max(0) for id in replay.ids().tolist()], 0)
    return spaces.MultiDiscrete(largest + 1) if field.shape else spaces.Discrete(max(2, int(largest) + 1))
