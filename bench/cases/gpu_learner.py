"""One update of the learner on a GPU: eager, compiled, as a CUDA graph; and how often it waits for the GPU."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import torch

from bench.cases.learner_step import learner_and_batch
from bench.harness.gpu_timing import Case, Work
from bench.harness.worker import LearnerWorkload
from twohot.learning import compute_losses
from twohot.learning.learner import Learner
from twohot.replay import Batch

SIZES = ((8, 128), (24, 256), (64, 512))
COMPILED = SIZES[1]
"""Compiling takes a minute, so that one size has to do."""
PRECISIONS = ("float32", "bfloat16")


def gradients(learner: Learner, batch: Batch, losses=compute_losses) -> None:
    """What of an update a CUDA graph can hold: losses, their gradients and the clipping; nothing is decided."""
    learner.optimizer.zero_grad(set_to_none=True)
    learner.agent.train()
    with torch.autocast(batch.reward.device.type, torch.bfloat16, enabled=learner.config.precision == "bfloat16"):
        total = losses(learner.agent, batch, learner.objective).total
    total.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters, learner.config.gradient_clip)


def as_a_graph(learner: Learner, batch: Batch) -> Work:
    """`gradients`, recorded once: its launches are one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradients(learner, batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients(learner, batch)
    return graph.replay


def step_works(size: tuple[int, int], device: str) -> dict[str, Work | str]:
    """An update in each precision."""
    works: dict[str, Work | str] = {}
    for precision in PRECISIONS:
        learner, batch = learner_and_batch(LearnerWorkload(*size, precision=precision), device)
        works["twohot" if precision == "float32" else f"twohot, {precision}"] = partial(learner.step, batch)
    return works


def gradient_works(size: tuple[int, int], precision: str, device: str) -> dict[str, Work | str]:
    """Losses and gradients: eager, and recorded."""
    learner, batch = learner_and_batch(LearnerWorkload(*size, precision=precision), device)
    recorded = "no GPU" if device == "cpu" else as_a_graph(learner, batch)
    return {"twohot": partial(gradients, learner, batch), "twohot, CUDA graph": recorded}


def compiled_works(size: tuple[int, int], precision: str, device: str) -> dict[str, Work | str]:
    """An update whose losses are compiled, beside an eager one."""
    learner, batch = learner_and_batch(LearnerWorkload(*size, precision=precision), device)
    works: dict[str, Work | str] = {"twohot": partial(learner.step, batch), "twohot, compiled": "no GPU"}
    if device != "cpu":
        other, _ = learner_and_batch(LearnerWorkload(*size, precision=precision), device)
        compiled = Learner(other.agent, other.objective, replace(other.config, compile=True))
        works["twohot, compiled"] = partial(compiled.step, batch)
    return works


def waits_of(size: tuple[int, int], device: str) -> dict[str, Work | str]:
    """How many times an update waits, as CUDA tells."""
    if device == "cpu":
        return {"twohot": "no GPU"}
    learner, batch = learner_and_batch(LearnerWorkload(*size), device)
    learner.step(batch)

    def count() -> int:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                learner.step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [each for each in found if "called a synchronizing" in str(each.message)]
        print("\n".join(f"  waits in {each.filename}:{each.lineno}" for each in waits), flush=True)
        return len(waits)

    return {"twohot": count}


def cases(tiny: bool) -> list[Case]:
    """Waits, updates at three sizes, then losses and gradients recorded, then compiled."""
    sizes, middle = (((2, 6),), (2, 6)) if tiny else (SIZES, COMPILED)
    own = {"of_the_gpu": False}  # with the optimiser's work on the host, and the wait
    found = [
        Case("update: waits", LearnerWorkload(*sizes[0]).shape, partial(waits_of, sizes[0]), unit="waits", counts=True)
    ]
    for size in sizes:
        workload = LearnerWorkload(*size)
        rate = {"amount": workload.flops / 1e9, "rate_unit": "TFLOP/s"}
        found.append(Case("update", workload.shape, partial(step_works, size), **own, **rate))
    for precision in PRECISIONS:
        shape = f"{LearnerWorkload(*middle).shape}, {precision}"
        build = partial(gradient_works, middle, precision)
        found.append(Case("losses and gradients", shape, build, **own))
    for precision in reversed(PRECISIONS):
        shape = f"{LearnerWorkload(*middle).shape}, {precision}"
        found.append(Case("update, compiled", shape, partial(compiled_works, middle, precision), seconds=75, **own))
    return found
