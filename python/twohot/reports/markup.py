"""The parts of a report that know nothing of runs: the document, its style, figures and tables; tables in Markdown.

Sentences, titles and labels are text and are escaped here; the contents of sections, panels and cells are HTML already.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from twohot.text import printable


def document(
    name: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[tuple[str, str]],
    kind: str = "twohot training report",
    summary: str = "",
) -> str:
    """A whole page that loads nothing: a header of labelled facts, then titled sections.

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
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{name} · twohot</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<p class="kicker">{escape(kind)}</p>\n<h1>{name}</h1>\n{about}<dl class="facts">{entries}</dl>\n'
        f"</header>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escape(text: object) -> str:
    """Text as HTML, inside an element or a quoted attribute."""
    return html.escape(printable(text), quote=True)


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
        keys: label, colour and CSS line style of each kind of line.
        columns: how many panels stand side by side; by default as `side_by_side` says.
    """
    key = "".join(
        f'<span><i style="border-top:3px {style} {colour}"></i>{escape(label)}</span>' for label, colour, style in keys
    )
    cards = "".join(
        f'<div class="panel">{f"<h3>{escape(title)}</h3>" if title else ""}{svg}</div>\n' for title, svg in panels
    )
    return (
        f"<figure>\n{f'<p class=key>{key}</p>' if key else ''}"
        f'<div class="panels c{columns or side_by_side(len(panels))}">\n'
        f"{cards}</div>\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def side_by_side(panels: int) -> int:
    """How many of `count` panels stand side by side, from 1 to 4."""
    return min(max(panels, 1), 4)


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


STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --ink: #1d232c; --soft: #5d6673; --rule: #dde1e7; --card: #fff;
  --yes: #0b5fa5; --yes-back: #e3eef8; --no: #5d6673; --no-back: #eceef1; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e9ee; --soft: #9aa4b2; --rule: #2d333d;
  --yes: #9ecbf2; --yes-back: #14324d; --no: #aab3bf; --no-back: #262c35; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
.kicker { margin: 0; color: var(--soft); font-size: 13px; }
h1 { margin: 2px 0 20px; font-size: 30px; line-height: 1.2; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 19px; font-weight: 650; }
section { margin-top: 44px; padding-top: 22px; border-top: 1px solid var(--rule); }
.summary { margin: -10px 0 22px; }
p { max-width: 75ch; margin: 0 0 14px; }
.facts { display: flex; flex-wrap: wrap; gap: 14px 36px; margin: 0; }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; font-size: 17px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.note, figcaption { color: var(--soft); font-size: 13.5px; }
.note { margin: 8px 0 22px; }
.missing { color: var(--soft); font-style: italic; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { color: var(--soft); font-weight: 500; font-size: 12.5px; text-align: left; vertical-align: bottom; }
th, td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
.wide { width: 100%; }
.narrow th, .narrow td { padding-right: 30px; }
td:first-child { min-width: 16ch; overflow-wrap: anywhere; }
td:first-child code { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
small { display: inline-block; min-width: 5ch; color: var(--soft); font-size: 12px; }
.stacked small { display: block; white-space: normal; }
.stacked td:first-child { min-width: 24ch; }
.stacked td:last-child:not(.number) { max-width: 30ch; }
.yes, .no { display: inline-block; padding: 0 9px; border-radius: 9px; font-size: 12.5px; white-space: nowrap; }
.yes { color: var(--yes); background: var(--yes-back); }
.no { color: var(--no); background: var(--no-back); }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
figure { margin: 0 0 26px; }
figcaption { max-width: 90ch; margin-top: 10px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 22px; max-width: none; margin-bottom: 10px; font-size: 13px; }
.key i { display: inline-block; width: 24px; margin-right: 8px; vertical-align: middle; }
.panels { display: grid; gap: 12px; grid-template-columns: 1fr; }
.c2 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.c3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.c4 { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.panel { padding: 10px 10px 6px; background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  color: #1d232c; min-width: 0; break-inside: avoid; display: flex; flex-direction: column;
  justify-content: space-between; }
.panel h3 { margin: 0 4px 4px; font-size: 13px; font-weight: 600; overflow-wrap: anywhere; }
.panel svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
.panel svg text { font-variant-numeric: tabular-nums; }
details summary { cursor: pointer; margin-bottom: 8px; }
@media (max-width: 760px) { main { padding: 28px 16px 48px; }
  .c3, .c4 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .c1 .panel { overflow-x: auto; } .c1 svg { min-width: 620px; } }
@media (max-width: 460px) { .c2, .c3, .c4 { grid-template-columns: minmax(0, 1fr); } }
"""
