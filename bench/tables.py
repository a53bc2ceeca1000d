"""What the tables of the pages share: Markdown, numbers, and rows for comparisons and goals."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness.measure import Record
from bench.harness.results import processor
from twohot.reports.markup import markdown_table as table


def conditions(row: Record) -> str:
    """What the figures depend on, in one line."""
    return f"{processor(row)}, torch {row['torch']}, Python {row['python']}, commit {row['commit']}"


def goals_table(rows: list[Record]) -> list[str]:
    """What was asked for and what was measured, and how many goals are met."""
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    body, met = [], dict.fromkeys(modes, 0)
    for goal in dict.fromkeys(row["provider"] for row in rows):
        own = {row["mode"]: row for row in rows if row["provider"] == goal}
        cells = []
        for mode in modes:
            row = own[mode]
            met[mode] += row["met"] == "yes"
            measured = row["met"] != "not measured"
            cells += [f"{number(row['p50'])} {row['unit']}" if measured else "", row["met"]]
        first = next(iter(own.values()))
        body.append([goal, f"{first['target']} {first['unit']}", *cells])
    head = ["goal", "asked for", *(cell for mode in modes for cell in (mode, "met"))]
    count = "; ".join(f"{met[mode]} of {len(body)} {mode if mode == 'as is' else 'with ' + mode}" for mode in modes)
    return [*table(head, body), "", f"Met: {count}."]


def comparison_table(rows: list[Record]) -> list[str]:
    """Each provider's time on two threads with huge pages, on one thread, and without huge pages."""
    limit = next((row["limit"] for row in rows if row["limit"]), "")
    extra = any(row["extra_mb"] for row in rows)
    ours = any(row["speedup"] for row in rows)
    head = ["who", "2 threads", *["x twohot"] * ours, *[f"x {limit}"] * bool(limit)]
    head += ["1 thread", "no huge pages", *["x twohot"] * ours, *["extra MB"] * extra]
    body = []
    for provider in dict.fromkeys(row["provider"] for row in rows):
        own = {(row["mode"], row["threads"]): row for row in rows if row["provider"] == provider}
        main, single, plain = (own.get(key, {}) for key in (("huge pages", "2"), ("huge pages", "1"), ("as is", "2")))
        if not main:
            body.append([provider, next(iter(own))[0], *[""] * (len(head) - 2)])
            continue
        cells = [provider, cell(main, "p50"), *[cell(main, "speedup")] * ours]
        cells += [cell(main, "share_of_limit")] * bool(limit)
        cells += [cell(single, "p50"), cell(plain, "p50"), *[cell(plain, "speedup")] * ours]
        body.append([*cells, *[cell(main, "extra_mb")] * extra])
    return table(head, body)


def figure_row(row: Record) -> list[str]:
    """A row of any results file: what, median, percentiles, unit, and against what."""
    against = f"{float(row['share_of_limit']):.2g} x {row['limit']}" if row["share_of_limit"] else ""
    spread = f"{number(row['p20'])} to {number(row['p80'])}"
    return [f"{row['case']}: {row['provider']}", number(row["p50"]), spread, row["unit"], against]


def figures(*names: str) -> Callable[[list[Record]], list[str]]:
    """Median and percentiles of every row of some groups."""

    def write(records: list[Record]) -> list[str]:
        goals = [row for row in records if row["case"] == "goal"]
        records = [row for row in records if row["case"] != "goal" and row["unit"]]
        body = [figure_row(row) for row in records]
        head = ["what", "median", "p20 to p80", "unit", "against"]
        shapes = dict.fromkeys(f"{row['case']}: {row['shape']}" for row in records if row["shape"])
        about = "; ".join(dict.fromkeys(conditions(row) for row in records))
        threads = " or ".join(sorted({row["threads"] for row in records}))
        note = f"Threads of torch: {threads}. {'; '.join(shapes)}. {about}. `python -m bench.run {' '.join(names)}`."
        asked = ["Goals:", "", *goals_table(goals), ""] if goals else []
        return [*table(head, body), "", *asked, note]

    return write


def cell(row: Record, key: str) -> str:
    return number(row[key]) if row.get(key) else ""


def number(text: str) -> str:
    value = float(text)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
