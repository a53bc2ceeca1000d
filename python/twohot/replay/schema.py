"""What the columns of a trajectory are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16"),
    *("float16", "float32", "float64", "uint32", "uint64"),
)
COMPRESSIONS = ("", "lz4", "zstd")
STEP_COLUMNS = ("action", "reward", "terminated", "truncated")
"""The step columns of every trajectory."""


@dataclass(frozen=True)
class Field:
    """The dtype (one of `DTYPES`) and shape of one row of a column. Raises ValueError for any other.

    A NaN in a float column is an error where it enters, unless `nan` allows it. With `compression` ("lz4" or "zstd"), a
    column of observations or of the other step fields is stored without loss in less memory, and takes longer to write
    and to sample; it needs the library of that name on the system.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    nan: bool = False
    compression: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}; got {self.dtype!r}")
        if self.compression not in COMPRESSIONS:
            raise ValueError(
                f"compression: expected one of {', '.join(map(repr, COMPRESSIONS))}; got {self.compression!r}"
            )
        object.__setattr__(self, "shape", tuple(int(extent) for extent in self.shape))
        if any(extent < 1 for extent in self.shape):
            raise ValueError(f"shape: expected extents of at least 1, got {self.shape}")


@dataclass(frozen=True)
class Schema:
    """The columns of a trajectory: named observations (T + 1 rows), an action and other named step fields (T rows).

    Every trajectory also has `reward` float32, `terminated` and `truncated` bool (T rows each) and an int32 `task`, a
    label for logging. Raises ValueError without observations, for a name that is no non-empty string, and for a step
    field named as one of those columns.
    """

    observation: Mapping[str, Field]
    action: Field
    step: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.observation:
            raise ValueError("observation: expected at least one field, got none")
        for kind in ("observation", "step"):
            object.__setattr__(self, kind, MappingProxyType(dict(getattr(self, kind))))
            for name in getattr(self, kind):
                if not isinstance(name, str) or not name:
                    raise ValueError(f"{kind}: expected non-empty strings as names, got {name!r}")
        for name in STEP_COLUMNS:
            if name in self.step:
                raise ValueError(f"step: every trajectory has '{name}' already")

    def native(self) -> tuple[list, tuple, list]:
        """The fields as native code takes them: (observation, action, step)."""

        def fields(named: Mapping[str, Field]) -> list:
            return [
                (name, field.dtype, list(field.shape), field.nan, field.compression) for name, field in named.items()
            ]

        return fields(self.observation), fields({"action": self.action})[0], fields(self.step)

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
