"""The base of all errors that are meant for a user's eyes."""

import warnings


class TwohotError(Exception):
    """An error whose sentence says what was expected, what came and what to do; the command line prints it alone."""

    task: str
    """The task that the sentence names, where it names one."""


class NoRunError(TwohotError, FileNotFoundError):
    """A directory that holds no run, or none that has logged anything yet."""


class DamagedRunError(TwohotError, ValueError):
    """A file of a run directory that cannot be read as what it should be."""


class UsageError(TwohotError):
    """A command line that cannot be understood."""


class BrokenEnvironmentError(TwohotError, ValueError):
    """An environment that raised an exception, or gave what gymnasium's interface does not have."""


class CorruptReplayError(TwohotError, ValueError):
    """Files of a replay directory that are torn, changed or foreign."""


def __getattr__(name: str) -> type[CorruptReplayError]:
    if name != "DamagedReplayError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "DamagedReplayError is now CorruptReplayError; 0.3 drops the old name", DeprecationWarning, stacklevel=2
    )
    return CorruptReplayError
