"""Tables on terminals of every width: names stay whole, and so does every number."""

import io

import pytest
from rich.console import Console

from twohot.reports.terminal import PROSE, print_table

NAMES = ["PositionOnlyCartPoleEasy", "gym:Pendulum-v1", "迷路の中で鍵を探す"]
HEADINGS = ["task", "agent", "difference", "what it is"]
ABOUT = "an environment about which a sentence has more to say than a line of a terminal can hold, and then some"
ROWS = [[name, "0.0738 ± 0.0083", "1,234.5 (0.25 to 0.75)", ABOUT] for name in NAMES]


def printed(width, terminal=True, rows=ROWS):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_table(console, HEADINGS, rows, (0, 3), title=" ".join(NAMES))
    assert console.width == width
    return console.file.getvalue().removeprefix(" ".join(NAMES)).splitlines()


@pytest.mark.parametrize("width", [200, 140, 100, 80, 70, 55, 30, 12])
def test_nothing_is_cut_at_any_width(width):
    lines = printed(width)
    text = "\n".join(lines)
    assert all(name in text for name in NAMES)
    assert all(heading in text for heading in HEADINGS[1:3])
    assert "…" not in text
    for number in ("0.0738", "0.0083", "1,234.5", "0.25", "0.75"):
        assert text.count(number) >= len(NAMES)
    assert all(word in text for word in ABOUT.split())
    if width >= 70:
        assert max(map(len, lines)) <= width


def test_lines_are_left_out_before_cells_are_wrapped():
    rows = [[*row[:3], "short"] for row in ROWS]
    whole = printed(200, rows=rows)
    assert whole[1].startswith("┏")
    narrow = printed(len(whole[1]) - 1, rows=rows)
    assert not narrow[1].startswith("┏")
    assert "0.0738 ± 0.0083 1,234.5 (0.25 to 0.75) short" in "\n".join(narrow)


def test_what_is_no_terminal_has_room():
    lines = printed(20, terminal=False)
    assert lines[1].startswith("┏")
    assert all(f" {name} " in "\n".join(lines) for name in NAMES)
    assert PROSE < max(map(len, lines)) < 200
