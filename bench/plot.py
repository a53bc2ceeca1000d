"""Draw bench/results/<group>.csv as bench/results/<group>.svg: medians as bars, p20 to p80 as whiskers.

python bench/plot.py rollout learner
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parent / "results"


def plot(name: str) -> Path:
    """One panel for each unit in the results of a group."""
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] != "failed"]
    if not rows:
        sys.exit(f"{name}: no figure to draw, for every case failed")
    units = list(dict.fromkeys(row["unit"] for row in rows))
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    panels = figure.subplots(
        len(units), 1, squeeze=False, height_ratios=[sum(r["unit"] == u for r in rows) for u in units]
    )
    for panel, unit in zip(panels[:, 0], units, strict=True):
        mine = [row for row in rows if row["unit"] == unit][::-1]
        middle = [float(row["p50"]) for row in mine]
        below = [m - float(row["p20"]) for m, row in zip(middle, mine, strict=True)]
        above = [float(row["p80"]) - m for m, row in zip(middle, mine, strict=True)]
        panel.barh([row["provider"] for row in mine], middle, xerr=[below, above], color="#4477aa", height=0.6)
        panel.set_xlabel(unit)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}: {rows[0]['cpu']}, {rows[0]['threads']} thread(s)", fontsize=10)
    output = RESULTS / f"{name}.svg"
    figure.savefig(output)
    return output


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for group in sys.argv[1:]:
        print(plot(group))
