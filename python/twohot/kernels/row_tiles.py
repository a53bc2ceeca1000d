"""Tiles of rows that go through several operations while they are in the cache."""

from __future__ import annotations

from collections.abc import Iterator


def tile_size(rows: int, tiles: int) -> int:
    """Rows of each of about `tiles` tiles, at least 1, such that all are about as large."""
    return max(-(-rows // max(tiles, 1)), 1)


def row_tiles(rows: int, size: int) -> Iterator[slice]:
    """The tiles of `size` rows, of which the last may have fewer."""
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))
