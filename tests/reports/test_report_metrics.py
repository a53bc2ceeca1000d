"""Every metric that is defined is drawn somewhere on the page."""

from twohot.reports import figures
from twohot.reports.markup import escape
from twohot.reports.page import page
from twohot.reports.results import Run
from twohot.runs.metrics import METRICS, Row

NAMES = {
    "{task}": ("maze", "bandit"),
    "{attempt}": ("1", "2"),
    "{part}": ("actor", "critics"),
    "{discount}": ("0.9", "0.99"),
}


def concrete(pattern):
    found = [pattern]
    for placeholder, values in NAMES.items():
        found = [name.replace(placeholder, value) for name in found for value in values]
    return list(dict.fromkeys(found))


def values(pattern, epoch):
    """Numbers of a pattern's metrics; bins of a histogram."""
    if METRICS[pattern].plot in ("histogram", "histogram axis"):
        return dict.fromkeys(
            concrete(pattern), [0.1, 0.2, 0.4, 0.3] if METRICS[pattern].plot == "histogram" else [-1, 0, 1, 2]
        )
    return {name: 0.1 + (epoch + index) / 20 for index, name in enumerate(concrete(pattern))}


def run_with(patterns):
    rows = []
    for epoch in range(1, 4):
        found = {name: value for pattern in patterns for name, value in values(pattern, epoch).items()}
        rows.append(Row("update", 1000 * epoch, 10 * epoch, 60.0 * epoch, found))
    return Run(rows, "run")


def drawn(patterns):
    """The page without its last section, which lists what was logged."""
    text = page(run_with(patterns))
    return text[: text.index("<h2>What each quantity means</h2>")]


def test_every_metric_is_drawn(monkeypatch):
    for name in ("curves", "bins", "fractions"):
        monkeypatch.setattr(figures, name, lambda *what, **how: escape(f"{what}"))
    whole = drawn(METRICS)
    assert [pattern for pattern in METRICS if drawn([other for other in METRICS if other != pattern]) == whole] == []
