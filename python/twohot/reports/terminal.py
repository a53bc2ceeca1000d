"""Tables on a terminal, which no name and no number is cut in, however narrow it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twohot.text import printable

if TYPE_CHECKING:
    from rich.console import Console

PROSE = 60
"""Columns that a cell of text takes at most, before it is wrapped."""


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: Sequence[int] = (0,),
    *,
    styles: Sequence[str] = (),
    title: str = "",
) -> None:
    """Print a table: with lines where there is room, else without, else in wrapped cells, else a block for each row.

    Args:
        console: where to print; what is no terminal has room.
        headings: one for each column. rows: cells.
        text_columns: indices of the columns that are not set as numbers; the first column is never wrapped.
        styles: of each row, as rich names them. title: above the table.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(headings, *cells, strict=True))
    most = [max(map(cell_len, column)) for column in columns]
    most = [min(width, PROSE) if 0 < index in text_columns else width for index, width in enumerate(most)]
    words = [[cell_len(word) for cell in column for word in re.findall(r"± \S+|\S+", cell)] for column in columns]
    least = [most[0], *(max(lengths, default=0) for lengths in words[1:])]
    if title:
        console.print(Text(printable(title)), soft_wrap=True)
    for lines, padding, smallest in (
        (box.HEAVY_HEAD, 1, most),
        (box.SIMPLE_HEAD, 0, most),
        (box.SIMPLE_HEAD, 0, least),
    ):
        room = console.width - (len(most) + 1 if padding else len(most) - 1) - 2 * padding * len(most)
        if console.is_terminal and sum(smallest) > room:
            continue
        widths = [max(pair) for pair in zip(most, least, strict=True)]
        while console.is_terminal and sum(widths) > room:  # the one that has most to spare gives
            spare = [width - least_ for width, least_ in zip(widths, least, strict=True)]
            widths[spare.index(max(spare))] -= 1
        table = Table(box=lines, padding=(0, padding), show_edge=padding > 0)
        for index, (heading, width) in enumerate(zip(headings, widths, strict=True)):
            table.add_column(heading, justify="left" if index in text_columns else "right", width=width)
        for index, row in enumerate(cells):
            table.add_row(*map(Text, row), style=styles[index] if styles else None)
        before, console.width = console.width, max(console.width, sum(widths) + console.width - room)
        console.print(table)
        console.width = before
        return
    for row in cells:
        console.print(Text(row[0], style="bold"), soft_wrap=True)
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            console.print(Text(f"  {heading}: {cell}"), soft_wrap=True)
