"""What is wrong with an environment's spaces, observations and infos."""

from twohot.errors import TwohotError


class UnsupportedSpaceError(TwohotError, ValueError):
    """An observation or action space that no agent here can see or act in."""


class ObservationError(TwohotError, ValueError):
    """An observation that is not in the space that its environment declares."""


class ActionError(TwohotError, ValueError):
    """An action that is not in the space that was offered."""


class InfoError(TwohotError, ValueError):
    """An entry of an environment's info that cannot be understood."""
