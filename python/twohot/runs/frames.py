"""Rows as a pandas DataFrame, where pandas is installed; nothing else needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from twohot.extras import MissingExtraError, here

if TYPE_CHECKING:
    import pandas


def data_frame(rows: Iterable[Sequence[object]], columns: Sequence[str]) -> pandas.DataFrame:
    """A frame of rows, with a name for each of their entries; None is what pandas takes for missing.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        install = here("pip install 'twohot[pandas]'")
        raise MissingExtraError(f"a DataFrame needs pandas, which is not installed: {install}") from error
    return pandas.DataFrame(list(rows), columns=list(columns))
