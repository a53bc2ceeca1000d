"""Objectives: the losses of one batch, and the statistics that come with them (docs/method.md).

Critic and actor are chosen on their own. An independent critic classifies returns, a dependent one regresses them; an
independent actor imitates the stored actions whose advantage passes the filter, a dependent one maximises Q by
the reparametrised policy gradient.
Independent losses do not depend on the scale of the return.
"""

import twohot.extras.needs_gymnasium  # noqa: F401
from twohot.learning.objective import Losses, check_objective, compute_losses
from twohot.learning.statistics import mixed_statistics, statistics, update_norms

__all__ = ["Losses", "check_objective", "compute_losses", "mixed_statistics", "statistics", "update_norms"]
