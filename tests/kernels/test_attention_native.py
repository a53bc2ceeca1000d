"""The native code of attention, in every form that this processor can run, and what chooses it."""

from __future__ import annotations

import pytest
import torch

from compare import assert_accurate
from two_hot_truth import normal
from twohot import _native
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels import backend
from twohot.kernels.attention import op, reference

CPU = torch.device("cpu")


def filled(size, rows, dtype, position, heads=2):
    """A cache in which environment b has seen position[b] steps; rows past those in use hold NaN."""
    cache = KVCache(1, len(position), heads, size, rows, dtype=dtype)
    cache.keys.copy_(normal(*cache.keys.shape, seed=1))
    cache.values.copy_(normal(*cache.values.shape, seed=2))
    cache.cache_position.copy_(torch.tensor(position))
    unused = torch.arange(rows) >= cache.cache_position.unsqueeze(1)
    for ring in (cache.keys, cache.values):
        ring.masked_fill_(unused[None, :, None, :, None], torch.nan)
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 32, 48, 64, 112, 128, 256])
def test_a_step_is_accurate(size, stored, dtype):
    for groups, softcap, scale in ((1, 0.0, size**-0.5), (9, 3.0, 0.3)):
        cache = filled(size, 150, stored, [0, 5, 15, 16, 31, 63, 100, 149, 150, 1234])
        q = normal(10, 2 * groups, size, seed=3, dtype=dtype)
        k, v = (normal(10, 2, size, seed=seed, dtype=dtype) for seed in (4, 5))
        assert backend.choose_decode(CPU, dtype, stored, size).name == "native"
        out = op.decode_attention(
            q, k, v, cache.keys[0], cache.values[0], cache.cache_position, 0, softcap, scale, *cache.rotation()
        )
        counts = (cache.cache_position + 1).clamp(max=150)
        rings = cache.keys[0], cache.values[0]
        slot = reference.ring_slot(cache.cache_position, 150, 0)
        for ring, new in zip(rings, (k, v), strict=True):
            assert torch.equal(ring[torch.arange(10), :, slot], new.to(stored))
        truth = reference.decode_attention(q.double(), *(x.double() for x in rings), counts, softcap or None, scale)
        plain = reference.decode_attention(q, *(x.to(dtype) for x in rings), counts, softcap or None, scale)
        assert out.dtype == dtype
        assert_accurate(out, truth, plain)


WINDOWS = {
    "one step": ((1, 1, 1, 1, 16), {}),
    "one tile": ((1, 48, 2, 2, 32), {}),
    "past every tile": ((1, 193, 2, 1, 48), {"scale": 0.3}),
    "negative scale": ((1, 70, 2, 1, 32), {"scale": -0.3}),
    "groups": ((2, 97, 6, 2, 64), {}),
    "lengths": ((5, 130, 2, 1, 32), {"lengths": torch.tensor([0, 1, 49, 97, 130])}),
    "window shorter than a tile": ((1, 250, 2, 2, 16), {"window": 5}),
    "window longer than a tile": ((1, 300, 1, 1, 80), {"window": 120}),
    "sinks": ((1, 350, 2, 1, 16), {"window": 9, "sinks": 100}),
    "softcap": ((1, 60, 2, 2, 64), {"softcap": 1.5}),
    "wide cap": ((1, 60, 2, 2, 64), {"softcap": 50.0}),
    "rotary": ((1, 60, 2, 1, 64), {"rotary": 1e4}),
    "largest heads": ((1, 100, 1, 1, 256), {}),
    "all": (
        (2, 240, 4, 2, 32),
        {"lengths": torch.tensor([240, 77]), "window": 30, "sinks": 3, "softcap": 4.0, "scale": 0.4, "rotary": 100.0},
    ),
}


def gradients(function, inputs, grad_output, **options):
    """The output and the gradients of the inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_output)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "options"), WINDOWS.values(), ids=WINDOWS.keys())
def test_windows_and_their_gradients_are_accurate(shape, options, dtype):
    batch, length, heads, kv_heads, size = shape
    assert backend.choose_attention(CPU, dtype, size, True).name == "native"
    inputs = [normal(batch, length, n, size, seed=i, dtype=dtype) for i, n in enumerate((heads, kv_heads, kv_heads))]
    grad_output = normal(batch, length, heads, size, seed=9, dtype=dtype)
    actual = gradients(causal_attention, inputs, grad_output, **options)
    truth = gradients(reference.causal_attention, [x.double() for x in inputs], grad_output.double(), **options)
    plain = gradients(reference.causal_attention, inputs, grad_output, **options)
    for a, t, p in zip(actual, truth, plain, strict=True):
        assert a.dtype == dtype
        assert_accurate(a, t, p, floor=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_packed_windows_are_read_in_place_and_padding_may_hold_nan(dtype):
    packed, lengths = normal(2, 140, 3, 2, 32, dtype=dtype), torch.tensor([61, 140])
    real = (torch.arange(140) < lengths.unsqueeze(1))[..., None, None]
    grad_output = normal(2, 2, 140, 32, seed=9, dtype=dtype).transpose(1, 2)
    copies = [x.contiguous() for x in packed.unbind(2)]
    clean = gradients(causal_attention, copies, grad_output.contiguous(), lengths=lengths.int())
    poisoned = packed.masked_fill(~real[..., None], torch.nan)
    again = gradients(causal_attention, poisoned.unbind(2), grad_output.masked_fill(~real, torch.nan), lengths=lengths)
    for a, b in zip(clean, again, strict=True):
        assert torch.equal(a, b)
        assert a[0, 61:].eq(0).all()


def test_places_that_do_not_follow_each_other_are_read_right():
    inputs, grad_output = [normal(2, 9, 2, 16, seed=seed) for seed in range(3)], normal(2, 9, 2, 16, seed=9)
    strided = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (*inputs, grad_output)]
    assert all(x.stride(-1) == 2 for x in strided)
    expected = gradients(causal_attention, inputs, grad_output)
    actual = gradients(causal_attention, strided[:3], strided[3])
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_float32_on_a_gpu_is_as_exact_as_torch_is_asked_to_be():
    before = torch.get_float32_matmul_precision()
    try:
        for precision, products in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
            torch.set_float32_matmul_precision(precision)
            assert op._precision() == products
    finally:
        torch.set_float32_matmul_precision(before)


def test_enormous_scores_of_a_window_select_one_step():
    q, k, v = (normal(1, 120, 1, 16, seed=seed) for seed in range(3))
    inputs = [1e4 * q, 1e4 * k, v]
    out = causal_attention(*inputs)
    assert_accurate(out, reference.causal_attention(*(x.double() for x in inputs)), reference.causal_attention(*inputs))


def test_threads_change_no_bit_of_a_window():
    inputs, grad_output = [normal(3, 200, 2, 32, seed=seed) for seed in range(3)], normal(3, 200, 2, 32, seed=9)
    before, outputs = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs.append(gradients(causal_attention, inputs, grad_output))
    torch.set_num_threads(before)
    for other in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outputs[0], other, strict=True))


def test_windows_are_registered_as_torch_expects():
    q, k, v = (normal(1, 9, 2, 16, seed=seed).requires_grad_() for seed in range(3))
    angles = reference.rotation(torch.arange(9), 16, 1e4, torch.float32)
    torch.library.opcheck(op.causal_attention_op, (q, k, v, torch.tensor([7]), *angles, 4, 1, 2.0, 0.25))
    assert not op.causal_attention(q, k, v, None, None, None, 0, 0, 0.0, 0.25)[1].requires_grad
    (first,) = torch.autograd.grad(causal_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(first.sum(), q)


def test_compiling_a_window_breaks_nowhere():
    inputs, grad_output = [normal(2, 70, 2, 16, seed=seed) for seed in range(3)], normal(2, 70, 2, 16, seed=9)
    compiled = torch.compile(lambda *x: causal_attention(*x, window=9) * 2, fullgraph=True, backend="aot_eager")
    expected = gradients(lambda *x: causal_attention(*x, window=9) * 2, inputs, grad_output)
    assert all(torch.equal(a, b) for a, b in zip(gradients(compiled, inputs, grad_output), expected, strict=True))


def test_enormous_scores_and_rising_scores_lose_nothing():
    cache = filled(16, 64, torch.float32, [63] * 3)
    cache.keys[0, 0] *= 1e4
    cache.keys[0, 1] = torch.arange(64.0).unsqueeze(1) * 0.3  # each row outweighs those before
    cache.keys[0, 2] = torch.arange(64.0).flip(0).unsqueeze(1) * 300
    q = normal(3, 2, 16).abs()
    k, v = cache.keys[0, :, :, 3].clone(), cache.values[0, :, :, 3].clone()
    out = decode_attention(q, k, v, cache, 0)
    truth = reference.decode_attention(
        q.double(), cache.keys[0].double(), cache.values[0].double(), cache.cache_position + 1
    )
    plain = reference.decode_attention(q, cache.keys[0], cache.values[0], cache.cache_position + 1)
    assert_accurate(out, truth, plain)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF])  # rounding would carry the second into the sign
def test_nan_reaches_its_own_head_alone(bits, stored):
    cache = filled(16, 40, stored, [30, 30])
    q, k, v = (normal(2, 2, 16, seed=seed) for seed in range(3))
    k[1, 0, 3] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    out = decode_attention(q, k, v, cache, 0)
    assert out.isnan().any(-1).tolist() == [[False, False], [True, False]]


def test_threads_change_no_bit():
    outputs = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        cache = filled(64, 300, torch.float32, list(range(0, 640, 20)))
        outputs.append(decode_attention(*(normal(32, 2, 64, seed=seed) for seed in range(3)), cache, 0))
    torch.set_num_threads(before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_packed_projections_are_read_where_they_are():
    packed = normal(3, 3, 2, 16)
    one, other = filled(16, 9, torch.float32, [0, 4, 20]), filled(16, 9, torch.float32, [0, 4, 20])
    views, copies = packed.unbind(1), [x.contiguous() for x in packed.unbind(1)]
    assert torch.equal(decode_attention(*views, one, 0), decode_attention(*copies, other, 0))
    scattered = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in copies]
    assert torch.equal(decode_attention(*scattered, one, 0), decode_attention(*copies, other, 0))


def test_the_operation_is_registered_as_torch_expects():
    cache = filled(16, 9, torch.float32, [0, 4])
    q, k, v = (normal(2, 2, 16, seed=seed) for seed in range(3))
    arguments = (q, k, v, cache.keys[0], cache.values[0], cache.cache_position, 0, 0.0, 0.25, None, None)
    torch.library.opcheck(op.decode_attention_op, arguments)


def test_compiling_a_step_breaks_nowhere():
    def step(q, k, v, cache):
        return decode_attention(q * 2, k, v, cache, 0) + 1

    tensors = [normal(2, 2, 16, seed=seed) for seed in range(3)]
    expected = step(*tensors, filled(16, 9, torch.float32, [0, 4]))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    cache = filled(16, 9, torch.float32, [0, 4])
    assert torch.equal(compiled(*tensors, cache), expected)
    assert torch.equal(cache.keys[0, 1, :, 4], tensors[1][1])


# Which implementation runs


def test_the_choice_has_a_reason(monkeypatch):
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
    monkeypatch.delenv("TWOHOT_ATTENTION", raising=False)
    choose = backend.choose_decode
    for dtype, stored, size, reason in (
        (torch.float64, torch.float32, 16, "the queries are torch.float64, fused code takes"),
        (
            torch.float32,
            torch.float16,
            16,
            "the cache is torch.float16, fused code takes torch.float32, torch.bfloat16",
        ),
        (torch.float32, torch.float32, 24, "the head size is 24, fused code takes multiples of 16 up to 256"),
    ):
        assert choose(CPU, dtype, stored, size).name == "reference"
        assert reason in choose(CPU, dtype, stored, size).reason
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert choose(CPU, torch.float32, torch.float32, 16) == backend.Choice("reference", "TWOHOT_BACKEND asks for it")
    monkeypatch.setenv("TWOHOT_BACKEND", "native")
    reason = "TWOHOT_BACKEND asks for native, but the head size is 8, fused code takes multiples of 16 up to 256"
    assert backend.choose_attention(CPU, torch.float32, 8, False) == backend.Choice("sdpa", reason)
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    monkeypatch.setenv("TWOHOT_ATTENTION", "native")
    assert choose(CPU, torch.float32, torch.float32, 16).name == "native"
    with pytest.raises(RuntimeError, match="TWOHOT_ATTENTION asks for native, but the head size is 8"):
        choose(CPU, torch.float32, torch.float32, 8)
    monkeypatch.setenv("TWOHOT_ATTENTION", "sdpa")
    assert backend.choose_attention(CPU, torch.float32, 16, False).name == "sdpa"
    with pytest.raises(RuntimeError, match="TWOHOT_ATTENTION asks for sdpa, but torch's own attention has no softcap"):
        causal_attention(*(normal(1, 2, 1, 16) for _ in range(3)), softcap=1.0)
    reason = "TWOHOT_ATTENTION asks for sdpa, but this operation has none"
    assert choose(CPU, torch.float32, torch.float32, 16) == backend.Choice("native", reason)
    choice = backend.choose_attention(CPU, torch.float32, 16, False)
    assert choice == backend.Choice("sdpa", "TWOHOT_ATTENTION asks for it")
    monkeypatch.setenv("TWOHOT_ATTENTION", "quantum")
    for choose_any in (choose, backend.choose_attention):
        with pytest.raises(RuntimeError, match="expected one of auto, native, triton, reference, sdpa, got 'quantum'"):
            choose_any(CPU, torch.float32, *((torch.float32, 16) if choose_any is choose else (16, False)))
    assert backend.choose_two_hot(CPU, torch.float32, 8).name == "reference"
    monkeypatch.setenv("TWOHOT_ATTENTION", "auto")
    assert backend.choose_attention(CPU, torch.float16, 16, False).name == "sdpa"
    assert backend.choose_attention(CPU, torch.float16, 16, True).name == "reference"
    assert backend.choose_attention(CPU, torch.float32, 24, False).name == "sdpa"


def test_native_code_checks_its_arguments():
    x = torch.zeros(1 << 12)
    given = {
        **dict.fromkeys(("keys", "values", "query", "key", "value", "cache_position", "output"), x.data_ptr()),
        **{"cache_dtype": "float32", "dtype": "float32", "environments": 1, "heads": 1, "rows": 4, "size": 16},
        **{"query_stride": 16, "key_stride": 16, "value_stride": 16, "scale": 1.0, "threads": 1},
    }
    _native.decode_attention(**given)
    for wrong, sentence in (
        ({"size": 24}, "expected a head size that is a multiple of 16 up to 256, got 24"),
        ({"size": 272}, "got 272"),
        ({"cache_dtype": "float16"}, "cache_dtype: expected one of 'float32', 'bfloat16'; got 'float16'"),
        ({"dtype": "int8"}, "dtype: expected one of 'float32', 'bfloat16', 'float16'; got 'int8'"),
        ({"sinks": 4}, "0 <= sinks < rows, got 1, 1, 4 of 4"),
        ({"heads": 0}, "expected heads"),
        ({"cache_position": 0}, "got a zero"),
        ({"cosine": x.data_ptr()}, "got a zero"),
        ({"softcap": -1.0}, "expected a finite scale and a softcap >= 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.decode_attention(**{**given, **wrong})


def test_native_windows_check_their_arguments():
    x = torch.zeros(1 << 12)
    row = (x.data_ptr(), 64, 16, 16)
    given = {
        **dict.fromkeys(("query", "key", "value", "output"), row),
        **{"dtype": "float32", "batch": 1, "steps": 4, "heads": 1, "size": 16, "scale": 1.0, "lse": x.data_ptr()},
    }
    window = _native.AttentionWindow(**given)
    _native.causal_attention(window, 1)
    for wrong, sentence in (
        ({"size": 24}, "expected a head size that is a multiple of 16 up to 256, got 24"),
        ({"dtype": "float16"}, "dtype: expected one of 'float32', 'bfloat16'; got 'float16'"),
        ({"heads": 0}, "expected heads, groups >= 1"),
        ({"output": (0, 64, 16, 16)}, "got a zero"),
        ({"lse": 0}, "got a zero"),
        ({"cosine": x.data_ptr()}, "got a zero"),
        ({"softcap": -1.0}, "expected a finite scale and a softcap >= 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.AttentionWindow(**{**given, **wrong})
    lengths = torch.tensor([5])
    with pytest.raises(ValueError, match="expected lengths of 0 to the steps"):
        _native.causal_attention(_native.AttentionWindow(**given, lengths=lengths.data_ptr()), 1)
    with pytest.raises(ValueError, match="got a zero"):
        _native.causal_attention_backward(window, row, row, row, (0, 64, 16, 16), 1)
    _native.causal_attention(_native.AttentionWindow(**{**given, "batch": 0, "query": (0, 0, 0, 0), "lse": 0}), 1)
