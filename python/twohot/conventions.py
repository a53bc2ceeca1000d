"""Names in observations that mean something to an agent."""

from __future__ import annotations

from typing import Literal

OBSERVATION = "observation"
"""Name of an observation that is no Dict, where other tasks or context features make one of it."""
ACTION_MASK = "action_mask"
"""Name of the part of an observation that says which actions are legal."""


def convention(name: str) -> Literal["grid", "tokens", "action_mask", ""]:
    """What the name of a part of an observation means; of a nested one, "a/b", the last word counts."""
    last = name.rpartition("/")[2]
    if last == ACTION_MASK:
        return "action_mask"
    return "grid" if last.startswith("grid") else "tokens" if last.startswith("tokens") else ""
