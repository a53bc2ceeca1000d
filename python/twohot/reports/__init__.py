"""A run as read from disk: its page, plots and tables."""

from twohot.extras import TRAIN, require

require(*TRAIN)
