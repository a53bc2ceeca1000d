"""What the columns of a trajectory are."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from twohot.replay.spaces import column, observation_columns

if TYPE_CHECKING:
    from gymnasium import Space

DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16"),
    *("float16", "float32", "float64", "uint32", "uint64"),
)
COMPRESSIONS = ("", "lz4", "zstd")
MAX_EXTENT = 2**32
STEP_COLUMNS = ("action", "reward", "terminated", "truncated")
"""The step columns of every trajectory."""

NativeField = tuple[str, str, list[int], bool, str]


@dataclass(frozen=True)
class Field:
    """The dtype (one of `DTYPES`, or numpy's of that name) and shape of one row of a column.

    Raises ValueError for any other. A NaN in a float column is an error where it enters, unless `nan` allows it. With
    `compression` ("lz4" or "zstd"), a column of observations or of the step fields is stored without loss in less
    memory, and takes longer to write and to sample; it needs the library of that name on the system.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    nan: bool = False
    compression: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        if type(self.nan) is not bool:
            raise ValueError(f"nan: expected True or False, got {self.nan!r}")
        if self.compression not in COMPRESSIONS:
            raise ValueError(
                f"compression: expected one of {', '.join(map(repr, COMPRESSIONS))}; got {self.compression!r}"
            )
        try:
            shape = tuple(operator.index(extent) for extent in self.shape)
        except TypeError:
            raise ValueError(f"shape: expected a tuple of integers, got {self.shape!r:.60}") from None
        if any(extent < 1 for extent in shape):
            raise ValueError(f"shape: expected extents of at least 1, got {shape}")
        if any(extent > MAX_EXTENT for extent in shape):
            raise ValueError(f"shape: expected rows of at most 2^32 bytes, got {shape!s:.60}")
        object.__setattr__(self, "shape", shape)


def _dtype_name(dtype: Any) -> str:
    name = dtype
    if _is_numpy(dtype):
        numpy_dtype: Any = np.dtype(dtype)
        name = numpy_dtype.name if numpy_dtype.isnative else numpy_dtype.str
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}; got {dtype!r}")
    return name


def _is_numpy(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic))


class Fields(Mapping[str, Field]):
    """Fields by name, which never change: hashable, and equal where names and fields are, in whatever order."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(frozenset(self._fields.items()))

    def __repr__(self) -> str:
        return repr(self._fields)


@dataclass(frozen=True)
class Schema:
    """The columns of a trajectory: named observations (T + 1 rows), an action and named step fields (T rows).

    Every trajectory also has `reward` float32, `terminated` and `truncated` bool (T rows each) and an int32 `task`, a
    label for logging. Fields go by their names: schemas that differ in their order alone are equal. A schema can be
    hashed, copied and pickled.

    Raises ValueError without observations, for a name that is no non-empty string of UTF-8 without a NUL, and for a
    step field named as one of those columns; TypeError for what is no `Field`.
    """

    observation: Mapping[str, Field]
    action: Field
    step: Mapping[str, Field] = field(default_factory=dict[str, Field])

    def __post_init__(self) -> None:
        for kind in ("observation", "step"):
            object.__setattr__(self, kind, _checked_fields(kind, getattr(self, kind)))
        _check_field("action", self.action)
        if not self.observation:
            raise ValueError("observation: expected at least one field, got none")
        for name in STEP_COLUMNS:
            if name in self.step:
                raise ValueError(f"step: every trajectory has '{name}' already")

    @classmethod
    def from_spaces(
        cls, observation_space: Space[Any], action_space: Space[Any], step: Mapping[str, Field] | None = None
    ) -> Schema:
        """The columns of an environment of gymnasium; those of a vector are its `single_..._space`.

        A Dict or Tuple of observations becomes columns whose names have slashes, "arm/camera" or "0"; an observation
        that is one array is the column "observation". Each has the dtype and the shape of its space: int64 for Discrete
        and MultiDiscrete, int8 for MultiBinary.

        Args:
            observation_space: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of those, nested.
            action_space: Box, Discrete, MultiDiscrete or MultiBinary. step: the step fields.

        Raises:
            TypeError: for what is no space. ValueError: for a space whose elements are no arrays of fixed shape.
        """
        columns = observation_columns(observation_space)
        observation = {name: _named_field(f"observation {name!r}", *found) for name, found in columns.items()}
        return cls(observation, _named_field("action", *column("action", action_space)), step or {})

    def native(self) -> tuple[list[NativeField], NativeField, list[NativeField]]:
        """The fields as native code takes them: (observation, action, step)."""

        def native(name: str, field: Field) -> NativeField:
            return name, field.dtype, list(field.shape), field.nan, field.compression

        def fields(named: Mapping[str, Field]) -> list[NativeField]:
            return [native(name, field) for name, field in named.items()]

        return fields(self.observation), native("action", self.action), fields(self.step)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes an equal schema."""
        return {
            "observation": {name: asdict(field) for name, field in self.observation.items()},
            "action": asdict(self.action),
            "step": {name: asdict(field) for name, field in self.step.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        """Raises KeyError, TypeError, AttributeError or ValueError for values that are none of `to_json`."""

        def fields(named: Mapping[str, Any]) -> dict[str, Field]:
            return {name: Field(**field) for name, field in named.items()}

        return cls(fields(values["observation"]), Field(**values["action"]), fields(values.get("step", {})))


def _named_field(name: str, dtype: str, shape: tuple[int, ...]) -> Field:
    try:
        return Field(dtype, shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _checked_fields(kind: str, named: object) -> Fields:
    if not isinstance(named, Mapping):
        raise TypeError(f"{kind}: expected a dict of Fields by name, got {named!r:.60}")
    fields = cast("Mapping[Any, Any]", named)
    for name, value in fields.items():
        if not isinstance(name, str) or not name or "\0" in name or not _is_text(name):
            raise ValueError(f"{kind}: expected non-empty strings as names, got {name!r:.60}")
        _check_field(f"{kind} {name!r:.60}", value)
    return Fields(fields)


def _check_field(name: str, value: Any) -> None:
    if not isinstance(value, Field):
        raise TypeError(f"{name}: expected a Field, such as Field('float32', (4,)); got {value!r:.60}")


def _is_text(name: str) -> bool:
    """Whether a string can be written as UTF-8, which lone surrogates cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
