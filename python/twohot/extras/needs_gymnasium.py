"""Imported by packages that import gymnasium, before they do: where it is missing, a sentence says what brings it."""

from twohot.extras import require

require("gymnasium")
