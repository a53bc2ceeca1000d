"""Batches of several domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twohot.replay import Batch


@dataclass(frozen=True)
class MixedBatch:
    """Windows of a mixed agent's domains, each in the columns of its own spaces; a domain may have none.

    Attributes:
        parts: by the name of the domain, at least one.
    """

    parts: dict[str, Batch]

    def to(self, device: Any) -> MixedBatch:
        """The batch on a torch device; see `Batch.to`."""
        return MixedBatch({name: batch.to(device) for name, batch in self.parts.items()})
