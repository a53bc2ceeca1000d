"""Experience: rollouts, recorded data, and what a run learns from."""

import twohot.extras.needs_gymnasium  # noqa: F401
