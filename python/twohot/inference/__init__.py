"""A trained agent: acting, as an exported program, and its values of trajectories."""

from twohot.extras import TRAIN, require

require(*TRAIN)
