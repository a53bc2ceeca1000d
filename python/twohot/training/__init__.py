"""The training loop, and the evaluations in it."""

from twohot.extras import TRAIN, require

require(*TRAIN)
