"""The base of all errors that are meant for a user's eyes."""

from twohot._moved import renamed_attributes

__all__ = ["BrokenEnvironmentError", "CorruptReplayError", "CorruptRunError", "NoRunError", "TwohotError", "UsageError"]


class TwohotError(Exception):
    """An error whose sentence says what was expected, what came and what to do; the command line prints it alone."""

    task: str
    """The task that the sentence names, where it names one."""


class NoRunError(TwohotError, FileNotFoundError):
    """A directory that holds no run, or none that has logged anything yet."""


class CorruptRunError(TwohotError, ValueError):
    """A file of a run directory that is torn, changed or foreign."""


class UsageError(TwohotError):
    """A command line that cannot be understood."""


class BrokenEnvironmentError(TwohotError, ValueError):
    """An environment that raised an exception, or gave what gymnasium's interface does not have."""


class CorruptReplayError(TwohotError, ValueError):
    """Files of a replay directory that are torn, changed or foreign."""


__getattr__ = renamed_attributes(__name__, DamagedReplayError="CorruptReplayError", DamagedRunError="CorruptRunError")
