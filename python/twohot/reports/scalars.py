"""Sections of plain curves: whatever metrics name the section, a panel a task or a line a part."""

from __future__ import annotations

from collections.abc import Iterable

from twohot.reports import figures
from twohot.reports.figures import Line
from twohot.reports.markup import figure, missing, side_by_side
from twohot.reports.palette import AGENT, RANDOM, shades
from twohot.reports.results import RANDOM_POLICY, Run
from twohot.runs.metrics import METRICS, Section, describe

LINES = ("attempt", "part", "discount")
"""Placeholders whose values are lines of one panel; those of others are panels."""


def scalar_section(run: Run, section: Section, what: str, caption: str) -> str:
    """The curves of the logged metrics that name a section; where there are none, a sentence with `what`.

    Numbers are in a grid of panels with the caption below; a metric of attempts, parts or discounts has a figure of its
    own, one line each. A random policy's constant is a dashed line in the panel of the agent's, standard errors are
    bands around their returns.
    """
    patterns = [
        pattern
        for pattern, metric in METRICS.items()
        if metric.section == section and metric.plot.startswith("over") and not pattern.count("std_error")
    ]
    names = [name for pattern in patterns if not _line(pattern) for name in run.matching(pattern)]
    plain = [name for name in names if not isinstance(run.last(name), list)]
    parts = []
    if plain:
        panels = [(name, _panel(run, name, [("agent", name, AGENT)], side_by_side(len(plain)))) for name in plain]
        random = any(run.last(_random(name)) is not None for name in plain)
        keys = [("agent", AGENT, "solid"), (RANDOM_POLICY, RANDOM, "dashed")] if random else []
        parts.append(figure(panels, caption, keys))
    parts += [_family(run, pattern, _line(pattern)) for pattern in patterns if _line(pattern) and run.matching(pattern)]
    return "\n".join(parts) if parts else missing(f"No {what} has been logged yet.")


def _family(run: Run, pattern: str, placeholder: str) -> str:
    """The metrics of a pattern: a line for each value of a placeholder, a panel for the values of the others."""
    panels: dict[str, dict[str, str]] = {}
    stem = pattern.partition(f"{{{placeholder}}}")[0].rstrip("_/").removesuffix(f"/{placeholder}")
    for name, found in run.matching(pattern).items():
        title = f"{stem}, by {placeholder}"
        for key, value in found.items():
            title = title.replace(f"{{{key}}}", value)
        panels.setdefault(title, {})[found[placeholder]] = name
    values = list(dict.fromkeys(value for names in panels.values() for value in names))
    colours = dict(zip(values, shades(len(values)), strict=True))
    columns = side_by_side(len(panels))
    drawn = [
        (
            title,
            _panel(
                run,
                title,
                [(_called(placeholder, value), name, colours[value]) for value, name in names.items()],
                columns,
            ),
        )
        for title, names in panels.items()
    ]
    keys = [(_called(placeholder, value), colours[value], "solid") for value in values]
    return figure(drawn, METRICS[pattern].definition, keys)


def _called(placeholder: str, value: str) -> str:
    return f"{placeholder} {value}" if value.isdigit() else value


def _panel(run: Run, title: str, names: Iterable[tuple[str, str, str]], columns: int) -> str:
    """A panel of lines, of each of which is given what it is called, its metric and its colour."""
    lines, axis, unit = [], "updates", ""
    for called, name, colour in names:
        axis = "environment_steps" if describe(name).plot == "over environment steps" else "updates"
        x, y = run.series(name, axis)
        errors = run.errors(name, _error(name))
        band = [float(error) for error in errors] if any(errors) else None
        unit = describe(name).unit
        lines.append(Line(x, y, colour, band, marker=band is not None, name=called))
        random = run.last(_random(name))
        if random is not None:
            lines.append(Line([0, max(1, *x)], [random, random], RANDOM, dashed=True, width=1.2, name=RANDOM_POLICY))
    fraction = unit == "share" and "success" in title
    how = {"y_label": "" if unit in title.split("/") else unit, "fraction": fraction, "logarithmic": not fraction}
    return figures.curves(title, lines, axis.replace("_", " "), columns, **how)


def _line(pattern: str) -> str:
    """The placeholder of a pattern whose values are lines of one panel; empty where there is none."""
    return next((name for name in LINES if f"{{{name}}}" in pattern), "")


def _random(name: str) -> str:
    """The same quantity of the uniformly random policy; a name that nothing has, where there is none."""
    kind, _, rest = name.partition("/")
    return f"random/{rest}" if kind == "evaluation" else ""


def _error(name: str) -> str:
    return name.replace("/return/", "/return_std_error/") if "/return/" in name else ""
