"""The Triton kernels of attention against float64: on a GPU where there is one, else interpreted.

Triton chooses between compiler and interpreter when it is imported, so the interpreted tests run in a process of their
own, started by `test_in_the_interpreter`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compare import assert_accurate
from two_hot_truth import normal
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels.attention import op, reference

if sys.platform != "linux":
    pytest.skip("the development environment has Triton on Linux alone", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAN = float("nan")

if not INTERPRETED:

    def test_in_the_interpreter() -> None:
        """The tests below, in a process whose Triton interprets: none fails, none is skipped."""
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", str(Path(__file__)), "-p", "no:cacheprovider"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:]
        assert "skipped" not in result.stdout, result.stdout[-3000:]


@pytest.fixture(params=[pytest.param(DEVICE, marks=[] if INTERPRETED else GPU)])
def device(request, monkeypatch):
    """Where kernels run. NumPy, which interprets, would warn of overflow; a GPU does not. float32 is exact."""
    monkeypatch.setenv("TWOHOT_ATTENTION", "triton")
    with np.errstate(all="ignore"):
        yield request.param


WINDOWS = {
    "one step": ((1, 1, 1, 1, 16), {}),
    "one block and one": ((1, 129, 1, 1, 16), {}),
    "sizes that are no powers of two": ((1, 37, 3, 1, 48), {"scale": 0.3}),
    "groups": ((1, 33, 6, 2, 32), {}),
    "lengths": ((4, 70, 2, 1, 32), {"lengths": torch.tensor([0, 1, 33, 70])}),
    "window shorter than a block": ((1, 150, 1, 1, 16), {"window": 5}),
    "window longer than a block": ((1, 200, 1, 1, 32), {"window": 70}),
    "sinks": ((1, 150, 1, 1, 16), {"window": 9, "sinks": 40}),
    "softcap": ((1, 40, 2, 2, 64), {"softcap": 1.5}),
    "wide cap": ((1, 40, 2, 2, 64), {"softcap": 50.0}),
    "rotary": ((1, 40, 2, 1, 64), {"rotary": 1e4}),
    "largest heads": ((1, 35, 1, 1, 256), {}),
    "all": (
        (2, 100, 2, 1, 32),  # so long that a block lies between the sinks and the window
        {"lengths": torch.tensor([100, 47]), "window": 30, "sinks": 3, "softcap": 4.0, "scale": 0.4, "rotary": 100.0},
    ),
}
PAIRS = list(itertools.product(WINDOWS, DTYPES))
if INTERPRETED:  # bfloat16 and float16 have the same blocks: each window has one of them
    PAIRS = [pair for i, name in enumerate(WINDOWS) for pair in ((name, torch.float32), (name, DTYPES[1 + i % 2]))]


def named(value) -> str:
    """A window or a dtype in the name of a test."""
    return str(value).removeprefix("torch.")


def gradients(function, inputs, grad_output, **options):
    """The output and the gradients of the inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    return [out.detach().cpu(), *(x.cpu() for x in torch.autograd.grad(out, inputs, grad_output))]


@pytest.mark.parametrize(("name", "dtype"), PAIRS, ids=named)
def test_windows_and_their_gradients(name, dtype, device):
    (batch, length, heads, kv_heads, size), options = WINDOWS[name]
    if size == 256 and dtype == torch.float32:
        with pytest.raises(RuntimeError, match="head size is 256, Triton takes float32 up to 128"):
            causal_attention(*(torch.zeros(1, 1, 1, size, device=device) for _ in range(3)))
        return
    inputs = [normal(batch, length, n, size, seed=i, dtype=dtype) for i, n in enumerate((heads, kv_heads, kv_heads))]
    grad_output = normal(batch, length, heads, size, seed=9, dtype=dtype)
    placed = {name: x.to(device) if name == "lengths" else x for name, x in options.items()}
    actual = gradients(causal_attention, [x.to(device) for x in inputs], grad_output.to(device), **placed)
    truth = gradients(reference.causal_attention, [x.double() for x in inputs], grad_output.double(), **options)
    plain = gradients(reference.causal_attention, inputs, grad_output, **options)
    for a, t, p in zip(actual, truth, plain, strict=True):
        assert a.dtype == dtype
        assert_accurate(a, t, p, floor=16)


def test_padding_may_hold_nan_and_packed_projections_are_read_in_place(device):
    packed = normal(2, 40, 3, 2, 16).to(device)
    lengths = torch.tensor([17, 40], device=device)
    real = (torch.arange(40, device=device) < lengths.unsqueeze(1))[..., None, None]
    grad_output = normal(2, 40, 2, 16, seed=9).to(device)
    clean = gradients(causal_attention, packed.unbind(2), grad_output, lengths=lengths)
    poisoned = packed.masked_fill(~real[..., None], NAN)
    again = gradients(causal_attention, poisoned.unbind(2), grad_output.masked_fill(~real, NAN), lengths=lengths)
    for a, b in zip(clean, again, strict=True):
        assert torch.equal(a, b)
        assert a[0, 17:].eq(0).all()


def test_enormous_scores_select_one_step(device):
    q, k, v = (normal(1, 20, 1, 16, seed=seed) for seed in range(3))
    inputs = [1e4 * q, 1e4 * k, v]
    out = causal_attention(*(x.to(device) for x in inputs)).cpu()
    assert_accurate(out, reference.causal_attention(*(x.double() for x in inputs)), reference.causal_attention(*inputs))


STEPS = list(itertools.product(DTYPES, (torch.float32, torch.bfloat16)))
if INTERPRETED:  # what is given and what is stored are each read as float32
    STEPS = list(zip(DTYPES, (torch.float32, torch.bfloat16, torch.float32), strict=True))


@pytest.mark.parametrize(("dtype", "stored"), STEPS, ids=named)
@pytest.mark.parametrize(
    ("size", "rows", "sinks", "groups", "softcap", "rotary"),
    [(16, 150, 0, 1, None, None), (48, 40, 0, 3, 2.0, None), (64, 300, 5, 2, None, 1e4), (256, 70, 0, 1, None, None)],
)
def test_steps(size, rows, sinks, groups, softcap, rotary, stored, dtype, device):
    cache = KVCache(1, 4, 2, size, rows, dtype=stored, device=device, sinks=sinks, rotary=rotary)
    cache.cache_position.copy_(torch.tensor([0, 33, rows - 1, 3 * rows + 2]))
    unused = (torch.arange(rows, device=device) >= cache.cache_position.unsqueeze(1))[None, :, None, :, None]
    for ring, seed in ((cache.keys, 1), (cache.values, 2)):
        ring.copy_(normal(*ring.shape, seed=seed)).masked_fill_(unused, NAN)
    q = normal(4, 2 * groups, size, seed=3, dtype=dtype).to(device)
    k, v = (normal(4, 2, size, seed=seed, dtype=dtype).to(device) for seed in (4, 5))
    before = cache.keys.clone()
    out = decode_attention(q, k, v, cache, 0, softcap=softcap)
    angles = cache.rotation()
    if rotary is not None:
        q, k = (reference.rotate(x.double(), *(angle.double() for angle in angles)) for x in (q, k))
    slot = reference.ring_slot(cache.cache_position, rows, sinks)
    environments = torch.arange(4, device=device)
    assert_accurate(cache.keys[0][environments, :, slot].cpu(), k.double().cpu(), floor=1)
    # The interpreter cuts bfloat16 off where a GPU rounds.
    assert_accurate(cache.values[0][environments, :, slot].cpu(), v.double().cpu(), floor=1)
    before[0][environments, :, slot] = cache.keys[0][environments, :, slot]
    assert torch.equal(before.nan_to_num(), cache.keys.nan_to_num())
    counts = (cache.cache_position + 1).clamp(max=rows)
    rings = [x[0].cpu() for x in (cache.keys, cache.values)]
    truth = reference.decode_attention(q.double().cpu(), *(x.double() for x in rings), counts.cpu(), softcap)
    plain = reference.decode_attention(q.to(dtype).cpu(), *(x.to(dtype) for x in rings), counts.cpu(), softcap)
    assert_accurate(out.cpu(), truth, plain)


def test_operations_are_registered_as_torch_expects(device):
    q, k, v = (normal(1, 9, 2, 16, seed=seed).to(device).requires_grad_() for seed in range(3))
    lengths = torch.tensor([7], device=device)
    torch.library.opcheck(op.causal_attention_op, (q, k, v, lengths, None, None, 4, 1, 0.0, 0.25))


def test_equal_inputs_give_equal_bits(device):
    batch, heads = (1, 1) if INTERPRETED else (8, 8)  # the interpreter runs one program after the other
    inputs = [normal(batch, 90, heads, 32, seed=seed).to(device) for seed in range(3)]
    grad_output = normal(batch, 90, heads, 32, seed=9).to(device)
    once, again = (gradients(causal_attention, inputs, grad_output) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
