"""Attention on a GPU, beside torch's own kernels (FlashAttention-2 among them) and FlexAttention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from bench.baselines.flex_attention import flex
from bench.harness.compare import difference
from bench.harness.gpu_timing import timed_rows
from bench.harness.measure import Row
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels.attention import torch_attention

SEQUENCES, HEADS = 24, 8
WINDOWS = tuple(product((torch.bfloat16, torch.float16, torch.float32), (256, 1024, 4096), (32, 64, 128)))
STEPS = tuple(product((torch.bfloat16, torch.float32), (16, 256), (256, 1024), (32, 64)))
TOLERANCES = {torch.float32: 1e-2, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # float32: some multiply in tf32

Providers = dict[str, Callable[[], object]]


def window_providers(dtype: torch.dtype, length: int, size: int, device: str, sequences: int = SEQUENCES) -> Providers:
    """Forward and backward pass over windows: a product that none avoids, ours, torch's, and ours half padding."""
    shape = (sequences, length, HEADS, size)
    inputs = [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for _ in range(3)]
    grad_output = torch.randn(shape, device=device, dtype=dtype)
    half = (torch.linspace(0, 1, sequences, device=device) * length).long()
    left, right = (x.detach().transpose(1, 2) for x in inputs[:2])

    def differentiated(attend: Callable[..., Tensor], **options) -> tuple[Tensor | None, ...]:
        out = attend(*inputs, **options)
        return None, out.detach(), *torch.autograd.grad(out, inputs, grad_output)

    providers: Providers = {
        "queries times keys": lambda: left @ right.mT,
        "twohot": partial(differentiated, causal_attention),
        "torch SDPA": partial(differentiated, torch_attention.sdpa),
        "FlexAttention": partial(differentiated, flex),
        "twohot, half of it padding": partial(differentiated, causal_attention, lengths=half),
    }
    if device == "cpu":
        del providers["FlexAttention"]  # has no gradient there
    return providers


def step_providers(dtype: torch.dtype, environments: int, length: int, size: int, device: str) -> Providers:
    """One step against full caches, beside a copy of keys and values."""
    cache = KVCache(1, environments, HEADS, size, length, dtype=dtype, device=device)
    cache.keys.normal_()
    cache.values.normal_()
    cache.cache_position.fill_(2 * length)
    q, k, v = torch.randn(3, environments, HEADS, size, device=device).to(dtype).unbind()
    copy = torch.empty_like(cache.keys)

    def sdpa() -> tuple[None, Tensor]:
        out = functional.scaled_dot_product_attention(q.unsqueeze(2), cache.keys[0], cache.values[0])
        return None, out.squeeze(2)

    return {
        "copy of the keys, which reads and writes as much": lambda: copy.copy_(cache.keys),
        "twohot": lambda: (None, decode_attention(q, k, v, cache, 0)),
        "torch SDPA": sdpa,
    }


def agree(providers: Providers, dtype: torch.dtype) -> None:
    """Raise RuntimeError where a baseline's outputs or gradients are not ours."""
    ours = providers["twohot"]()
    for name in ("torch SDPA", "FlexAttention"):
        if name in providers and (wrong := difference(providers[name](), ours, TOLERANCES[dtype])):
            raise RuntimeError(f"{name} differs from twohot: {wrong}")


def attention_on_a_gpu() -> list[Row]:
    """Training windows and single steps of attention on a GPU, against SDPA and FlexAttention."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA or ROCm device is here")
    result = []
    for dtype, length, size in WINDOWS:
        providers = window_providers(dtype, length, size, "cuda")
        agree(providers, dtype)
        shape = f"{SEQUENCES} x {length} steps, {HEADS} heads of {size}, {dtype}"
        result += timed_rows("attention: forward and backward pass", providers, shape, "queries times keys")
    for dtype, environments, length, size in STEPS:
        providers = step_providers(dtype, environments, length, size, "cuda")
        agree(providers, dtype)
        shape = f"{environments} environments, context {length}, {HEADS} heads of {size}, {dtype}"
        result += timed_rows("attention: one step", providers, shape, next(iter(providers)))
    return result
