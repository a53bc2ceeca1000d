"""Draw bench/results/<group>.csv as an SVG beside it, which git ignores: medians as bars, p20 to p80 as whiskers.

Of several processors, the one that was measured last is drawn.

python -m bench.plot rollout learner
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from bench.harness.results import RESULTS, by_processor, processor


def headline(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows to draw: of a comparison, those with the most threads and huge pages; of other groups, all."""
    comparison = [row for row in rows if row.get("speedup")]
    if not comparison:
        return [row for row in rows if row["mode"] != "failed" and row["case"] != "goal" and row["unit"]]
    threads = max(int(row["threads"]) for row in comparison)
    return [row for row in comparison if int(row["threads"]) == threads and row["mode"] == "huge pages"]


def plot(name: str) -> Path:
    """One panel for each unit in the results of a group; of a comparison, for each case, with multiples of twohot."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        sys.exit(f"{path}: no results; write them with: python -m bench.run {name}")
    with path.open(newline="") as file:
        *_, last = by_processor(list(csv.DictReader(file))).values()
    rows = headline(last)
    if not rows:
        sys.exit(f"{name}: no figure to draw, for every case failed")
    parts: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        key = f"{row['case']}, {row['unit']}" if row.get("speedup") else row["unit"]
        parts.setdefault(key, []).append(row)
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[len(mine) for mine in parts.values()])
    for panel, (title, part) in zip(panels[:, 0], parts.items(), strict=True):
        mine = part[::-1]
        middle = [float(row["p50"]) for row in mine]
        below = [m - float(row["p20"]) for m, row in zip(middle, mine, strict=True)]
        above = [float(row["p80"]) - m for m, row in zip(middle, mine, strict=True)]
        bars = panel.barh([row["provider"] for row in mine], middle, xerr=[below, above], color="#4477aa", height=0.6)
        if mine[0].get("speedup"):
            labels = [f"{float(row['speedup']):.2g} x" for row in mine]
            panel.bar_label(bars, labels=labels, padding=6, fontsize=8)
        panel.set_xlabel(title)
        panel.spines[["top", "right"]].set_visible(False)
    threads = " or ".join(sorted({row["threads"] for row in rows}))
    figure.suptitle(f"{name}: {processor(rows[0])}, {threads} thread(s)", fontsize=10)
    output = RESULTS / f"{name}.svg"
    figure.savefig(output)
    return output


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for group in sys.argv[1:]:
        print(plot(group))
