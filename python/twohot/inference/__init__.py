"""A trained agent: acting, in one's own world too, as a program, on the Hub, and its values of trajectories."""

from twohot.extras import TRAIN, require

require(*TRAIN)

from twohot.inference import mixed_agent as _mixed_agent  # noqa: E402, F401  what `Agent` is of several domains
