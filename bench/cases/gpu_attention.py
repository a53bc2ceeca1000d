"""Attention on a GPU, beside torch's own kernels (cuDNN's and FlashAttention's), FlexAttention and flash-attn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.baselines.flex_attention import flex
from bench.baselines.packages import installed_version
from bench.harness.compare import NOT_INSTALLED
from bench.harness.gpu_timing import Case, Work
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels.attention import torch_attention

SEQUENCES, HEADS = 24, 8
WINDOWS = (
    *product((torch.bfloat16,), (256, 1024), (32, 64)),
    *product((torch.float32,), (256, 1024), (32,)),
    *product((torch.bfloat16,), (64, 4096), (32, 64)),
    (torch.bfloat16, 1024, 128),
    (torch.float16, 1024, 64),
)
"""Dtype, steps and head size, the most important first."""
FLEX = ((256, 32), (1024, 64))
"""Of these bfloat16 windows FlexAttention, which is compiled for each shape, takes part."""
STEPS = (
    *product((torch.bfloat16,), (16, 256), (256, 1024), (32, 64)),
    *product((torch.float32,), (16, 256), (1024,), (32,)),
)
TOLERANCES = {torch.float32: 1e-2, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # float32: some multiply in tf32
BACKENDS = {"SDPA, cuDNN": SDPBackend.CUDNN_ATTENTION, "SDPA, flash": SDPBackend.FLASH_ATTENTION}
Attend = Callable[..., Tensor]


def by_backend(backend: SDPBackend) -> Attend:
    """torch's attention by one of its kernels alone, which raises where it takes no such inputs."""

    def attend(*inputs: Tensor, **options) -> Tensor:
        with sdpa_kernel(backend):
            return torch_attention.sdpa(*inputs, **options)

    return attend


def flash_attention(function: str) -> Attend | str:
    """A function of FlashAttention's package."""
    if installed_version("flash-attn") is None:
        return NOT_INSTALLED
    import flash_attn

    return getattr(flash_attn, function)


def window_works(dtype: torch.dtype, length: int, size: int, sequences: int, device: str) -> dict[str, Work | str]:
    """Forward and backward pass over windows: a product that none avoids, ours, torch's, and ours half padding."""
    shape = (sequences, length, HEADS, size)
    inputs = [torch.randn(shape, device=device).to(dtype).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(shape, device=device).to(dtype)
    half = (torch.linspace(0, 1, sequences, device=device) * length).long()
    left, right = (x.detach().transpose(1, 2) for x in inputs[:2])

    def differentiated(attend: Attend, **options) -> tuple[Tensor | None, ...]:
        out = attend(*inputs, **options)
        return None, out.detach(), *torch.autograd.grad(out, inputs, grad_output)

    def padded() -> None:
        differentiated(causal_attention, lengths=half)

    on_cpu, half_precision = device == "cpu", dtype != torch.float32
    package = flash_attention("flash_attn_func")
    works: dict[str, Work | str] = {
        "queries times keys": lambda: left @ right.mT,
        "twohot": partial(differentiated, causal_attention),
        "twohot, half of it padding": padded,
        "SDPA": partial(differentiated, torch_attention.sdpa),
    }
    for name, backend in BACKENDS.items() if half_precision else ():
        works[name] = "no GPU" if on_cpu else partial(differentiated, by_backend(backend))
    if (length, size) in FLEX and dtype == torch.bfloat16:
        works["FlexAttention"] = "no GPU" if on_cpu else partial(differentiated, flex)  # no gradient on a CPU
    if half_precision:
        works["FlashAttention"] = package if isinstance(package, str) else partial(differentiated, package, causal=True)
    return works


def step_works(dtype: torch.dtype, environments: int, length: int, size: int, device: str) -> dict[str, Work | str]:
    """One step against full caches, beside a copy of keys and values."""
    cache = KVCache(1, environments, HEADS, size, length, dtype=dtype, device=device)
    cache.keys.normal_()
    cache.values.normal_()
    cache.cache_position.fill_(2 * length)
    q, k, v = torch.randn(3, environments, HEADS, size, device=device).to(dtype).unbind()
    copy = torch.empty_like(cache.keys)

    def sdpa(backend: SDPBackend | None = None) -> tuple[None, Tensor]:
        with nullcontext() if backend is None else sdpa_kernel(backend):
            out = functional.scaled_dot_product_attention(q.unsqueeze(2), cache.keys[0], cache.values[0])
        return None, out.squeeze(2)

    package = flash_attention("flash_attn_with_kvcache")

    def with_cache() -> tuple[None, Tensor]:
        rings = (x[0].transpose(1, 2) for x in (cache.keys, cache.values))
        return None, package(q.unsqueeze(1), *rings).squeeze(1)

    works: dict[str, Work | str] = {
        "copy of the keys, which reads and writes as much": lambda: copy.copy_(cache.keys),
        "twohot": lambda: (None, decode_attention(q, k, v, cache, 0)),
        "SDPA": sdpa,
    }
    if dtype != torch.float32:
        works["SDPA, cuDNN"] = "no GPU" if device == "cpu" else partial(sdpa, SDPBackend.CUDNN_ATTENTION)
        works["FlashAttention"] = package if isinstance(package, str) else with_cache
    return works


def cases(tiny: bool) -> list[Case]:
    """Training windows, then single steps."""
    found = []
    sequences, windows, steps = SEQUENCES, WINDOWS, STEPS
    if tiny:
        sequences, windows = 2, ((torch.bfloat16, 9, 32), (torch.float32, 9, 16))
        steps = ((torch.bfloat16, 3, 8, 16), (torch.float32, 3, 8, 32))
    for dtype, length, size in windows:
        flops = 7 * sequences * HEADS * length**2 * size / 1e9  # of causal products: 2 forward, 5 backward
        build, shape = (
            partial(window_works, dtype, length, size, sequences),
            f"{sequences} x {length} steps, {HEADS} heads",
        )
        own = {"limit": "queries times keys", "tolerance": TOLERANCES[dtype], "amount": flops, "rate_unit": "TFLOP/s"}
        own |= {"seconds": 30 if (length, size) in FLEX else 8}
        found.append(Case("attention: forward and backward pass", f"{shape} of {size}, {dtype}", build, **own))
    for dtype, environments, length, size in steps:
        moved = 2 * environments * HEADS * length * size * dtype.itemsize / 1e6
        shape = f"{environments} environments, context {length}, {HEADS} heads of {size}, {dtype}"
        build = partial(step_works, dtype, environments, length, size)
        own = {"tolerance": TOLERANCES[dtype], "amount": moved, "rate_unit": "GB/s", "seconds": 4}
        limit = "copy of the keys, which reads and writes as much"
        found.append(Case("attention: one step", shape, build, limit, **own))
    return found
