"""The parts of a report that know nothing of runs: the document, its style, figures and tables; tables in Markdown.

Sentences, titles and labels are text and are escaped here; the contents of sections, panels and cells are HTML already.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

from twohot.reports.palette import SHAPES
from twohot.reports.style import SCRIPT, STYLE
from twohot.text import printable


def document(
    name: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[tuple[str, str]],
    kind: str = "twohot training report",
    summary: str = "",
) -> str:
    """A whole page that loads nothing: a header of labelled facts, then titled sections.

    Its one script shows values under a pointer; the page forbids all others, and says the same without.

    Args:
        name: what the page is about.
        facts: label and value of what the header states.
        sections: title and HTML content.
        kind: what sort of page it is. summary: a sentence below the name.
    """
    name = escape(name)
    about = f'<p class="summary">{escape(summary)}</p>\n' if summary else ""
    entries = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts)
    body = "\n".join(f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" for title, content in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_digest(SCRIPT)}'\">\n"
        f"<title>{name} · twohot</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{_marks()}\n<main>\n"
        f'<header>\n<p class="kicker">{escape(kind)}</p>\n<h1>{name}</h1>\n{about}<dl class="facts">{entries}</dl>\n'
        f"</header>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _marks() -> str:
    """What the marks of all plots refer to."""
    paths = "".join(f'<path id="mark{index}" d="{path}"/>' for index, path in enumerate(SHAPES.values()))
    return f'<svg class="marks" aria-hidden="true" width="0" height="0"><defs>{paths}</defs></svg>'


def escape(text: object) -> str:
    """Text as HTML, inside an element or a quoted attribute."""
    return html.escape(printable(text), quote=True)


def breakable(name: object) -> str:
    """A name as HTML that a line may break between its words: `PositionOnly|CartPole`, `two_|hot`, `ALE/|Pong-|v5`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_/:-])(?=\w)|(?<=\.)(?=[A-Za-z])", "<wbr>", escape(name))


def missing(sentence: str) -> str:
    """A sentence in the place of what the run has not logged."""
    return f'<p class="missing">{escape(sentence)}</p>'


def figure(
    panels: Sequence[tuple[str, str]],
    caption: str,
    keys: Sequence[tuple[str, str, str]] = (),
    columns: int | None = None,
) -> str:
    """Titled panels in a grid, with a key above and a caption below.

    Args:
        panels: title, which may be empty, and SVG of each panel.
        caption: what the panels show and how to read it.
        keys: label, colour (a name of the palette) and CSS line style of each kind of line.
        columns: how many panels stand side by side; by default as `side_by_side` says.
    """
    key = "".join(
        f'<span><i style="border-top:3px {style} var(--{colour})"></i>{escape(label)}</span>'
        for label, colour, style in keys
    )
    cards = "".join(
        f'<div class="panel">{f"<h3>{breakable(title)}</h3>" if title else ""}{svg}</div>\n' for title, svg in panels
    )
    return (
        f"<figure>\n{f'<p class=key>{key}</p>' if key else ''}"
        f'<div class="panels c{columns or side_by_side(len(panels))}">\n'
        f"{cards}</div>\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def side_by_side(panels: int) -> int:
    """How many of so many panels stand side by side, from 1 to 4: such that few places stay empty."""
    return 3 if panels in (5, 6, 9) else min(max(panels, 1), 4)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,), style: str = "wide"
) -> str:
    """A table that scrolls where it is too wide.

    Args:
        headings: one for each column.
        rows: cells, which are HTML already.
        text_columns: indices of the columns that are not set as numbers.
        style: `wide` fills the page, `narrow` is as wide as its cells.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}>{cell}</{tag}>" if index in text_columns else f'<{tag} class="number">{cell}</{tag}>'
            for index, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    head = line([escape(heading) for heading in headings], "th")
    return (
        f'<div class="scroll"><table class="{style}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, first column left, the others right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows)]
