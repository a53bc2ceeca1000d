"""The learner's step beside the official code's: processes that take a step in turn, on the same batch.

TWOHOT_OFFICIAL_PYTHON and TWOHOT_OFFICIAL_CHECKOUT say where the official code and its interpreter are
(docs/official.md); without them its rows say so.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.cases.profile_step import where_the_time_goes
from bench.cases.quickstart_profile import where_the_quickstarts_time_goes
from bench.cases.quickstart_updates import learner_updates_per_second
from bench.harness.compare import NOT_INSTALLED, Comparison, Figures, Goal, goal_rows, rows
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.harness.processor import asked
from bench.harness.worker import LearnerWorkload, Worker, WorkerCommand, as_argument, official_command
from bench.tables import cell, conditions, goals_table, number, table

OFFICIAL = ("official, eager", "official, compiled")
OFFICIAL_HALF = tuple(f"{name}, bfloat16" for name in OFFICIAL)
PRODUCTS = "the products at the rate of torch.mm"
OURS, HALF = "twohot", "twohot, bfloat16"
ROUNDS = 5


def commands() -> dict[str, WorkerCommand | None]:
    """How to start each provider, by name; None for one that is not installed."""
    ours = WorkerCommand((sys.executable, "-m", "bench.cases.learner_step"))
    found: dict[str, WorkerCommand | None] = {OURS: ours, HALF: replace(ours, precision="bfloat16")}
    forms = ({"TORCHDYNAMO_DISABLE": "1"}, {"TORCHINDUCTOR_SIZE_ASSERTS": "0"})
    for name, form in zip(OFFICIAL, forms, strict=True):
        command = official_command("step", form)
        found[name] = command
        found[f"{name}, bfloat16"] = command and replace(command, precision="bfloat16")
    return found


def measure(workload: LearnerWorkload, names: tuple[str, ...], rounds: int = ROUNDS) -> tuple[Figures, Figures]:
    """Seconds of a step of each, taken in turn, and of its products at the rate of torch.mm; and peak memory in MB."""
    figures, memory = Figures(), Figures()
    known = commands()
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            if known[name] is None:
                figures.missing[name] = NOT_INSTALLED
                continue
            argument = as_argument(replace(workload, precision=known[name].precision))
            worker = stack.enter_context(Worker(name, known[name], argument))
            if worker.error:
                figures.missing[name] = worker.error
            else:
                workers[name] = worker
        for name, worker in workers.items():  # before a product is measured, whose matrices some allocators keep
            worker.ask("step")
            memory.values[name] = [worker.ask("peak")]
        for _ in range(rounds):
            for name, worker in workers.items():
                figures.values.setdefault(name, []).append(worker.ask("step"))
                if name == OURS and workload.kind != "images":
                    figures.values.setdefault(PRODUCTS, []).append(workload.flops / worker.ask("product"))
    return figures, memory


@dataclass(frozen=True)
class OfficialComparison:
    """A workload beside the official code: how many times faster it is to be, and than which of the official forms."""

    workload: LearnerWorkload
    faster: float
    forms: tuple[str, ...] = OFFICIAL[:1]
    half: bool = False
    """Whether bfloat16 (of the official code, under autocast) and peak memory are measured against goals, too."""

    @property
    def names(self) -> tuple[str, ...]:
        """Who takes part."""
        return (OURS, *[HALF] * self.half, *self.forms, *OFFICIAL_HALF * self.half)

    def comparison(self) -> Comparison:
        """The comparison, with its goals."""
        workload, case = self.workload, f"step: {self.workload.shape}"
        goals = [Goal(f"{case}: time, against the official code", OURS, self.forms, at_most=1 / self.faster)]
        if self.half:
            goals += [
                Goal(f"{case}: peak memory, against the official code", OURS, self.forms, at_most=0.25, kind="memory"),
                Goal(f"{case}: its products at the rate of torch.mm, against it", PRODUCTS, (OURS,), at_least=0.65),
                Goal(f"{case}: float32, against our bfloat16", OURS, (HALF,), at_least=asked(2.5, 1.8)),
                Goal(
                    f"{case}: bfloat16, against the official code's", HALF, OFFICIAL_HALF, at_most=1 / asked(3.5, 2.5)
                ),
                Goal(f"{case}: bfloat16, against the official code's float32", HALF, self.forms, at_most=0.2),
            ]
        if workload.kind == "images":
            return Comparison(case, workload.shape, lambda _: {}, (), "", OURS, goals=tuple(goals))
        minimum = (workload.flops / 1e9, "GFLOP")
        build, limit = (lambda _: {}), "the products"
        return Comparison(case, workload.shape, build, (PRODUCTS,), limit, OURS, "ms", minimum, goals=tuple(goals))


COMPARISONS = (
    OfficialComparison(LearnerWorkload(8, 128), 2.8, OFFICIAL, half=True),
    OfficialComparison(LearnerWorkload(24, 256), 2.8, OFFICIAL, half=True),
    OfficialComparison(LearnerWorkload(8, 64, "continuous"), 2.5),
    OfficialComparison(LearnerWorkload(8, 64, "images"), 1.5),
)

GROWTH = (
    (LearnerWorkload(4, 128), LearnerWorkload(4, 512), "4 x the length"),
    (LearnerWorkload(4, 128, discounts=1), LearnerWorkload(4, 128), "7 x the discounts"),
    (LearnerWorkload(4, 128, critics=1), LearnerWorkload(4, 128), "4 x the critics"),
)
"""A workload, a larger one, and in what it is larger."""


def step_beside_the_official_code() -> list[Row]:
    """Time and peak memory of a step, beside the official code, eager and compiled."""
    result = []
    for against in COMPARISONS:
        print(f"  {against.workload.shape}", flush=True)
        figures, memory = measure(against.workload, against.names)
        for each in (rows, goal_rows):
            result += each(against.comparison(), "huge pages", against.workload.threads, figures, memory)
    return result


def growth_of_the_step() -> list[Row]:
    """Time of a step against length, discounts and critics, in units of what its products grow by."""
    result = []
    known = commands()[OURS]
    for less, more, what in GROWTH:
        print(f"  {what}", flush=True)
        with Worker(less.shape, known, as_argument(less)) as one, Worker(more.shape, known, as_argument(more)) as two:
            times = {"less": [], "more": []}
            for _ in range(2 * ROUNDS):
                times["less"].append(one.ask("step"))
                times["more"].append(two.ask("step"))
        growth = more.flops / less.flops
        figures = Figures({"more": times["more"], "less": [growth * seconds for seconds in times["less"]]})
        text = f"{what} ({growth:.2f} x the operations): time, against as many times the time of less"
        goal = Goal(text, "more", ("less",), at_most=1.1)
        comparison = Comparison(f"growth: {what}", more.shape, lambda _: {}, (), "", "more", goals=(goal,))
        result += goal_rows(comparison, "huge pages", more.threads, figures, Figures())
    return result


def write_table(records: list[Record]) -> list[str]:
    """A row for each workload, ours beside the official code's; then the goals."""
    records = [row for row in records if row["case"] == "goal" or row["case"].startswith("step:")]
    goals = [row for row in records if row["case"] == "goal"]
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] != "goal":
            cases.setdefault(row["shape"] or row["case"], {})[row["provider"]] = row
    names = (OURS, HALF, *OFFICIAL, *OFFICIAL_HALF)
    head = ["a step, in ms", *names, "GFLOP/s", "MB", "official MB"]
    body = []
    for shape, own in cases.items():
        times = [cell(own.get(name, {}), "p50") for name in names]
        ours, eager = own.get("twohot", {}), own.get("official, eager", {})
        body.append([shape, *times, cell(ours, "rate"), cell(ours, "extra_mb"), cell(eager, "extra_mb")])
    return [
        *table(head, body),
        "",
        "Goals:",
        "",
        *goals_table(goals),
        "",
        "Width 256, 3 layers, 8 heads, 128 bins, one sampled action for the target and three for the advantage, on the "
        "same random batch without padding; AdamW, clipping and target update included. Medians of steps of processes "
        "in turn; two threads, huge pages for everybody. *MB*: resident memory at the peak of a step beyond the "
        "libraries. *GFLOP/s*: products of the factored form over the time. `docs/official.md` says how the official "
        f"code is set up. {conditions(records[0])}. `python -m bench.run learner`.",
    ]


def write_profile(records: list[Record]) -> list[str]:
    """The parts of a step: time, share, products and rate, in both precisions."""
    records = [row for row in records if row["case"] == "where the time goes"]
    body = []
    for part in dict.fromkeys(row["provider"] for row in records):
        own = {row["mode"]: row for row in records if row["provider"] == part}
        first = own["float32"]
        flops = float(first["rate"]) * float(first["p50"]) / 1e3 if first["rate"] else None
        cells = [part, "" if flops is None else number(str(flops))]
        for row in own.values():
            cells += [number(row["p50"]), f"{100 * float(row['share_of_limit']):.0f} %", cell(row, "rate")]
        body.append(cells)
    head = ["part", "GFLOP", "float32, ms", "share", "GFLOP/s", "bfloat16, ms", "share", "GFLOP/s"]
    note = f"{records[0]['shape'].removesuffix(', float32')}; two threads. {conditions(records[0])}."
    return [*table(head, body), "", note]


GROUP = Group(
    measures="the learner's step, beside the official code where docs/official.md set it up: 15 minutes",
    gates=("learning/test_objectives.py", "learning/test_learner.py", "nets/test_critics.py"),
    cases=(
        learner_updates_per_second,
        where_the_quickstarts_time_goes,
        step_beside_the_official_code,
        growth_of_the_step,
        where_the_time_goes,
    ),
    tables=(
        Table("learner", write_table, ("learner",)),
        Table("profile", write_profile, ("learner",), "docs/learner.md"),
    ),
)
