"""Writing the steps of many environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from typing import cast as of_type

import numpy as np

from twohot import _native
from twohot.replay.schema import Field, Schema
from twohot.replay.spaces import by_name, cast_array

_REWARD, _END, _TASK = Field("float32"), Field("bool"), Field("int32")


class Writer:
    """Collects the steps of `E` environments; made by `Replay.writer`. Serves one thread at a time.

    Every array argument has `E` rows. `mask` (bool [E]) says which environments take part in a call; rows of the others
    are ignored. `begin`, `append` and `cut` do all of their work or, when they raise, none of it. They raise ValueError
    for arrays other than the schema's, TypeError for what is no array, and OSError where a file cannot be written (free
    some space and call again).

    With `cast`, of a call or of the writer, arguments are what an environment of gymnasium gives and takes: arrays of
    other dtypes, numbers and bools, or lists of them, which become the schema's arrays. Floats are rounded to its
    floats; of integers and bools, each has to be exact there, else ValueError names it. Observations may be nested
    dictionaries and tuples, or one array where the schema has one. With one environment, E may be missing everywhere.
    """

    __slots__ = ("_cast", "_environments", "_native", "_schema")

    def __init__(self, native: _native.ReplayWriter, schema: Schema, environments: int, cast: bool) -> None:
        self._native = native
        self._schema = schema
        self._environments = environments
        self._cast = cast

    def __reduce__(self) -> str:
        raise TypeError(
            "a writer cannot be copied or sent to another process: ask a replay that is opened there for one"
        )

    def begin(self, observation: Any, mask: Any = None, task: Any = None, *, cast: bool | None = None) -> None:
        """Opens a trajectory in each environment with its first observation and `task` (int32 [E], default 0).

        `observation` is a dict of the schema's arrays by name, if it is not cast (None: as the writer says).

        Raises RuntimeError where a trajectory is open already and ValueError for a NaN where none may be.
        """
        if cast or (cast is None and self._cast):
            observation, mask, task = self._begun(observation, mask, task)
        try:
            self._native.begin(observation, mask, task)
        except (TypeError, ValueError) as error:
            _advise(error, (observation, mask, task), self._begun)
            raise

    def append(
        self,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        observation: Any,
        mask: Any = None,
        step: Any = None,
        *,
        cast: bool | None = None,
    ) -> None:
        """Adds one step to each environment: (a_t, r_{t+1}, terminated, truncated, o_{t+1}).

        `observation` is what the step led to, never the first observation of the next trajectory. Where `terminated`
        or `truncated` (bool [E]), the trajectory is finished: samples may hold it, and the environment waits for
        `begin`. `reward` is float32 [E]; `step` has the step fields of the schema. `cast` is as in `begin`.

        Raises RuntimeError where no trajectory is open, and ValueError for a NaN where none may be, for a reward that
        is not finite, and where one trajectory would exceed the whole capacity.
        """
        if cast or (cast is None and self._cast):
            cast_ones = self._appended(action, reward, terminated, truncated, observation, mask, step)
            action, reward, terminated, truncated, observation, mask, step = cast_ones
        try:
            self._native.append(action, reward, terminated, truncated, observation, mask, step)
        except (TypeError, ValueError) as error:
            _advise(error, (action, reward, terminated, truncated, observation, mask, step), self._appended)
            raise

    def cut(self) -> None:
        """Finishes every open trajectory as truncated after its last step, and drops those without a step."""
        self._native.cut()

    def discard(self, mask: np.ndarray | None = None) -> None:
        """Drops the open trajectories of the environments where mask [E] (bool) is True; without a mask, of all."""
        self._native.discard(mask)

    def _begun(self, observation: Any, mask: Any, task: Any) -> tuple[Any, ...]:
        """The arguments of `begin` as arrays of the schema."""
        return (
            self._named("observation", observation, self._schema.observation),
            None if mask is None else self._array("mask", mask, _END),
            None if task is None else self._array("task", task, _TASK),
        )

    def _appended(
        self, action: Any, reward: Any, terminated: Any, truncated: Any, observation: Any, mask: Any, step: Any
    ) -> tuple[Any, ...]:
        """The arguments of `append` as arrays of the schema."""
        return (
            self._array("action", action, self._schema.action),
            self._array("reward", reward, _REWARD),
            self._array("terminated", terminated, _END),
            self._array("truncated", truncated, _END),
            self._named("observation", observation, self._schema.observation),
            None if mask is None else self._array("mask", mask, _END),
            None if step is None else self._named("step", step, self._schema.step),
        )

    def _named(self, kind: str, given: Any, fields: Mapping[str, Field]) -> Any:
        """Arrays by name, those that are in the schema as it says; `given` itself where it is that already."""
        parts = by_name(kind, given, *fields if len(fields) == 1 else ())
        named = {
            name: self._array(f"{kind} {name!r}", part, fields[name]) if name in fields else part
            for name, part in parts.items()
        }
        if type(given) is not dict:
            return named
        before = of_type("dict[Any, Any]", given)
        same = named.keys() == before.keys() and all(named[name] is before[name] for name in named)
        return before if same else named

    def _array(self, name: str, value: Any, field: Field) -> np.ndarray:
        return cast_array(name, value, field.dtype, (self._environments, *field.shape))


def _advise(error: Exception, arguments: tuple[Any, ...], cast: Callable[..., tuple[Any, ...]]) -> None:
    """Let an error about arrays say that `cast=True` would take them, where it would."""
    try:
        changed = any(now is not before for now, before in zip(cast(*arguments), arguments, strict=True))
    except (TypeError, ValueError):
        return
    if changed:
        error.args = (f"{error}; cast=True converts it",)
