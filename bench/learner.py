"""The learner's step beside the official code's: processes that take a step in turn, on the same batch.

TWOHOT_OFFICIAL_PYTHON and TWOHOT_OFFICIAL_CHECKOUT say where the official code and its interpreter are
(docs/official.md); without them its rows say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from contest import NOT_INSTALLED, Contest, Figures, Goal, goal_rows, rows
from frame import Row
from work import Work, as_argument

HERE = Path(__file__).resolve().parent
OFFICIAL = ("official, eager", "official, compiled")
PRODUCTS = "the products at the rate of torch.mm"
OURS, HALF = "twohot", "twohot, bfloat16"
ROUNDS = 5


@dataclass(frozen=True)
class Provider:
    """A process that takes steps: its interpreter, script, and what its environment adds to ours."""

    python: str
    script: Path
    environment: dict[str, str]
    precision: str = "float32"


def providers() -> dict[str, Provider | None]:
    """Everybody by name; None for whom there is none."""
    ours = Provider(sys.executable, HERE / "learner_step.py", {})
    found: dict[str, Provider | None] = {OURS: ours, HALF: replace(ours, precision="bfloat16")}
    forms = ({"TORCHDYNAMO_DISABLE": "1"}, {"TORCHINDUCTOR_SIZE_ASSERTS": "0"})
    for name, form in zip(OFFICIAL, forms, strict=True):
        found[name] = official("step.py", form)
    return found


def official(script: str, environment: dict[str, str]) -> Provider | None:
    """A script of bench/official run by the official code's interpreter, if docs/official.md was followed."""
    python, checkout = (os.environ.get(f"TWOHOT_OFFICIAL_{name}") for name in ("PYTHON", "CHECKOUT"))
    if not python or not checkout:
        return None
    common = {"PYTHONPATH": checkout, "WANDB_MODE": "disabled"}
    return Provider(python, HERE / "official" / script, {**common, **environment})


class Worker:
    """The running process of a provider; it is ready to be asked, or has an obstacle."""

    def __init__(self, name: str, provider: Provider, argument: str) -> None:
        print(f"    {name}: starts", flush=True)
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "passive", **provider.environment}
        command = [provider.python, str(provider.script), argument]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )
        self.obstacle = "" if self._answer() else self._error()

    def ask(self, what: str) -> float:
        """The number that answers "step", "product" or "peak"."""
        print(what, file=self.process.stdin, flush=True)
        (value,) = self._answer().values()
        return value

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def _error(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1] if lines else f"ended with {self.process.returncode}"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def measure(work: Work, names: tuple[str, ...], rounds: int = ROUNDS) -> tuple[Figures, Figures]:
    """Seconds of a step of each, taken in turn, and of its products at the rate of torch.mm; and peak memory in MB."""
    figures, memory = Figures(), Figures()
    known = providers()
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            if known[name] is None:
                figures.obstacles[name] = NOT_INSTALLED
                continue
            argument = as_argument(replace(work, precision=known[name].precision))
            worker = stack.enter_context(Worker(name, known[name], argument))
            if worker.obstacle:
                figures.obstacles[name] = worker.obstacle
            else:
                workers[name] = worker
        for _ in range(rounds):
            for name, worker in workers.items():
                figures.values.setdefault(name, []).append(worker.ask("step"))
                if name == OURS and work.kind != "images":
                    figures.values.setdefault(PRODUCTS, []).append(work.flops / worker.ask("product"))
        for name, worker in workers.items():
            memory.values[name] = [worker.ask("peak")]
    return figures, memory


@dataclass(frozen=True)
class Beside:
    """Work beside the official code: how many times faster it is to be, and than which of the official forms."""

    work: Work
    faster: float
    forms: tuple[str, ...] = OFFICIAL[:1]
    half: bool = False
    """Whether bfloat16 and peak memory are measured against goals, too."""

    @property
    def names(self) -> tuple[str, ...]:
        """Who takes part."""
        return (OURS, *[HALF] * self.half, *self.forms)

    def contest(self) -> Contest:
        """The contest, with its goals."""
        work, case = self.work, f"step: {self.work.shape}"
        goals = [Goal(f"{case}: time, against the official code", OURS, self.forms, at_most=1 / self.faster)]
        if self.half:
            goals += [
                Goal(f"{case}: peak memory, against the official code", OURS, self.forms, at_most=1 / 3, kind="memory"),
                Goal(f"{case}: its products at the rate of torch.mm, against it", PRODUCTS, (OURS,), at_least=0.65),
                Goal(f"{case}: bfloat16, against float32", HALF, (OURS,), at_most=0.5),
                Goal(f"{case}: bfloat16, against the official code", HALF, self.forms, at_most=0.2),
            ]
        if work.kind == "images":
            return Contest(case, work.shape, lambda _: {}, (), "", OURS, goals=tuple(goals))
        least = (work.flops / 1e9, "GFLOP")
        build, limit = (lambda _: {}), "the products"
        return Contest(case, work.shape, build, (PRODUCTS,), limit, OURS, "ms", least, goals=tuple(goals))


CONTESTS = (
    Beside(Work(8, 128), 2.5, OFFICIAL, half=True),
    Beside(Work(24, 256), 2.5, OFFICIAL, half=True),
    Beside(Work(8, 64, "continuous"), 2.5),
    Beside(Work(8, 64, "images"), 1.5),
)

GROWTH = (
    (Work(4, 128), Work(4, 512), "4 x the length"),
    (Work(4, 128, discounts=1), Work(4, 128), "7 x the discounts"),
    (Work(4, 128, critics=1), Work(4, 128), "4 x the critics"),
)
"""Work, more of it, and in what it is more."""


def step_beside_the_official_code() -> list[Row]:
    """Time and peak memory of a step, beside the official code, eager and compiled."""
    result = []
    for beside in CONTESTS:
        print(f"  {beside.work.shape}", flush=True)
        figures, memory = measure(beside.work, beside.names)
        for each in (rows, goal_rows):
            result += each(beside.contest(), "huge pages", beside.work.threads, figures, memory)
    return result


def growth_of_the_step() -> list[Row]:
    """Time of a step against length, discounts and critics, in units of what its products grow by."""
    result = []
    known = providers()[OURS]
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
        contest = Contest(f"growth: {what}", more.shape, lambda _: {}, (), "", "more", goals=(goal,))
        result += goal_rows(contest, "huge pages", more.threads, figures, Figures())
    return result
