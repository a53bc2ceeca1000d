"""Steps in worker processes: their workloads, and what the benchmark and a process say to each other.

Needs numpy and torch only, so that the official code's interpreter runs it too.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch._dynamo  # the first optimiser imports it anyhow: it counts as a library

from bench.harness.memory import resident, start_of_peak, until_peak

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1e6
ENCODING = "encoders: forward"
TARGETS = "targets: target actor and critics"
CRITICS = "critics: loss, values and their gradients"
ACTOR = "actor: loss, and values of sampled actions"
BACKWARD = "backward: actor and encoders"


@dataclass(frozen=True)
class LearnerWorkload:
    """One gradient step of AMAGO-2's return-independent objective: width 256, 3 layers, 8 heads, C 4, N 128."""

    batch: int
    length: int
    kind: Literal["discrete", "continuous", "images"] = "discrete"
    """6 discrete actions and observations of 32 floats; 4 continuous actions; or 64 x 64 x 3 images, 6 actions."""
    precision: Literal["float32", "bfloat16"] = "float32"
    discounts: int = 7
    critics: int = 4
    threads: int = 2

    @property
    def shape(self) -> str:
        """What a row of results says of the workload."""
        kind = {"discrete": "6 actions", "continuous": "4 continuous actions", "images": "64 x 64 images, 6 actions"}
        return f"B {self.batch} L {self.length} G {self.discounts} C {self.critics}, {kind[self.kind]}"

    @property
    def all_discounts(self) -> tuple[float, ...]:
        """G discounts, the acting one last."""
        others = (0.1, 0.9, 0.95, 0.97, 0.99, 0.995)
        return (*others[len(others) + 1 - self.discounts :], 0.999)

    @property
    def flops(self) -> float:
        """Operations of the matrix products that a step in factored form needs, for vectors as observations."""
        return sum(self.flops_by_part.values())

    @property
    def flops_by_part(self) -> dict[str, float]:
        """The same by the parts of a step.

        A product costs as much again for each of its two derivatives. Of the actions sampled for the actor's loss
        those count that are distinct and were not taken, as a uniform policy draws them; masks cut attention in half.
        """
        width, layers, hidden, bins, samples = 256, 3, 256, 128, 3
        choices = 1 if self.kind == "continuous" else 6
        size = 4 if self.kind == "continuous" else 6
        seen, steps = self.batch * (self.length + 1), self.batch * self.length
        encoder = seen * (33 * 512 + 512 * 512 + 512 * width)
        transformer = seen * layers * (12 * width**2 + self.length * width)
        outputs = self.discounts * size * (2 if self.kind == "continuous" else 1)
        actor = steps * (2 * width * hidden + hidden * outputs)
        first = steps * width * self.critics * hidden
        rows = steps * self.discounts * self.critics * (hidden**2 + hidden * bins)
        others = samples if choices == 1 else (choices - 1) * (1 - (1 - 1 / choices) ** samples)
        products = {
            ENCODING: encoder + transformer,
            TARGETS: actor + first + rows,
            CRITICS: first + 3 * rows,
            ACTOR: actor + others * rows,
            BACKWARD: 2 * (encoder + transformer + actor + first),
        }
        return {part: 2.0 * count for part, count in products.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """A random batch without padding: observation [B, L + 1, ...]; action, reward and terminated [B, L, ...]."""
        stream = np.random.default_rng(0)
        rows = (self.batch, self.length)
        seen = (self.batch, self.length + 1)
        if self.kind == "images":
            observation = stream.integers(256, size=(*seen, 64, 64, 3), dtype=np.uint8)
        else:
            observation = stream.standard_normal((*seen, 32), dtype=np.float32)
        if self.kind == "continuous":
            action = stream.uniform(-1, 1, (*rows, 4)).astype(np.float32)
        else:
            action = stream.integers(6, size=rows)
        reward = stream.standard_normal(rows, dtype=np.float32)
        return {
            "observation": observation,
            "action": action,
            "reward": reward,
            "terminated": stream.random(rows) < 0.01,
        }


@dataclass(frozen=True)
class CollectingWorkload:
    """Steps of RepeatPreviousEasy with an agent of width 128, 3 layers, which explores; stored."""

    steps: int = 200
    """Of each actor, at a time."""
    mode: Literal["sync", "async"] = "sync"
    """Environments in the agent's process, or each in its own: what the official code calls them."""
    actors: int = 16
    context: int = 128
    threads: int = 2

    @property
    def shape(self) -> str:
        """What a row of results says of the workload."""
        return f"{self.actors} actors, width 128 x 3"


Workload = LearnerWorkload | CollectingWorkload


def serve(build: Callable[[Any], Callable[[], float]], warm: int, kind: type[Workload] = LearnerWorkload) -> None:
    """Build the step that the command line describes, take `warm` steps, and one more for each line that comes in.

    A step returns its loss, or another number. Answers on the standard output are JSON: {"warm": seconds, "loss": of
    the first step} once, {"seconds"} for "step", for "product" {"flops"}: operations/s of a large torch.mm in float32,
    and for "peak" {"mb"}: what the process held at the peak of the steps asked for, beyond the libraries imported
    before `build`. Whatever else the code prints goes to the standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: float) -> None:
        print(json.dumps(values), file=answers, flush=True)

    workload = kind(**json.loads(sys.argv[1]))
    torch.set_num_threads(workload.threads)
    torch.manual_seed(0)
    libraries = resident()
    start = time.perf_counter()
    step = build(workload)
    loss = step()
    for _ in range(warm - 1):
        step()
    gc.collect()
    start_of_peak()
    answer(warm=time.perf_counter() - start, loss=loss)
    for line in sys.stdin:
        match line.strip():
            case "step":
                start = time.perf_counter()
                step()
                answer(seconds=time.perf_counter() - start)
            case "product":
                answer(flops=_rate_of_products())
            case "peak":
                answer(mb=(until_peak() - libraries) / MEGABYTE)


def _rate_of_products(size: int = 2048, repeats: int = 3) -> float:
    left, right = torch.randn(2, size, size).unbind()
    out = left @ right
    start = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right, out=out)
    return 2 * size**3 * repeats / (time.perf_counter() - start)


def as_argument(workload: Workload) -> str:
    """What `serve` reads from the command line."""
    return json.dumps(asdict(workload))


@dataclass(frozen=True)
class WorkerCommand:
    """How to start a process that serves steps: a command, to which the workload is added, and more variables."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    precision: str = "float32"


def official_command(script: str, environment: dict[str, str]) -> WorkerCommand | None:
    """A script of bench/baselines/official under the official code's interpreter, if docs/official.md was followed."""
    python, checkout = (os.environ.get(f"TWOHOT_OFFICIAL_{name}") for name in ("PYTHON", "CHECKOUT"))
    if not python or not checkout:
        return None
    common = {"PYTHONPATH": checkout, "WANDB_MODE": "disabled"}
    return WorkerCommand((python, "-m", f"bench.baselines.official.{script}"), {**common, **environment})


class Worker:
    """A running process; it is ready to be asked, unless it has an `error`."""

    def __init__(self, name: str, command: WorkerCommand, argument: str) -> None:
        print(f"    {name}: starts", flush=True)
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "passive", **command.environment}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*command.command, argument],
            cwd=ROOT,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=self.errors,
            text=True,
        )
        self.error = "" if self._answer() else self._error()

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
