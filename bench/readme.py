"""Write the tables of every group, the summary, and those of studies into the pages that show them.

What stands between <!-- table:NAME --> and <!-- end --> comes from bench/results/*.csv, what stands between
<!-- study:NAME --> and <!-- end --> from studies/NAME.toml and the rows beside it.

python -m bench.readme           # rewrite the pages
python -m bench.readme --check   # change nothing; exit 1 where a table is not what the results say
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench.groups import find_groups
from bench.harness.group import ROOT, Table
from bench.harness.measure import Record
from bench.harness.results import by_processor, processor, read
from bench.tables import cell, number, table
from twohot.errors import TwohotError
from twohot.studies.comparison import Measured
from twohot.studies.comparison_sources import comparison_of_study
from twohot.studies.comparison_tables import markdown

HEADLINES = (
    ("loss, value and gradient, 172,032 x 128 logits", "two-hot: loss, gradient, readout", "twohot"),
    ("a batch of 24 windows of 256 steps, vectors", "S1, B 24", "twohot in memory"),
    ("the same, images", "S2, B 24", "twohot in memory"),
    ("attention, 24 x 256 steps, both passes", "training: float32, 24 x 256 steps, 8 heads of 32", "twohot"),
    ("a policy's step with its memory, 16 actors", "whole cached step: 16 environments", "twohot"),
    ("a learner's step, 8 x 128 steps", "step: B 8 L 128 G 7 C 4, 6 actions", "twohot"),
    ("a learner's step, 24 x 256 steps", "step: B 24 L 256 G 7 C 4, 6 actions", "twohot"),
    ("collecting with 16 actors", "collecting, 16 actors, width 128 x 3", "twohot"),
)
"""What the README shows: its words, the case, and which provider is ours."""
OWN_FORMS = ("twohot", "copy", "C gather", "the products", "numpy", "plain PyTorch")
"""How the names of providers begin that no other library stands for: ours, limits, plain code in our lines."""


SIDE_BY_SIDE = (
    ("a learner's step: times faster in bfloat16", "float32, against our bfloat16"),
    ("a learner's step: time of the official code's", "time, against the official code"),
    ("a learner's step in bfloat16: time of the official code's in bfloat16", "bfloat16, against the official code's$"),
    ("a learner's step in bfloat16: time of the official code's in float32", "official code's float32"),
    ("a learner's step: peak memory of the official code's", "peak memory, against the official code"),
    ("the quickstart's step, ms", "quickstart's step"),
    ("acting alone, steps/s", "acting alone"),
    ("two-hot loss, gradient, readout: times faster in bfloat16", "two-hot: float32, against bfloat16"),
    ("one step of attention, float32: times reading the cache", "one step: float32.*against reading"),
    ("one step of attention, bfloat16: times reading the cache", "one step: bfloat16.*against reading"),
    ("attention over windows, float32: times faster than SDPA", "training: float32.*SDPA, against twohot"),
    ("attention over windows, bfloat16: times faster than SDPA", "training: bfloat16.*SDPA, against twohot"),
)
"""What is set side by side for each kind of processor: words, and the goals that they stand for."""
KINDS = ("avx512_bf16", "amx_bf16")
"""Kinds of processors that have a column, measured or not."""
GROUPS = ("losses", "replay", "attention", "learner", "rollout", "environments")
"""Whose results the README sums up."""


def summary(records: list[Record]) -> list[str]:
    """What each part takes beside the official code and beside the best of the others, and how many goals are met."""
    head = ["", "unit", "twohot", "official AMAGO", "best of the others"]
    body = []
    for words, case, name in HEADLINES:
        own = {
            row["provider"]: row
            for row in records
            if row["case"] == case and row["unit"] and row["mode"] != "as is" and row["threads"] == "2"
        }
        if name not in own:
            continue
        best = max if own[name]["unit"].endswith("/s") else min
        cells = []
        for official in (True, False):
            found = [row for at, row in own.items() if at.startswith("official") is official and not _ours(at)]
            cells.append(best(found, key=lambda row: float(row["p50"])) if found else None)
        official, other = cells
        named = "" if other is None else f"{cell(other, 'p50')} ({re.split(r', | [0-9]', other['provider'])[0]})"
        body.append([words, own[name]["unit"], cell(own[name], "p50"), cell(official or {}, "p50"), named])
    goals = []
    for name in GROUPS:
        rows = [row for row in by_processor(read(name))[processor(records[0])] if row["case"] == "goal"]
        met = sum(row["met"] == "yes" for row in rows)
        goals.append(f"[{name}](docs/results.md) {met} of {len(rows)}")
    return [
        *table(head, body),
        "",
        f"Medians on two threads of a shared CPU ({processor(records[0])}), huge pages for everybody; of steps/s, more "
        f"is better. Goals that were set beforehand and are met: {', '.join(goals)}.",
    ]


def side_by_side(records: list[Record]) -> list[str]:
    """Goals of all kinds of processors in one table: the least and the largest figure, and how many are met."""
    kinds = list(dict.fromkeys([*KINDS, *(row["instructions"] for row in records)]))
    body = []
    for words, pattern in SIDE_BY_SIDE:
        found = [row for row in records if row["case"] == "goal" and re.search(pattern, row["provider"])]
        cells = []
        for kind in kinds:
            rows = [row for row in found if row["instructions"] == kind and row["met"] != "not measured"]
            rows = [row for row in rows if row["mode"] != "as is"]
            if not rows:
                cells.append("")
                continue
            values = sorted((row["p50"] for row in rows), key=float)
            spread = " to ".join(dict.fromkeys(number(value) for value in (values[0], values[-1])))
            asked = ", ".join(dict.fromkeys(row["target"] for row in rows))
            met = sum(row["met"] == "yes" for row in rows)
            cells.append(f"{spread} (asked {asked}: {met} of {len(rows)})")
        body.append([words, *cells])
    names = {row["instructions"]: row["cpu"] for row in records}
    head = ["", *(f"{names.get(kind, '')} {kind}".strip() for kind in kinds)]
    return [
        *table(head, body),
        "",
        "The least and the largest figure of all shapes, what was asked for, and how many of them are met. An empty "
        "cell: `python -m bench.run` has not measured it there.",
    ]


def _ours(provider: str) -> bool:
    return provider.startswith(OWN_FORMS)


def written(tables: list[Table]) -> dict[Path, str]:
    """The text of each page with its tables.

    Raises:
        SystemExit: a page has no place for one of its tables.
    """
    texts: dict[Path, str] = {}
    for each in tables:
        path = ROOT / each.page
        text = texts.get(path) or path.read_text()
        place = re.search(rf"<!-- table:{each.name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
        if not place:
            raise SystemExit(f"{each.page}: expected <!-- table:{each.name} --> ... <!-- end -->, got neither")
        start, end = place.span(1)
        texts[path] = text[:start] + "\n" + "\n".join(lines(each)) + "\n\n" + text[end:]
    return texts


def with_studies(texts: dict[Path, str]) -> dict[Path, str]:
    """The same pages, and all others, with the tables of the studies that they name.

    Raises:
        SystemExit: a page names a study that is not there, or is not in order.
    """
    result = dict(texts)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = texts.get(path) or path.read_text()
        try:
            result[path] = re.sub(r"(<!-- study:([^\s>]+) -->\n).*?(<!-- end -->)", _study, text, flags=re.DOTALL)
        except TwohotError as error:
            raise SystemExit(f"{path.name}: {error}") from error
    return result


def _study(place: re.Match[str]) -> str:
    path = ROOT / "studies" / f"{place[2]}.toml"
    found = markdown(Measured(comparison_of_study(path)))
    found[-1] += f" `twohot study run studies/{path.name}`."
    return f"{place[1]}\n" + "\n".join(found) + f"\n\n{place[3]}"


def lines(each: Table) -> list[str]:
    """The lines of a table, under the name of each processor where there are several."""
    records = [row for name in each.results for row in read(name)]
    if each.processors == "all":
        return each.write(records)
    parts = {name: written for name, rows in by_processor(records).items() if (written := each.write(rows))}
    if not parts:
        return ["Not measured yet: `python -m bench.run`."]
    first, *others = parts
    if each.processors == "first" or not others:
        return parts[first]
    found = [["On " + name + ":", "", *part] for name, part in parts.items()]
    return [line for part in found for line in (*part, "")][:-1]


def main() -> int:
    tables = [each for group in find_groups().values() for each in group.tables]
    own = (
        Table("summary", summary, GROUPS, "README.md", "first"),
        Table("processors", side_by_side, GROUPS, processors="all"),
    )
    texts = with_studies(written([*tables, *own]))
    changed = [path for path, text in texts.items() if path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in changed:
            print(f"{path.name}: a table is not what bench/results or studies say; run: make readme")
        return int(bool(changed))
    for path in changed:
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
