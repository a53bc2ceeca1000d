"""What is said of observations, rewards and environments that do not fit an agent."""

from __future__ import annotations

from twohot.errors import TwohotError


class ActingError(TwohotError, ValueError):
    """An observation, reward or mask that does not fit; the message says what was expected. The memory is as it was."""


class UnsaidTaskError(ActingError):
    """The agent's tasks count rewards differently, and none is named."""
