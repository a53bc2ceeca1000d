"""What attention and its cache are given: counts, layers, devices, strides, options; each is right or a sentence."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from twohot.attention import KVCache, causal_attention, decode_attention, prefill_attention
from twohot.kernels.attention import op

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = (torch.zeros(2, 3, 2, 16),) * 3
ROW = (torch.zeros(2, 2, 16),) * 3
NAN = float("nan")


def cache(**options):
    return KVCache(**{"layers": 2, "environments": 2, "heads": 2, "head_size": 16, "length": 4} | options)


@pytest.mark.parametrize("steps", [-1, -100_000, 2**62, 2**70, 1.5, True, None, "1", NAN])
def test_a_cache_advances_by_a_number_of_steps(steps):
    made = cache()
    with pytest.raises(ValueError, match=r"KVCache\.advance: expected 0 to \d+ steps, or a tensor of them, got"):
        made.advance(steps)
    assert made.cache_position.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (torch.tensor([1, -1]), r"expected steps of 0 to \d+, got -1"),
        (torch.tensor([1, 2**40]), r"expected steps of 0 to \d+, got 1099511627776"),
        (torch.tensor([1]), r"expected integer steps of shape \[B\] = \(2,\)"),
        (torch.tensor([1.0, 2.0]), "expected integer steps"),
        (torch.tensor([1, 2], device="meta"), "expected steps on cpu, as the cache is, got meta"),
    ],
)
def test_a_cache_advances_by_a_number_for_each_environment(steps, words):
    with pytest.raises(ValueError, match=rf"KVCache\.advance: {words}"):
        cache().advance(steps)


def test_the_old_name_of_the_position_warns() -> None:
    made = cache()
    with pytest.warns(DeprecationWarning, match=r"KVCache\.seen is now cache_position"):
        assert made.seen is made.cache_position
    other = torch.full((2,), 3)
    with pytest.warns(DeprecationWarning, match=r"KVCache\.seen is now cache_position"):
        made.seen = other
    assert made.cache_position is other


@pytest.mark.parametrize("cache_position", [-1, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counts_that_somebody_wrote_are_seen(cache_position, dtype, implementation, monkeypatch):
    monkeypatch.setenv("TWOHOT_ATTENTION", implementation)
    made = cache(dtype=dtype)
    made.cache_position[1] = cache_position
    if cache_position > 0 and implementation == "reference":
        return  # torch's own arithmetic stays in the ring
    with pytest.raises(ValueError, match="cache_position: expected"):
        decode_attention(*ROW, made, 0)
    assert not made.keys.any()


@pytest.mark.parametrize(
    ("name", "odd", "words"),
    [
        (
            "cache_position",
            torch.zeros(1, dtype=torch.int64),
            r"cache_position: expected a contiguous tensor \[2\] of torch.int64",
        ),
        ("cache_position", torch.zeros(2, dtype=torch.int32), "cache_position: expected"),
        ("cache_position", torch.zeros(4, dtype=torch.int64)[::2], "cache_position: expected .* got a non-contiguous"),
        ("cache_position", torch.zeros(2, dtype=torch.int64, device="meta"), "cache_position: expected .* on meta"),
        ("keys", torch.zeros(2, 2, 2, 16, 4).mT, "keys: expected"),
        ("keys", torch.zeros(2, 1, 2, 4, 16).expand(2, 2, 2, 4, 16), "keys: expected"),
        ("values", torch.zeros(2, 2, 2, 3, 16), r"values: expected a contiguous tensor \[2, 2, 4, 16\]"),
        ("values", torch.zeros(2, 2, 2, 4, 16, dtype=torch.bfloat16), "values: expected"),
        ("values", torch.zeros(2, 2, 2, 4, 16, device="meta"), "values: expected"),
    ],
)
def test_a_caches_tensors_may_be_replaced_by_their_like_alone(name, odd, words, monkeypatch):
    monkeypatch.setenv("TWOHOT_ATTENTION", "native")
    made = cache()
    setattr(made, name, odd)
    with pytest.raises(ValueError, match=words):
        decode_attention(*ROW, made, 0)


@pytest.mark.parametrize("layer", [-1, 2, 2**40, True, 0.0, None])
def test_a_layer_is_one_of_the_caches(layer):
    lengths = torch.tensor([1, 1])
    calls = (
        lambda: decode_attention(*ROW, cache(), layer),
        lambda: prefill_attention(*WINDOW, lengths, cache(), layer),
        lambda: cache().write(layer, *WINDOW[1:], lengths),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"a layer (of 0 to 1|below 2)"):
            call()


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (torch.ones(1, dtype=torch.bool), ValueError, r"expected a bool mask of shape \(2,\) on cpu, got .* \(1,\)"),
        (torch.ones(3, dtype=torch.bool), ValueError, "expected a bool mask"),
        (torch.ones(2), ValueError, "expected a bool mask .* got torch.float32"),
        (torch.ones(2, dtype=torch.bool, device="meta"), ValueError, "expected a bool mask .* on meta"),
        (np.ones(2, bool), TypeError, "expected a tensor as mask, got ndarray"),
        ([True, False], TypeError, "expected a tensor as mask, got list"),
    ],
)
def test_a_mask_has_a_place_for_each_environment(mask, error, words):
    made = cache()
    made.advance(3)
    with pytest.raises(error, match=rf"KVCache\.reset: {words}"):
        made.reset(mask)
    assert made.cache_position.tolist() == [3, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 0},
        {"environments": -1},
        {"heads": 1.0},
        {"length": True},
        {"length": 2**70},
        {"head_size": 16.0},
        {"head_size": 0},
        {"dtype": torch.int32},
        {"sinks": 4},
        {"sinks": -1},
        {"sinks": 0.5},
        {"rotary": NAN},
        {"rotary": 1e-320},
        {"rotary": "x"},
    ],
)
def test_a_cache_has_sizes(options):
    with pytest.raises(ValueError, match="KVCache: expected"):
        cache(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0},
        {"window": -3},
        {"window": 1.5},
        {"window": True},
        {"sinks": -1},
        {"sinks": 0.0},
        {"softcap": 0.0},
        {"softcap": NAN},
        {"softcap": float("inf")},
        {"softcap": 1e-320},
        {"softcap": "x"},
        {"scale": NAN},
        {"scale": float("inf")},
        {"scale": 1e300},
        {"scale": "x"},
        {"rotary": -1.0},
        {"rotary": float("inf")},
        {"lengths": torch.tensor([1, 4])},
        {"lengths": torch.tensor([True, False])},
    ],
)
def test_options_are_numbers_in_their_range(options, implementation, monkeypatch):
    monkeypatch.setenv("TWOHOT_ATTENTION", implementation)
    with pytest.raises(ValueError, match="causal_attention: expected"):
        causal_attention(*WINDOW, **options)
    named = {name: value for name, value in options.items() if name in ("softcap", "scale")}
    if named:
        with pytest.raises(ValueError, match="decode_attention: expected"):
            decode_attention(*ROW, cache(), 0, **named)


def test_numbers_of_any_kind_and_any_size_are_taken():
    q, k, v = (torch.randn(2, 3, 2, 16) for _ in range(3))
    expected = causal_attention(q, k, v)
    assert torch.equal(causal_attention(q, k, v, window=2**62, sinks=np.int64(0)), expected)
    assert torch.equal(causal_attention(q, k, v, window=np.int32(7), sinks=2**62), expected)
    capped = causal_attention(q, k, v, softcap=5.0, scale=2.0)
    assert torch.equal(causal_attention(q, k, v, softcap=5, scale=np.float64(2)), capped)


def test_devices_are_seen_under_autocast_too():
    q, k, v = WINDOW
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"on one device, got .* on meta"):
        causal_attention(q, k.to("meta"), v)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_lengths_with_strides_are_read_by_them(dtype):
    q, k, v = (torch.randn(3, 5, 2, 16) for _ in range(3))
    lengths = torch.tensor([[1, 9], [5, -7], [2, 1 << 20]]).to(dtype)[:, 0]
    expected = causal_attention(q, k, v, lengths.clone())
    assert torch.equal(causal_attention(q, k, v, lengths), expected)


def test_a_rotation_is_that_of_the_counts_as_they_are():
    q, k, v = (torch.randn(2, 2, 16) for _ in range(3))
    made, other = cache(rotary=100.0), cache(rotary=100.0)
    decode_attention(q, k, v, made, 0)
    made.cache_position.fill_(3)
    other.advance(3)
    assert torch.equal(decode_attention(q, k, v, made, 1), decode_attention(q, k, v, other, 1))
    with torch.inference_mode():
        inside = cache(rotary=100.0)
        inside.advance(3)
        assert torch.equal(decode_attention(q, k, v, inside, 1), decode_attention(q, k, v, other, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"window": 2, "sinks": 1}, {"softcap": 3.0}, {"rotary": 100.0}], ids=str)
@pytest.mark.parametrize("lengths", [False, True])
def test_tensors_without_data_have_shapes_and_dtypes(dtype, options, lengths):
    def attend(device):
        q = torch.zeros(2, 5, 4, 16, dtype=dtype, device=device, requires_grad=True)
        k, v = (torch.zeros(2, 5, 2, 16, dtype=dtype, device=device) for _ in range(2))
        given = torch.tensor([2, 5], device=device) if lengths else None
        out = causal_attention(q, k, v, given, **options)
        out.sum().backward()
        return q, out

    q, out = attend("meta")
    with FakeTensorMode():
        fake, fake_out = attend("cpu")
    for x, y, device in ((q, out, "meta"), (fake, fake_out, "cpu")):
        assert y.shape == x.shape == x.grad.shape
        assert y.dtype == x.grad.dtype == dtype
        assert y.device.type == device


def test_a_cache_without_data_takes_steps():
    made = cache(device="meta", rotary=100.0)
    row, window = (torch.zeros(2, 2, 16, device="meta"),) * 3, (torch.zeros(2, 3, 2, 16, device="meta"),) * 3
    assert decode_attention(*row, made, 0).shape == (2, 2, 16)
    made.advance()
    made.reset(torch.ones(2, dtype=torch.bool, device="meta"))
    lengths = torch.ones(2, dtype=torch.int64, device="meta")
    assert prefill_attention(*window, lengths, made, 1).shape == (2, 3, 2, 16)
    made.advance(lengths)
    with pytest.raises(ValueError, match="prefill_attention: expected q, k, v on meta, as the cache is, got cpu"):
        prefill_attention(*WINDOW, torch.ones(2, dtype=torch.int64), made, 0)


STEP = {
    "q": torch.zeros(2, 4, 16),
    "k": torch.zeros(2, 2, 16),
    "v": torch.zeros(2, 2, 16),
    "keys": torch.zeros(2, 2, 4, 16),
    "values": torch.zeros(2, 2, 4, 16),
    "cache_position": torch.zeros(2, dtype=torch.int64),
    "sinks": 0,
    "softcap": 0.0,
    "scale": 1.0,
    "cosine": torch.zeros(2, 8),
    "sine": torch.zeros(2, 8),
}


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("k", torch.zeros(2, 1, 16)),
        ("k", torch.zeros(2, 2, 16, dtype=torch.bfloat16)),
        ("v", torch.zeros(1, 2, 16)),
        ("cosine", torch.zeros(2, 4)),
        ("cosine", torch.zeros(2, 8, dtype=torch.float64)),
        ("sine", torch.zeros(8, 2).T),
    ],
)
def test_the_operation_takes_nothing_by_its_address_alone(name, odd):
    with pytest.raises(ValueError, match=rf"{name}: expected a "):
        op.decode_attention(*(STEP | {name: odd}).values())


WRITE = {"k": WINDOW[1], "v": WINDOW[2], "lengths": torch.tensor([1, 3])}


@pytest.mark.parametrize(
    ("name", "odd", "words"),
    [
        ("lengths", torch.tensor([1, -1]), r"lengths of 0 to L = 3, got -1"),
        ("lengths", torch.tensor([1, 4]), r"lengths of 0 to L = 3, got 4"),
        ("lengths", torch.tensor([1]), r"lengths of shape \[B\]"),
        ("lengths", torch.tensor([1.0, 1.0]), r"integer lengths"),
        ("k", torch.zeros(1, 3, 2, 16), r"k, v of shape \[B, L, K, D\] = \(2, L, 2, 16\)"),
        ("k", torch.zeros(2, 3, 2, 8), r"k, v of shape"),
        ("v", torch.zeros(2, 2, 2, 16), r"k, v of shape"),
        ("v", torch.zeros(2, 3, 2, 16, device="meta"), "on cpu, as the cache is, got meta"),
    ],
)
def test_a_cache_stores_steps_of_its_own_shape(name, odd, words):
    made = cache()
    with pytest.raises(ValueError, match=rf"KVCache\.write: expected .*{words}"):
        made.write(0, **WRITE | {name: odd})
    assert not made.keys.any()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_what_a_cache_stores_has_no_gradient(dtype):
    made, k = cache(), torch.ones(2, 3, 2, 16, requires_grad=True)
    made.write(0, k, k, torch.tensor([1, 3], dtype=dtype))
    assert not made.keys.requires_grad
    assert made.keys[0, :, 0, :, 0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("odd", ["int64", "bool", "complex64", "float8_e4m3fn", "sparse"])
def test_a_step_is_of_dense_floats(odd):
    row = tuple(x.to_sparse() if odd == "sparse" else x.to(getattr(torch, odd)) for x in ROW)
    with pytest.raises(ValueError, match=r"decode_attention: expected (one of torch\.float32|a dense tensor as q)"):
        decode_attention(*row, cache(), 0)


def test_the_operation_says_which_queries_no_fused_code_takes():
    x = torch.zeros(1, 2, 1, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"no fused code takes torch\.float64"):
        op.causal_attention(x, x, x, None, None, None, 0, 0, 0.0, 1.0)


def test_a_cache_says_what_it_is():
    cache = KVCache(2, 3, 1, 16, 8, dtype=torch.bfloat16, sinks=2, rotary=1e4)
    said = "layers=2, environments=3, heads=1, head_size=16, length=8, dtype=torch.bfloat16, device='cpu', sinks=2"
    assert repr(cache) == f"KVCache({said}, rotary=10000.0)"
