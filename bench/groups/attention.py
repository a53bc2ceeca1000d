"""Comparisons of attention on a CPU: one step of many environments, a whole cached step, training on windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from bench.baselines import attention as official
from bench.harness.compare import (
    Comparison,
    Figures,
    Goal,
    Provider,
    Result,
    goal_rows,
    measure_memory,
    measure_times,
    rows,
)
from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row
from bench.harness.processor import asked
from bench.tables import cell, conditions, number, table
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels.attention import torch_attention
from twohot.nets.frozen_networks import freeze_network
from twohot.nets.transformer import Transformer

THREADS = 2
HEADS = 8
SEQUENCES = 24
STEPS = tuple(product((torch.float32, torch.bfloat16), (16, 64), (256, 1024), (32, 64)))
MEMORY_LENGTHS = (512, 1024, 2048, 4096)
WINDOWS = tuple(product((torch.float32, torch.bfloat16), (64, 256, 768, 2048), (32, 64)))
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
READS = ("reading the cache, as float32", "reading the cache, as int32")


def _cache(dtype: torch.dtype, environments: int, length: int, size: int, position: Tensor) -> KVCache:
    cache = KVCache(1, environments, HEADS, size, length, dtype=dtype)
    cache.keys.normal_()
    cache.values.normal_()
    cache.cache_position.copy_(position)
    return cache


def steps(dtype: torch.dtype, environments: int, length: int, size: int, batch_divisor: int) -> dict[str, Provider]:
    """One step against full caches, and against caches whose lengths are spread evenly."""
    full = _cache(dtype, environments, length, size, torch.full((environments,), 2 * length))
    spread = _cache(dtype, environments, length, size, torch.arange(1, environments + 1) * length // environments - 1)
    q, k, v = torch.randn(3, environments, HEADS, size).to(dtype).unbind()
    rolling = official.RollingCache(environments, length, HEADS, size, dtype)
    rolling.keys.copy_(full.keys[0].transpose(1, 2))
    rolling.values.copy_(full.values[0].transpose(1, 2))
    rolling.cache_position.fill_(length)
    mask = (torch.arange(length) <= spread.cache_position.unsqueeze(1))[:, None, None]

    def read(kind: torch.dtype) -> Result:
        for ring in (full.keys, full.values):
            flat = ring.view(kind)
            flat.sum() if kind == torch.float32 else flat.amax()
        return ()

    def sdpa(cache: KVCache, mask: Tensor | None) -> Result:
        out = functional.scaled_dot_product_attention(q.unsqueeze(2), cache.keys[0], cache.values[0], attn_mask=mask)
        return None, out.squeeze(2)

    def ours(cache: KVCache) -> Result:
        return None, decode_attention(q, k, v, cache, 0)

    equal = {"tolerance": TOLERANCES[dtype]}
    providers = {
        **dict(zip(READS, (Provider(partial(read, kind)) for kind in (torch.float32, torch.int32)), strict=True)),
        "twohot": Provider(partial(ours, full)),
        "torch SDPA": Provider(partial(sdpa, full, None), partial(ours, full), **equal),
        "official attention, in our lines": Provider(
            lambda: (None, official.step_attention(q, k, v, rolling)),
        ),
        "twohot, lengths spread evenly": Provider(partial(ours, spread)),
        "torch SDPA, masked": Provider(partial(sdpa, spread, mask), partial(ours, spread), **equal),
    }
    # In a rollout, weights and the other layers' caches pass through the processor between two steps of a layer. Here
    # other memory does, before each provider is timed, so that all find the processor's caches equally cold.
    others = torch.zeros(1 << 26, dtype=torch.int8)
    return {name: replace(each, setup=others.amax) for name, each in providers.items()}


def _step_comparison(dtype: torch.dtype, environments: int, length: int, size: int) -> Comparison:
    shape = f"{NAMES[dtype]}, {environments} environments, context {length}, {HEADS} heads of {size}"
    case = f"one step: {shape}"
    short = dtype == torch.bfloat16
    goals = [
        Goal(f"{case}: twohot, against reading the cache", "twohot", READS, at_most=1.25 if short else 1.2),
        Goal(
            f"{case}: masked SDPA, against twohot, lengths spread",
            "torch SDPA, masked",
            ("twohot, lengths spread evenly",),
            at_least=2,
        ),
    ]
    if short:
        goals.append(Goal(f"{case}: SDPA, against twohot", "torch SDPA", ("twohot",), at_least=4))
    minimum = (2 * environments * HEADS * length * size * dtype.itemsize / 1e9, "GB")
    build = partial(steps, dtype, environments, length, size)
    reference, goals = ("twohot",), tuple(goals)
    return Comparison(
        case, shape, build, READS, "reading the cache", "twohot", "us", minimum, reference, 15, "no", goals
    )


def appends(batch_divisor: int) -> dict[str, Provider]:
    """A step of environments that have seen 8, in short rings and in long ones."""
    tensors = torch.randn(3, 64, HEADS, 32).unbind()
    caches = {length: _cache(torch.float32, 64, length, 32, torch.full((64,), 8)) for length in (64, 4096)}
    return {
        f"context {length}": Provider(lambda cache=cache: (None, decode_attention(*tensors, cache, 0)), calls=20)
        for length, cache in caches.items()
    }


def whole_steps(environments: int, batch_divisor: int) -> dict[str, Provider]:
    """A cached step of a Transformer of width 256 with 3 layers, at full context 256."""
    module = Transformer(256, 3, HEADS, 1024, 0.0, 256).eval()
    x, time = torch.randn(environments, 256), torch.full((environments,), 255)
    frozen, cache = freeze_network(module), module.initial_cache(environments)
    cache.keys.normal_()
    cache.values.normal_()
    cache.cache_position.fill_(512)
    rolling = [official.RollingCache(environments, 256, HEADS, 32, torch.float32) for _ in module.layers]
    for each in rolling:
        each.cache_position.fill_(256)
    return {
        "twohot": Provider(lambda: (None, frozen.step(x, time, cache))),
        "official step, in our lines": Provider(lambda: (None, official.transformer_step(module, x, time, rolling))),
    }


def windows(dtype: torch.dtype, length: int, size: int, batch_divisor: int) -> dict[str, Provider]:
    """Forward and backward pass over windows; and with half of the batch padding."""
    inputs = [torch.randn(SEQUENCES, length, HEADS, size, dtype=dtype).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(SEQUENCES, length, HEADS, size, dtype=dtype)
    half = (torch.linspace(0, 1, SEQUENCES) * length).long()
    left, right = torch.randn(2, 1024, 1024, dtype=dtype).unbind()
    # Products of the forward and the backward pass: 2 and 5 of L x L x D, of which a causal mask needs half.
    flops = 7 * SEQUENCES * HEADS * length * length * size
    repeats = max(round(flops / 2 / 1024**3 / 2), 1)

    def differentiated(function: Callable[..., Tensor], **options) -> Result:
        out = function(*inputs, **options)
        return None, out.detach(), *torch.autograd.grad(out, inputs, grad_output)

    def products() -> Result:
        for _ in range(repeats):
            left @ right
        return ()

    ours = partial(differentiated, causal_attention)
    equal = {"tolerance": TOLERANCES[dtype]}
    return {
        "the products at the rate of torch.mm": Provider(products),
        "twohot": Provider(ours),
        "torch SDPA": Provider(partial(differentiated, torch_attention.sdpa), ours, **equal),
        "twohot, half of it padding": Provider(partial(differentiated, causal_attention, lengths=half)),
    }


def _window_comparison(dtype: torch.dtype, length: int, size: int) -> Comparison:
    shape = f"{NAMES[dtype]}, {SEQUENCES} x {length} steps, {HEADS} heads of {size}"
    case = f"training: {shape}"
    minimum = asked(1.1, 1.5) if dtype == torch.bfloat16 else 1.1
    goals = (
        Goal(f"{case}: SDPA, against twohot", "torch SDPA", ("twohot",), at_least=minimum),
        Goal(f"{case}: half padding, against none", "twohot, half of it padding", ("twohot",), at_most=0.667),
    )
    floor = ("the products at the rate of torch.mm",)
    flops = (7 * SEQUENCES * HEADS * length * length * size / 1e9, "GFLOP")
    build = partial(windows, dtype, length, size)
    rounds = 7 if length <= 256 else 3
    return Comparison(case, shape, build, floor, "the products", "twohot", "ms", flops, (), rounds, "no", goals)


def growing_windows(batch_divisor: int) -> dict[str, Provider]:
    """Forward and backward pass over longer and longer windows."""

    def differentiated(inputs: list[Tensor]) -> Result:
        out = causal_attention(*inputs)
        return None, out.detach(), *torch.autograd.grad(out.sum(), inputs)

    return {
        f"{length} steps": Provider(
            partial(
                differentiated, [torch.randn(2, length // batch_divisor, HEADS, 64).requires_grad_() for _ in range(3)]
            )
        )
        for length in MEMORY_LENGTHS
    }


def memory_comparison() -> Comparison:
    """Peak memory of training, which has to grow as the windows do."""
    last, first = (f"{MEMORY_LENGTHS[index]} steps" for index in (-1, 0))
    growth = MEMORY_LENGTHS[-1] / MEMORY_LENGTHS[0]
    text = f"peak memory of training: {last}, against {first}"
    goal = Goal(text, last, (first,), at_most=1.1 * growth, kind="memory")
    shape = "float32, 2 windows, 8 heads of 64"
    return Comparison(
        "peak memory of training", shape, growing_windows, (), "", first, rounds=3, memory="all", goals=(goal,)
    )


def comparisons() -> tuple[Comparison, ...]:
    """Everything that is measured in time alone."""
    append = Comparison(
        "appending",
        "float32, 64 environments that have seen 8 steps, 8 heads of 32",
        appends,
        ("context 64",),
        "context 64",
        "context 64",
        "us",
        rounds=30,
        memory="no",
        goals=(Goal("appending: context 4096, against 64", "context 4096", ("context 64",), at_most=1.15),),
    )
    whole = [
        Comparison(
            f"whole cached step: {environments} environments",
            "float32, width 256, 3 layers, context 256",
            partial(whole_steps, environments),
            (),
            "",
            "twohot",
            "us",
            rounds=15,
            memory="no",
            goals=(
                Goal(
                    f"whole cached step, {environments} environments: official, against twohot",
                    "official step, in our lines",
                    ("twohot",),
                    at_least=10,
                ),
            ),
        )
        for environments in (16, 64)
    ]
    return (
        *(_step_comparison(*case) for case in STEPS),
        append,
        *whole,
        *(_window_comparison(*case) for case in WINDOWS),
    )


def attention_beside_baselines() -> list[Row]:
    """One step, whole cached steps and training windows beside torch and the official code, on two threads."""
    torch.manual_seed(0)
    memory = memory_comparison()
    weights = measure_memory(memory, 1)  # first, for a fork has no threads but its own
    torch.set_num_threads(THREADS)
    figures = measure_times(memory, memory.rounds)
    result = [part for make in (rows, goal_rows) for part in make(memory, "huge pages", THREADS, figures, weights)]
    for comparison in comparisons():
        print(f"  {comparison.case}", flush=True)
        figures = measure_times(comparison, comparison.rounds)
        mode = "huge pages, cold caches" if comparison.case.startswith("one step") else "huge pages"
        result += rows(comparison, mode, THREADS, figures, Figures())
        result += goal_rows(comparison, mode, THREADS, figures, Figures())
    return result


def write_table(records: list[Record]) -> list[str]:
    """One row for each shape of one-step attention and of training, and how many goals are met."""
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] != "goal":
            cases.setdefault(row["case"], {})[row["provider"]] = row
    spread, padded = "twohot, lengths spread evenly", "twohot, half of it padding"
    kinds = {
        "one step": (
            ["one step, in us", "twohot", "x reading", "SDPA", "official", "lengths spread", "SDPA, masked"],
            ("torch SDPA", "official attention, in our lines", spread, "torch SDPA, masked"),
        ),
        "training": (
            ["forward and backward pass, in ms", "twohot", "x products", "SDPA", "half padding"],
            ("torch SDPA", padded),
        ),
        "whole cached step": (["whole cached step, in us", "twohot", "official"], ("official step, in our lines",)),
    }
    lines: list[str] = []
    for kind, (head, others) in kinds.items():
        body = []
        for case, own in cases.items():
            if not case.startswith(f"{kind}:"):
                continue
            cells = [case.split(": ", 1)[1], cell(own["twohot"], "p50")]
            cells += [cell(own["twohot"], "share_of_limit")] * (kind != "whole cached step")
            body.append([*cells, *(cell(own.get(name, {}), "p50") for name in others)])
        lines += [*table(head, body), ""]
    memory = [f"{name} {cell(row, 'extra_mb')} MB" for name, row in cases.get("peak memory of training", {}).items()]
    if memory:
        lines += [f"Peak memory of training (2 windows, 8 heads of 64, float32): {', '.join(memory)}.", ""]
    goals = [row for row in records if row["case"] == "goal"]
    missed = [
        f"{row['provider']} ({number(row['p50'])}, asked for {row['target']})" for row in goals if row["met"] == "no"
    ]
    lines += [f"Goals met: {sum(row['met'] == 'yes' for row in goals)} of {len(goals)}.", ""]
    lines += ["Missed: " + "; ".join(missed) + ".", ""] * bool(missed)
    cold = "Before each single step, 64 MB of other memory pass through the processor's caches, as in a rollout. "
    return [
        *lines,
        "Medians of calls in turn, in one process, two threads, huge pages for everybody. "
        f"{cold * any('cold' in row['mode'] for row in records)}Before any time is taken, "
        "outputs and gradients must agree with twohot's to 1e-4 (bfloat16: 3e-2), but for the official steps, whose "
        "windows roll in another way. The official code is written in our own lines with the same tensors. "
        f"{conditions(records[0])}. `python -m bench.run attention`.",
    ]


GROUP = Group(
    measures="attention beside torch and the official code: about five minutes on two cores",
    gates=("attention/test_attention.py", "kernels/test_attention_native.py", "kernels/test_transformer_step.py"),
    cases=(attention_beside_baselines,),
    tables=(Table("attention", write_table, ("attention",)),),
)
