"""A trained agent: acting, in one's own world too, as a program, on the Hub, and its values of trajectories."""

from twohot.extras import TRAIN, require

require(*TRAIN)
