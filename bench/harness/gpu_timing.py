"""Times on a GPU, by its own clock."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.harness.measure import Row, interleaved, percentiles

ROUNDS = 30


def milliseconds(work: Callable[[], object]) -> float:
    """Milliseconds of `work` on the GPU, by its own clock, the L2 cache emptied before."""
    torch.empty(1 << 28, dtype=torch.int8, device="cuda").zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def timed_rows(case: str, providers: dict[str, Callable[[], object]], shape: str, floor: str) -> list[Row]:
    """A row for each work, in turn; `floor` names the one that does the least that any could."""
    figures = interleaved({name: lambda work=work: milliseconds(work) for name, work in providers.items()}, ROUNDS)
    medians = {name: percentiles(values)[1] for name, values in figures.items()}
    name = torch.cuda.get_device_name()
    return [
        Row(
            case,
            provider,
            name,
            *percentiles(values),
            "ms",
            shape,
            share_of_limit=round(medians[provider] / medians[floor], 3),
            limit=floor,
            speedup=round(medians[provider] / medians["twohot"], 3),
        )
        for provider, values in figures.items()
    ]
