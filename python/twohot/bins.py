"""Value supports: which numbers the bins of a categorical value stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from twohot.errors import TwohotError
from twohot.kernels.two_hot import reference

Transform = Literal["symlog", "linear", "signed_sqrt"]
Readout = Literal["transformed", "raw"]
Labels = Literal["transformed", "raw"]


class BinsError(TwohotError):
    """A value support that cannot be.

    No ValueError: tyro, which builds supports from a command line, would catch one and print it in its own words.
    """


@dataclass(frozen=True)
class ValueBins:
    """The support of a categorical value: `count` bins evenly spaced between `low` and `high` after `transform`.

    Args:
        low: the lowest representable value, in units of the (multiplied) return.
        high: the highest representable value; must exceed `low`.
        count: number of bins N, at least 2.
        transform: space in which the bins are even: "symlog", "linear" or "signed_sqrt".
        readout: "transformed" reads a value as f^-1(sum p b) (AMAGO-2, TD-MPC2, DreamerV3 of 2023), "raw" as
            sum p f^-1(b) (DreamerV3 of 2024, C51).
        labels: two-hot labels interpolate f(y) between centers b ("transformed"), or y between values f^-1(b) ("raw",
            DreamerV3 of 2024): what a label reads as, by the readout of the same name, is the target. HL-Gauss labels
            are always those of f(y).

    Raises:
        BinsError: when the support is empty, not finite, or has fewer than 2 bins.
    """

    low: float = -100_000.0
    high: float = 100_000.0
    count: int = 128
    transform: Transform = "symlog"
    readout: Readout = "transformed"
    labels: Labels = "transformed"

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 2:
            raise BinsError(f"ValueBins.count: expected an integer of at least 2 bins, got {self.count!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise BinsError(f"ValueBins: expected finite low < high, got low={self.low!r}, high={self.high!r}")
        if self.transform not in reference.TRANSFORMS:
            raise BinsError(
                f"ValueBins.transform: expected one of {sorted(reference.TRANSFORMS)}, got {self.transform!r}"
            )
        if max(abs(self.low), abs(self.high)) > torch.finfo(torch.float32).max:
            raise BinsError(f"ValueBins: expected ends that float32 holds, got low={self.low!r}, high={self.high!r}")
        first, last = self.transformed_ends
        if not first < last or (self.count - 1) / (last - first) > torch.finfo(torch.float32).max:
            raise BinsError(f"ValueBins: low={self.low!r} and high={self.high!r} are the same after {self.transform}")
        if self.readout not in ("transformed", "raw"):
            raise BinsError(f"ValueBins.readout: expected 'transformed' or 'raw', got {self.readout!r}")
        if self.labels not in ("transformed", "raw"):
            raise BinsError(f"ValueBins.labels: expected 'transformed' or 'raw', got {self.labels!r}")

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
        end = float(reference.inverse_signed_sqrt(torch.tensor(300.0, dtype=torch.float64)))
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
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BinsError(f"ValueBins.from_edges: expected finite low < high, got low={low!r}, high={high!r}")
        if transform not in reference.TRANSFORMS:
            raise BinsError(f"ValueBins.from_edges: expected one of {sorted(reference.TRANSFORMS)}, got {transform!r}")
        if not isinstance(count, int) or count < 2:
            raise BinsError(f"ValueBins.from_edges: expected an integer of at least 2 bins, got {count!r}")
        forward, inverse = reference.TRANSFORMS[transform]
        first, last = forward(torch.tensor([low, high], dtype=torch.float64)).tolist()
        half = (last - first) / count / 2
        ends = inverse(torch.tensor([first + half, last - half], dtype=torch.float64))
        return cls(float(ends[0]), float(ends[1]), count, transform, readout)

    @cached_property
    def transformed_ends(self) -> tuple[float, float]:
        """(f(low), f(high)): the first and the last bin center in transformed space."""
        forward, _ = reference.TRANSFORMS[self.transform]
        ends = forward(torch.tensor([self.low, self.high], dtype=torch.float64))
        return float(ends[0]), float(ends[1])

    def centers(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] bin centers in transformed space, ascending."""
        return reference.bin_centers(*self.transformed_ends, self.count, dtype=dtype, device=device)

    def values(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """[N] the value that each bin stands for, in units of the return, ascending."""
        return reference.bin_values(*self.transformed_ends, self.count, self.transform, dtype=dtype, device=device)

    @property
    def support(self) -> tuple[float, float, str, bool]:
        """(f(low), f(high), transform, whether the readout is raw): what the operations take."""
        return *self.transformed_ends, self.transform, self.readout == "raw"

    @property
    def two_hot_sigma(self) -> float:
        """The `sigma` of two-hot labels on these bins, as the operations take it. Linear bins are their own values."""
        return reference.RAW_LABELS if self.labels == "raw" and self.transform != "linear" else 0.0
