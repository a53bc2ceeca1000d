"""Value supports: which numbers the bins of a categorical value stand for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from types import MethodType
from typing import Literal

import torch
from torch import Tensor

from twohot.errors import TwohotError
from twohot.kernels.two_hot import reference
from twohot.kernels.two_hot.reference import Labels, Support

Transform = Literal["symlog", "linear", "signed_sqrt"]
Readout = Literal["transformed", "raw"]
TwoHotLabels = Literal["transformed", "raw"]


class BinsError(TwohotError):
    """A value support that cannot be.

    No ValueError: tyro, which builds supports from a command line, would catch one and print it in its own words.
    """


def _odd(positive: Callable[[float], float]) -> Callable[[float], float]:
    """The odd function that is `positive` above 0."""
    return lambda x: math.copysign(positive(abs(x)), x)


def _signed_sqrt(x: float, epsilon: float = 1e-3) -> float:
    return x / (math.sqrt(x + 1) + 1) + epsilon * x


def _squared(x: float, epsilon: float = 1e-3) -> float:
    d = 2 * x / (math.sqrt(4 * epsilon * x + (1 + 4 * epsilon * (1 + epsilon))) + (1 + 2 * epsilon))
    return d * (d + 2)


TRANSFORMS = {
    "symlog": (_odd(math.log1p), _odd(math.expm1)),
    "signed_sqrt": (_odd(_signed_sqrt), _odd(_squared)),
    "linear": (float, float),
}
"""Those of `reference.TRANSFORMS`, and their inverses, of single numbers: no default device or mode of torch counts."""


MAX_FLOAT32 = 3.4e38
"""Of what float32 holds: a value that is read a rounding beyond an end is finite still."""


@dataclass(frozen=True)
class ValueBins:
    """The support of a categorical value: `count` bins evenly spaced between `low` and `high` after `transform`.

    Made of numbers alone, so it can be made under any default device, dtype or tensor mode, and files that hold one can
    be read by `torch.load` as it is, where this module was imported before.

    Args:
        low: the lowest representable value, in units of the (multiplied) return.
        high: the highest representable value; must exceed `low`.
        count: number of bins N, at least 2.
        transform: space in which the bins are even: "symlog", "linear" or "signed_sqrt".
        readout: "transformed" decodes a value as f^-1(sum p b) (AMAGO-2, TD-MPC2, DreamerV3 of 2023), "raw" as
            sum p f^-1(b) (DreamerV3 of 2024, C51).
        labels: two-hot labels interpolate f(y) between centers b ("transformed"), or y between values f^-1(b) ("raw",
            DreamerV3 of 2024): the readout of the same name decodes a label to its target. HL-Gauss labels
            are always those of f(y).

    Raises:
        BinsError: when the support is empty, not finite, or has fewer than 2 bins, and for a single number without a
            name, which would be `low` and not a count.
    """

    low: float = -100_000.0
    high: float = 100_000.0
    count: int = 128
    transform: Transform = "symlog"
    readout: Readout = "transformed"
    labels: TwoHotLabels = "transformed"

    def __new__(cls, *ends: float, **named: object) -> ValueBins:
        if len(ends) == 1 and "high" not in named:
            raise BinsError(
                f"ValueBins({ends[0]!r}): expected both ends, as in ValueBins(low, high, count), or one of the presets "
                "ValueBins.amago2(count), tdmpc2(), dreamerv3(), muzero(), c51(low, high, count)"
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", _count("ValueBins.count", self.count))
        low, high = _ends("ValueBins", self.low, self.high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        _require_transform("ValueBins.transform", self.transform)
        for name in ("readout", "labels"):
            if getattr(self, name) not in ("transformed", "raw"):
                raise BinsError(f"ValueBins.{name}: expected 'transformed' or 'raw', got {getattr(self, name)!r}")
        if max(abs(low), abs(high)) > MAX_FLOAT32:
            raise BinsError(f"ValueBins: expected ends that float32 holds, got low={low!r}, high={high!r}")
        first, last = self.transformed_ends
        if max(last - first, high - low if self.labels == "raw" else 0.0) > MAX_FLOAT32:
            raise BinsError(f"ValueBins: expected ends whose distance float32 holds, got low={low!r}, high={high!r}")
        if not first < last or (self.count - 1) / (last - first) > MAX_FLOAT32:
            raise BinsError(f"ValueBins: low={low!r} and high={high!r} are the same after {self.transform}")

    def __reduce__(self) -> tuple[type[ValueBins], tuple[float, float, int, Transform, Readout, TwoHotLabels]]:
        # What comes out of a file is checked as what comes from a program.
        return type(self), (self.low, self.high, self.count, self.transform, self.readout, self.labels)

    @classmethod
    def amago2(cls, count: int = 128) -> ValueBins:
        """AMAGO-2: symlog bins between the symlogs of -100 000 and 100 000."""
        return cls(-100_000.0, 100_000.0, count, "symlog", "transformed")

    @classmethod
    def tdmpc2(cls) -> ValueBins:
        """TD-MPC2: 101 bins evenly spaced from -10 to 10 in symlog space."""
        return cls(-math.expm1(10.0), math.expm1(10.0), 101, "symlog", "transformed")

    @classmethod
    def dreamerv3(cls, readout: Readout = "raw") -> ValueBins:
        """DreamerV3: 255 bins from -20 to 20 in symlog space; `readout` and labels "raw" since 2024, "transformed" in
        2023.
        """
        return cls(-math.expm1(20.0), math.expm1(20.0), 255, "symlog", readout, readout)

    @classmethod
    def muzero(cls) -> ValueBins:
        """MuZero: 601 bins from -300 to 300 in signed-square-root space."""
        end = _squared(300.0)
        return cls(-end, end, 601, "signed_sqrt", "transformed")

    @classmethod
    def c51(cls, low: float = -10.0, high: float = 10.0, count: int = 51) -> ValueBins:
        """C51: linear bins."""
        return cls(low, high, count, "linear", "raw")

    @classmethod
    def from_edges(
        cls, low: float, high: float, count: int, transform: Transform = "linear", readout: Readout = "transformed"
    ) -> ValueBins:
        """Bins that fill `low` .. `high`: their centers lie half a bin inside (the layout of the HL-Gauss papers)."""
        low, high = _ends("ValueBins.from_edges", low, high)
        _require_transform("ValueBins.from_edges", transform)
        count = _count("ValueBins.from_edges", count)
        forward, inverse = TRANSFORMS[transform]
        first, last = forward(low), forward(high)
        half = (last - first) / count / 2
        return cls(inverse(first + half), inverse(last - half), count, transform, readout)

    @cached_property
    def transformed_ends(self) -> tuple[float, float]:
        """(f(low), f(high)): the first and the last bin center in transformed space."""
        forward, _ = TRANSFORMS[self.transform]
        return forward(self.low), forward(self.high)

    def centers(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] bin centers in transformed space, ascending."""
        return reference.bin_centers(*self.transformed_ends, self.count, dtype=dtype, device=device)

    def values(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] the value that each bin stands for, in units of the return, ascending."""
        return reference.bin_values(*self.transformed_ends, self.count, self.transform, dtype=dtype, device=device)

    @property
    def support(self) -> Support:
        """(f(low), f(high), transform, readout): what the operations take."""
        return *self.transformed_ends, self.transform, self.readout

    @property
    def two_hot_labels(self) -> Labels:
        """The kind of two-hot labels on these bins, as the operations take it. Linear bins are their own values."""
        return "two_hot_raw" if self.labels == "raw" and self.transform != "linear" else "two_hot"


# That of the fields, which `__new__` would hide.
_signature = inspect.signature(MethodType(ValueBins.__init__, ValueBins))
ValueBins.__signature__ = _signature  # pyright: ignore[reportAttributeAccessIssue]  # what `inspect` looks for
torch.serialization.add_safe_globals([ValueBins])  # pyright: ignore[reportUnknownMemberType]  # torch names no type


def _count(name: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 2:
        raise BinsError(f"{name}: expected an integer of at least 2 bins, got {count!r}")
    return int(count)


def _ends(name: str, low: float, high: float) -> tuple[float, float]:
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, Real):
            raise BinsError(f"{name}: expected numbers as low and high, got low={low!r}, high={high!r}")
    try:
        first, last = float(low), float(high)
    except OverflowError:  # of an integer
        first, last = math.nan, math.nan
    if not -math.inf < first < last < math.inf:
        raise BinsError(f"{name}: expected finite low < high, got low={low!r}, high={high!r}")
    return first, last


def _require_transform(name: str, transform: object) -> None:
    if not isinstance(transform, str) or transform not in TRANSFORMS:
        raise BinsError(f"{name}: expected one of {sorted(TRANSFORMS)}, got {transform!r}")
