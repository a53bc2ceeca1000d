"""Rows as a pandas DataFrame, where pandas is installed; nothing else needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from twohot.errors import TwohotError

if TYPE_CHECKING:
    import pandas


class MissingPandasError(TwohotError, ImportError):
    """A DataFrame was asked for without pandas."""


def data_frame(rows: Iterable[Sequence[object]], columns: Sequence[str]) -> pandas.DataFrame:
    """A frame of rows, with a name for each of their entries; None is what pandas takes for missing.

    Raises:
        MissingPandasError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPandasError("a DataFrame needs pandas, which is not installed: pip install pandas") from error
    return pandas.DataFrame(list(rows), columns=list(columns))
