"""The page of a report: its sections, from the header to the glossary."""

from __future__ import annotations

from collections.abc import Sequence

from twohot.errors import CorruptRunError
from twohot.reports import figures
from twohot.reports.evaluation import evaluation_section
from twohot.reports.figures import Line
from twohot.reports.markup import breakable, document, escape, figure, missing, side_by_side, table
from twohot.reports.numbers import NOTHING, format_number
from twohot.reports.palette import AGENT, COLLECT, PHASES, RANDOM, TOTAL
from twohot.reports.results import RANDOM_POLICY, Run, TaskResult, compare, result_cells, verdict
from twohot.reports.scalars import scalar_section
from twohot.runs.metrics import METRICS, parse_name

MIN_MASS = 1e-4
"""Fraction of the mass above which a value bin counts as in use."""


def page(run: Run) -> str:
    """The whole page of a run: every section, where nothing was logged a sentence that says so."""
    results = compare(run)
    sections = [
        ("Results", _results_section(run, results)),
        ("Intervals, and what was held out", evaluation_section(run.evaluation)),
        ("Learning curves", _learning(run)),
        ("Return by attempt", _by_attempt(run)),
        ("Successes and normalised returns", scalar_section(run, "success", "success", SUCCESS_CAPTION)),
        ("What was held out, while learning", scalar_section(run, "held out", "evaluation of it", HELD_OUT_CAPTION)),
        ("What the filter lets through", _filter(run)),
        ("Where the value targets lie", _bins(run)),
        ("Losses and gradient", scalar_section(run, "losses", "loss", LOSSES_CAPTION)),
        ("Values and policy", scalar_section(run, "values", "value", VALUES_CAPTION)),
        ("Parts of the networks", scalar_section(run, "network", "norm of a part", NETWORK_CAPTION)),
        (
            "Schedules, speed and storage",
            scalar_section(run, "schedules", "schedule, speed or size", SCHEDULES_CAPTION),
        ),
        *(
            [("Actors", scalar_section(run, "actors", "actor", ACTORS_CAPTION))]
            if run.matching("actors/restarts")
            else []
        ),
        *(
            [("Own metrics", scalar_section(run, "own", "own metric", OWN_CAPTION))]
            if run.matching("own/{name}")
            else []
        ),
        ("Where the time went", _time(run)),
        ("Configuration", _configuration(run)),
        ("What each quantity means", _glossary(run)),
    ]
    return document(run.name, _facts(run), sections)


def _facts(run: Run) -> list[tuple[str, str]]:
    """Label and value of what the header states."""
    last = run.rows[-1] if run.rows else None
    tasks = {task for kind in ("evaluation", "collect", "random") for task in run.tasks(f"{kind}/return/{{task}}")}
    facts = [
        ("environment steps", f"{last.environment_steps:,}" if last else "0"),
        ("updates", f"{last.updates:,}" if last else "0"),
        ("minutes", f"{max(row.seconds for row in run.rows) / 60:,.1f}" if last else "0"),
        ("tasks", str(len(tasks)) if tasks else "not known yet"),
    ]
    if "seed" in run.config:
        facts.append(("seed", run.config["seed"]))
    start = dict(run.start)
    if "started" in start:
        start["started"] = start["started"].replace("T", " ").replace("+00:00", " UTC")
    labels = ("version", "started", "continued", "torch", "cpu")
    return facts + [(label, start[label]) for label in labels if label in start]


def _results_section(run: Run, results: Sequence[TaskResult]) -> str:
    if not results:
        return missing("No evaluation has been logged yet: the table appears with the first one.")
    lengths = any(run.last(f"evaluation/length/{result.task}") is not None for result in results)
    rows = []
    for result in results:
        mark = '<span class="yes">yes</span>' if result.better else '<span class="no">not clear</span>'
        steps, random = (format_number(run.last(f"{kind}/length/{result.task}")) for kind in ("evaluation", "random"))
        length = [f"{steps} <small>{random}</small>"] if lengths else []
        rows.append([breakable(result.task), *map(escape, result_cells(result)), *length, mark])
    headings = ["task", "agent", "random", "difference", *(["steps in a trial"] * lengths), "better"]
    note = (
        "Mean return of the last evaluation, without exploration noise, ± one standard error: rewards as the "
        "environment gives them, added up over the attempts that count. Random is the policy that draws its actions "
        "uniformly."
    ) + " Steps in a trial: the agent's, and the random policy's in small type." * lengths
    parts = [
        f"<p>{escape(verdict(results))}</p>",
        table(headings, rows, (0, len(headings) - 1)),
        f'<p class="note">{escape(note)}</p>',
    ]
    attempts = {result.task: run.attempts("evaluation", result.task) for result in results}
    numbers = sorted({number for found in attempts.values() for number in found})
    if len(numbers) > 1:
        rows = []
        for task, agent in attempts.items():
            random = run.attempts("random", task)
            cells = [
                f"{format_number(agent.get(number))} <small>{format_number(random.get(number))}</small>"
                for number in numbers
            ]
            rows.append([breakable(task), *cells])
        parts += [
            table(["task", *(f"attempt {number}" for number in numbers)], rows, style="narrow"),
            "<p class=\"note\">By attempt: the agent's mean return, and the random policy's in small type.</p>",
        ]
    return "\n".join(parts)


def _learning(run: Run) -> str:
    tasks = run.tasks("evaluation/return/{task}") or run.tasks("collect/return/{task}")
    if not tasks:
        return missing("No return has been logged yet: the curves appear with the first trials that end.")
    end = max(1, *(row.environment_steps for row in run.rows))
    panels = []
    for task in tasks:
        lines = []
        x, y = run.series(f"collect/return/{task}", "environment_steps")
        if x:
            lines.append(Line(x, y, COLLECT, width=0.9, name="collecting"))
        random = run.last(f"random/return/{task}")
        if random is not None:
            lines.append(Line([0, end], [random, random], RANDOM, dashed=True, width=1.2, name=RANDOM_POLICY))
        name, error_name = f"evaluation/return/{task}", f"evaluation/return_std_error/{task}"
        steps, returns = run.series(name, "environment_steps")
        if steps:
            errors = run.errors(name, error_name)
            lines.append(Line(steps, returns, AGENT, errors, marker=True, name="evaluation"))
        columns = side_by_side(len(tasks))
        svg = figures.curves(f"Return on {task}", lines, "environment steps", columns, y_label="mean return")
        panels.append((task, svg))
    caption = (
        "Mean raw return of each task over environment steps, each task on its own scale. Learning shows where the "
        "marked line leaves the dashed one; the band is one standard error to each side. The thin line, returns while "
        "collecting, lies lower where exploration noise costs return; where rows are many, neighbours are averaged."
    )
    keys = [
        ("evaluation", AGENT, "solid"),
        ("collecting, with exploration", COLLECT, "solid"),
        (RANDOM_POLICY, RANDOM, "dashed"),
    ]
    return figure(panels, caption, keys)


def _by_attempt(run: Run) -> str:
    tasks = run.tasks("evaluation/return/{task}")
    if not tasks:
        return missing("No evaluation has been logged yet.")
    found = {task: run.attempts("evaluation", task) for task in tasks}
    found = {task: attempts for task, attempts in found.items() if len(attempts) > 1}
    if not found:
        return missing("A trial of this run is a single attempt, so there is nothing to compare across attempts.")
    panels = []
    for task, agent in found.items():
        random = run.attempts("random", task)
        chance = Line(list(random), list(random.values()), RANDOM, dashed=True, width=1.2, name=RANDOM_POLICY)
        mine = Line(list(agent), list(agent.values()), marker=True, name="agent")
        svg = figures.curves(
            f"Return by attempt on {task}",
            [*[chance] * bool(random), mine],
            "attempt",
            side_by_side(len(found)),
            y_label="mean return",
            integer=True,
        )
        panels.append((task, svg))
    caption = (
        "Mean raw return of each attempt at the same hidden task, at the last evaluation. A line that rises from the "
        "first attempt to the last means that the agent uses what it found out in earlier attempts; the random policy "
        "cannot."
    )
    keys = [("agent", AGENT, "solid"), (RANDOM_POLICY, RANDOM, "dashed")]
    found = figure(panels, caption, keys)
    collected = run.matching("collect/return/{task}/attempt_{attempt}")
    return f"{found}\n{scalar_section(run, 'attempts', 'attempt', '')}" if collected else found


def _filter(run: Run) -> str:
    x, y = run.series("filter/pass_rate", "updates")
    tasks = run.tasks("filter/pass_rate/{task}")
    if not x and not tasks:
        return missing("No update that filters actions has been logged yet.")
    parts = []
    total = Line(x, y, TOTAL, width=1.1, name="all tasks and discounts")
    if x:
        title = "Fraction of the batch that passes the filter"
        svg = figures.curves(title, [Line(x, y, width=1.8)], "updates", 1, y_label="passes", fraction=True)
        caption = (
            "Fraction of all (step, discount) pairs of a batch whose action passes the filter, and which the actor "
            "therefore imitates. Near 0 % the actor learns from little; near 100 % it copies its own data."
        )
        parts.append(figure([("All tasks and discounts", svg)], caption))
    if tasks:
        panels = []
        for task in tasks:
            line = Line(*run.series(f"filter/pass_rate/{task}", "updates"), name="this task")
            title = f"Fraction that passes the filter on {task}"
            lines, columns = [total, line] if x else [line], side_by_side(len(tasks))
            panels.append((task, figures.curves(title, lines, "updates", columns, y_label="passes", fraction=True)))
        caption = (
            "The same by task, at the discount that acts. A task far below the others is one whose stored actions no "
            "longer beat the policy; one far above is still being caught up with."
        )
        keys = [("this task", AGENT, "solid"), ("all tasks and discounts", TOTAL, "solid")]
        parts.append(figure(panels, caption, keys[: 1 + bool(x)]))
    return "\n".join(parts)


def _bins(run: Run) -> str:
    mass, centers = run.last("value/bin_histogram"), run.last("value/bin_centers")
    if not mass or not centers:
        return missing("No histogram over value bins has been logged yet; a critic that regresses a scalar has none.")
    if len(mass) != len(centers):
        raise CorruptRunError(
            f"metrics.jsonl: value/bin_histogram has {len(mass)} bins, but value/bin_centers has {len(centers)}"
        )
    updates = run.series("value/bin_histogram", "updates")[0][-1]
    used = [index for index, fraction in enumerate(mass) if fraction > MIN_MASS] or [0, len(mass) - 1]
    window = max(used[0] - 2, 0), min(used[-1] + 2, len(mass) - 1)
    panels = [("All bins", figures.bins("Target mass over all value bins", mass, centers, (0, len(mass) - 1)))]
    if window != (0, len(mass) - 1):
        title = "Target mass over the value bins in use"
        panels.append(("The bins in use", figures.bins(title, mass, centers, window)))
    outermost = mass[0] + mass[-1]
    ends = f"{100 * outermost:.2g} %" if outermost > MIN_MASS else "next to nothing"
    caption = (
        f"Fraction of the critics' target mass in each bin at update {updates:,}: bins are evenly spaced, as the "
        "critics see them, and labelled with the values that they stand for (scaled returns). "
        f"{len(used)} of {len(mass)} bins hold more than 0.01 % each; the two outermost hold {ends}. Mass there means "
        "that targets are clipped; mass in very few bins means that the support is wider than the returns."
    )
    return figure(panels, caption, columns=1)


LOSSES_CAPTION = (
    "Over updates; positive values that span a factor of 100 are on a logarithmic scale. The actor's loss need not "
    "fall, as the data that it imitates change; a gradient norm that climbs steadily announces divergence."
)
VALUES_CAPTION = (
    "Over updates, on the scale of the targets. Values that outgrow any return that the tasks can give are "
    "overestimates; an entropy that drops to its floor early means that the policy has stopped exploring of itself."
)
OWN_CAPTION = "Over environment steps: what callbacks of this run gave."
ACTORS_CAPTION = (
    "Over environment steps: how fast each actor plays, how old its policy is, what is sent, and who waits for whom."
)
NETWORK_CAPTION = "Over updates, by part of the agent."
SCHEDULES_CAPTION = "Each over its own clock: what is collected over environment steps, what is learnt over updates."
SUCCESS_CAPTION = (
    "Over environment steps: fractions of successes, and returns normalised by the suite's reference scores."
)
HELD_OUT_CAPTION = (
    "Over environment steps, on tasks or levels that are never trained on; the band is one standard error."
)


def _time(run: Run) -> str:
    stacks: dict[str, Sequence[float]] = {}
    x: list[float] = []
    for phase in PHASES:
        found, values = run.series(f"time/{phase}_share", "updates")
        if found and (not x or found == x):
            x, stacks[phase] = found, values
    if not stacks:
        return missing("No time has been logged yet.")
    rest = [max(0.0, 1.0 - sum(values)) for values in zip(*stacks.values(), strict=True)]
    if max(rest) > 0.005:
        stacks["other"] = rest
    svg = figures.fractions("Fractions of the wall-clock time", x, stacks)
    caption = (
        "Fraction of the wall-clock time in each phase of the loop, between rows of the log. Time spent sampling is "
        "time that the learner waits for data; where collecting dominates, faster environments or more actors shorten "
        "the run."
    )
    keys = [(phase, PHASES[phase], "solid") for phase in stacks]
    return figure([("", svg)], caption, keys)


def _configuration(run: Run) -> str:
    if not run.config:
        return missing("The run directory holds no config.json.")
    rows = [[f"<code>{escape(key)}</code>", f"<code>{escape(value)}</code>"] for key, value in run.config.items()]
    summary = f"<summary>All {len(rows)} settings, as resolved at the start</summary>"
    return f"<details>{summary}\n{table(['setting', 'value'], rows, (0, 1))}\n</details>"


def _glossary(run: Run) -> str:
    logged = {parse_name(name)[0] for name in run.names()}
    rows = [
        [f"<code>{escape(pattern)}</code>", escape(metric.unit or NOTHING), escape(metric.definition)]
        for pattern, metric in METRICS.items()
        if pattern in logged
    ]
    if not rows:
        return missing("Nothing has been logged yet.")
    return table(["metric", "unit", "definition"], rows, (0, 1, 2))
