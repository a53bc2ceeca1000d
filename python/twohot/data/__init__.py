"""Experience: rollouts, recorded data, and what a run learns from."""

from twohot import _gymnasium  # noqa: F401
