"""Write the tables of every group, and the summary, into the pages that show them, from bench/results/*.csv.

python -m bench.readme           # rewrite what stands between <!-- table:NAME --> and <!-- end -->
python -m bench.readme --check   # change nothing; exit 1 where a table is not what the results say
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench.groups import find_groups
from bench.harness.group import ROOT, Table
from bench.harness.results import read
from bench.tables import cell, table

HEADLINES = (
    ("loss, value and gradient, 172,032 x 128 logits", "losses", "two-hot: loss, gradient, readout", "twohot"),
    ("a batch of 24 windows of 256 steps, vectors", "replay", "S1, B 24", "twohot in memory"),
    ("the same, images", "replay", "S2, B 24", "twohot in memory"),
    (
        "attention, 24 x 256 steps, both passes",
        "attention",
        "training: float32, 24 x 256 steps, 8 heads of 32",
        "twohot",
    ),
    ("a policy's step with its memory, 16 actors", "attention", "whole cached step: 16 environments", "twohot"),
    ("a learner's step, 8 x 128 steps", "learner", "step: B 8 L 128 G 7 C 4, 6 actions", "twohot"),
    ("a learner's step, 24 x 256 steps", "learner", "step: B 24 L 256 G 7 C 4, 6 actions", "twohot"),
    ("collecting with 16 actors", "rollout", "collecting, 16 actors, width 128 x 3", "twohot"),
)
"""What the README shows: its words, the group, the case, and which provider is ours."""
OWN_FORMS = ("twohot", "copy", "C gather", "the products", "numpy", "plain PyTorch")
"""How the names of providers begin that no other library stands for: ours, limits, plain code in our lines."""


def summary() -> list[str]:
    """What each part takes beside the official code and beside the best of the others, and how many goals are met."""
    head = ["", "unit", "twohot", "official AMAGO", "best of the others"]
    body = []
    for words, group, case, name in HEADLINES:
        own = {
            row["provider"]: row
            for row in read(group)
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
    for name in ("losses", "replay", "attention", "learner", "rollout", "environments"):
        rows = [row for row in read(name) if row["case"] == "goal"]
        met = sum(row["met"] == "yes" for row in rows)
        goals.append(f"[{name}](docs/results.md) {met} of {len(rows)}")
    return [
        *table(head, body),
        "",
        "Medians on two threads of a shared CPU, huge pages for everybody; of steps/s, more is better. Goals that were "
        f"set beforehand and are met: {', '.join(goals)}.",
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
        texts[path] = text[:start] + "\n" + "\n".join(each.write()) + "\n\n" + text[end:]
    return texts


def main() -> int:
    tables = [each for group in find_groups().values() for each in group.tables]
    texts = written([*tables, Table("summary", summary, page="README.md")])
    changed = [path for path, text in texts.items() if path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in changed:
            print(f"{path.name}: a table is not what bench/results says; run: make readme")
        return int(bool(changed))
    for path in changed:
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
