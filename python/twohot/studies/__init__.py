"""Studies: settings of a preset compared over seeds, from a committed file; their raw results lie beside it."""

from twohot.studies.rows import to_frame

__all__ = ["to_frame"]
