"""Causal attention of windows, and the ring cache that continues it step by step."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_accurate
from perturbation import DEVIATIONS, in_float64
from twohot.attention import KVCache, causal_attention, decode_attention, prefill_attention
from twohot.kernels.attention import reference, torch_attention
from twohot.nets.transformer import Transformer


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def attend(q, keys, values, softcap=None, scale=None):
    """softmax(cap(scale q . k)) v of one query [D] over rows [n, D], by loops over plain numbers."""
    scale = 1 / math.sqrt(len(q)) if scale is None else scale
    scores = [scale * sum(a * b for a, b in zip(q, key, strict=True)) for key in keys]
    if softcap is not None:
        scores = [softcap * math.tanh(score / softcap) for score in scores]
    weights = [math.exp(score - max(scores)) for score in scores]
    total = sum(weights)
    return [sum(w * value[d] for w, value in zip(weights, values, strict=True)) / total for d in range(len(q))]


def turned(x, t, base):
    """The pairs (x_i, x_{i + D/2}) of a row turned by t base^(-2 i / D)."""
    half = len(x) // 2
    angles = [t * base ** (-2 * i / len(x)) for i in range(half)]
    pairs = [(x[i] + 1j * x[i + half]) * complex(math.cos(a), math.sin(a)) for i, a in enumerate(angles)]
    return [pair.real for pair in pairs] + [pair.imag for pair in pairs]


def causal_by_loop(q, k, v, lengths=None, window=None, sinks=0, softcap=None, scale=None, rotary=None):
    out = torch.zeros_like(q)
    batch, length, heads, _ = q.shape
    groups = heads // k.shape[2]
    for b, t, h in itertools.product(range(batch), range(length), range(heads)):
        if lengths is not None and t >= lengths[b]:
            continue
        steps = [s for s in range(t + 1) if window is None or s > t - window or s < sinks]
        query, keys = q[b, t, h].tolist(), [k[b, s, h // groups].tolist() for s in steps]
        if rotary is not None:
            query, keys = turned(query, t, rotary), [turned(x, s, rotary) for x, s in zip(keys, steps, strict=True)]
        values = [v[b, s, h // groups].tolist() for s in steps]
        out[b, t, h] = torch.tensor(attend(query, keys, values, softcap, scale), dtype=torch.float64)
    return out


def tensors(shape, heads=None, dtype=torch.float32, seed=0):
    """q [B, L, H, D] and k, v with `heads` heads."""
    batch, length, queries, size = shape
    return [
        normal(batch, length, n, size, seed=seed + i, dtype=dtype)
        for i, n in enumerate((queries, *[heads or queries] * 2))
    ]


OPTIONS = {
    "plain": {},
    "lengths": {"lengths": torch.tensor([7, 0])},
    "window": {"window": 3},
    "window of one": {"window": 1},
    "window longer than the sequence": {"window": 50},
    "sinks": {"window": 2, "sinks": 3},
    "softcap and scale": {"softcap": 0.7, "scale": 1.3},
    "negative scale": {"scale": -0.8},
    "scale 0": {"scale": 0.0},
    "rotary": {"rotary": 100.0},
    "all": {"lengths": torch.tensor([9, 5]), "window": 4, "sinks": 1, "softcap": 2.0, "scale": 0.5, "rotary": 1e4},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


# Whole windows


@pytest.mark.parametrize("heads", [4, 2, 1])
@every_option
def test_reference_equals_loops(options, heads):
    inputs = tensors((2, 9, 4, 6), heads, torch.float64)
    assert_accurate(reference.causal_attention(*inputs, **options), causal_by_loop(*inputs, **options), floor=64)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_reference_gradients_numerically(name):
    inputs = [x.requires_grad_() for x in tensors((2, 5, 2, 4), 1, torch.float64)]
    options = {**OPTIONS[name], **({"lengths": torch.tensor([5, 3])} if name == "all" else {})}
    assert torch.autograd.gradcheck(lambda *x: reference.causal_attention(*x, **options), inputs)


def gradients(function, inputs, grad_output, **options):
    """The output and the gradients of the inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_output)]


def assert_right(inputs, floor=16, **options):
    grad_output = normal(*inputs[0].shape, seed=9, dtype=inputs[0].dtype)
    actual = gradients(causal_attention, inputs, grad_output, **options)
    plain = gradients(reference.causal_attention, inputs, grad_output, **options)
    truth = gradients(reference.causal_attention, [x.double() for x in inputs], grad_output.double(), **options)
    assert actual[0].dtype == inputs[0].dtype
    for a, t, p in zip(actual, truth, plain, strict=True):
        assert_accurate(a, t, p, floor=floor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 7, 2, 5), (2, 64, 3, 16), (1, 129, 2, 32), (2, 0, 1, 4), (0, 3, 1, 4)]
)
def test_causal_attention_and_its_gradients(shape, dtype):
    assert_right(tensors(shape, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_option
def test_options_and_their_gradients(options, dtype):
    assert_right(tensors((2, 9, 4, 16), 2, dtype), **options)


@every_option
def test_padding_may_hold_nan_and_gets_zeros(options):
    lengths = options.get("lengths", torch.tensor([4, 9]))
    inputs = tensors((2, 9, 2, 16))
    grad_output = normal(2, 9, 2, 16, seed=9)
    real = torch.arange(9) < lengths.unsqueeze(1)
    clean = gradients(causal_attention, inputs, grad_output, **{**options, "lengths": lengths})
    poisoned = [torch.where(real[..., None, None], x, math.nan) for x in (*inputs, grad_output)]
    again = gradients(causal_attention, poisoned[:3], poisoned[3], **{**options, "lengths": lengths})
    for a, b in zip(clean, again, strict=True):
        assert torch.equal(a, b)
        assert a[~real].eq(0).all()


def test_causal_attention_by_hand():
    # Zero queries attend evenly: each step's output is the mean of the values so far.
    v = torch.tensor([1.0, 3.0, 8.0]).reshape(1, 3, 1, 1)
    zeros = torch.zeros_like(v)
    assert causal_attention(zeros, zeros, v).flatten().tolist() == pytest.approx([1, 2, 4])
    # Scores are q k / sqrt(D): with D = 4, q k = 2 ln 3 gives the weights 3 : 1.
    q = torch.zeros(1, 2, 1, 4)
    k = torch.zeros(1, 2, 1, 4)
    q[0, 1, 0, 0], k[0, 0, 0, 0] = 2.0, math.log(3)
    v = torch.tensor([4.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 4)
    assert causal_attention(q, k, v)[0, 1, 0].tolist() == pytest.approx([3.0] * 4)


def test_enormous_scores_select_one_step():
    q, k, v = (normal(1, 6, 1, 4, seed=seed) for seed in range(3))
    out = causal_attention(1e6 * q, 1e6 * k, v)
    truth = reference.causal_attention(1e6 * q.double(), 1e6 * k.double(), v.double())
    assert_accurate(out, truth)


def test_later_steps_change_nothing_earlier_bit_for_bit():
    q, k, v = (normal(2, 40, 2, 8, seed=seed) for seed in range(3))
    before = causal_attention(q, k, v)
    for x in (q, k, v):
        x[:, 17:] = 1e4 * normal(2, 23, 2, 8, seed=9)
    after = causal_attention(q, k, v)
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:], after[:, 17:])


@every_option
def test_torch_attention_may_be_asked_for(options, monkeypatch):
    monkeypatch.setenv("TWOHOT_ATTENTION", "sdpa")
    inputs = tensors((2, 9, 4, 16), 2)
    if "softcap" in options:
        with pytest.raises(RuntimeError, match="asks for sdpa, but torch's own attention has no softcap"):
            causal_attention(*inputs, **options)
        return
    called = []
    monkeypatch.setattr(torch_attention, "sdpa", _counted(torch_attention.sdpa, called))
    truth = reference.causal_attention(*(x.double() for x in inputs), **options)
    plain = reference.causal_attention(*inputs, **options)
    assert_accurate(causal_attention(*inputs, **options), truth, plain, floor=16)
    assert called == ["sdpa"]


def _counted(function, called):
    def counted(*arguments):
        called.append(function.__name__)
        return function(*arguments)

    return counted


Q = torch.zeros(2, 3, 4, 16)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (
            (Q[0], Q[0], Q[0]),
            {},
            r"expected q \[B, L, H, D\] and k, v of one shape \[B, L, K, D\] with K a divisor of H",
        ),
        ((Q, Q[:, :2], Q), {}, r"got \(2, 3, 4, 16\), \(2, 2, 4, 16\), \(2, 3, 4, 16\)"),
        ((Q, Q, Q[..., :8]), {}, "expected q"),
        ((Q, Q[:, :, :3], Q[:, :, :3]), {}, "with K a divisor of H"),
        ((Q.expand(2, 3, 4, 16).repeat(1, 1, 1, 17),) * 3, {}, "expected a head size of 1 to 256, got 272"),
        ((Q.int(),) * 3, {}, r"expected one of torch.float32, .*, got torch.int32"),
        (
            (Q, Q.bfloat16(), Q),
            {},
            "expected q, k, v of one dtype on one device, got torch.float32 on cpu, torch.bfloat16",
        ),
        ((Q, Q, Q.to("meta")), {}, "one dtype on one device"),
        ((Q,) * 3, {"window": 0}, "expected a window of at least 1 step, got 0"),
        ((Q,) * 3, {"sinks": -1}, "expected sinks >= 0, got -1"),
        ((Q,) * 3, {"softcap": 0.0}, "expected softcap > 0, got 0.0"),
        ((Q[..., :15],) * 3, {"rotary": 1e4}, "expected rotary > 0 and an even head size, got 10000.0 and 15"),
        ((Q,) * 3, {"lengths": torch.tensor([3, 4])}, "expected lengths of 0 to L = 3, got 4"),
        ((Q,) * 3, {"lengths": torch.tensor([-1, 3])}, "expected lengths of 0 to L = 3, got -1"),
        ((Q,) * 3, {"lengths": torch.tensor([3])}, r"expected integer lengths of shape \[B\] = \(2,\), got .* \(1,\)"),
        ((Q,) * 3, {"lengths": torch.tensor([1.0, 2.0])}, "expected integer lengths"),
        ((Q,) * 3, {"lengths": torch.tensor([1, 2], device="meta")}, "expected lengths on cpu, as q is, got meta"),
    ],
)
def test_causal_attention_says_what_it_expected(arguments, options, sentence):
    with pytest.raises(ValueError, match=f"causal_attention: .*{sentence}"):
        causal_attention(*arguments, **options)


def test_autocast_runs_in_its_dtype():
    q, k, v = tensors((1, 5, 2, 16))
    with torch.autocast("cpu", torch.bfloat16):
        out = causal_attention(q, k.bfloat16(), v)
    assert torch.equal(out, causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16()))


# The ring cache


def test_decode_reference_equals_loops():
    environments, heads, rows, size = 3, 2, 5, 4
    q = normal(environments, heads, size, dtype=torch.float64)
    keys, values = (normal(environments, heads, rows, size, seed=seed, dtype=torch.float64) for seed in (1, 2))
    counts = torch.tensor([1, 3, 5])
    truth = torch.empty_like(q)
    for b, h in itertools.product(range(environments), range(heads)):
        n = int(counts[b])
        row = attend(q[b, h].tolist(), keys[b, h, :n].tolist(), values[b, h, :n].tolist())
        truth[b, h] = torch.tensor(row, dtype=torch.float64)
    assert_accurate(reference.decode_attention(q, keys, values, counts), truth, floor=64)


def draw_resets(environments, steps, share, seed):
    """[steps, environments] bool, True where an episode begins before the step; all begin at the first."""
    resets = torch.rand(steps, environments, generator=torch.Generator().manual_seed(seed)) < share
    resets[0] = True
    return resets


def roll(cache, resets, layers, seed=0, groups=1, dtype=torch.float32, **options):
    """Step through `resets`, comparing each step with a full pass over the same window of the same keys."""
    steps, environments = resets.shape
    _, _, heads, _, size = cache.keys.shape
    q = normal(steps, layers, environments, heads * groups, size, seed=seed, dtype=dtype)
    k, v = (normal(steps, layers, environments, heads, size, seed=seed + i, dtype=dtype) for i in (1, 2))
    window = {"window": cache.length - cache.sinks, "sinks": cache.sinks, "rotary": cache.rotary}
    begun = [0] * environments
    for t in range(steps):
        cache.reset(resets[t])
        begun = [t if reset else start for reset, start in zip(resets[t].tolist(), begun, strict=True)]
        for layer in range(layers):
            out = decode_attention(q[t, layer], k[t, layer], v[t, layer], cache, layer, **options)
            for b, start in enumerate(begun):
                episode = [x[start : t + 1, layer, b].unsqueeze(0) for x in (q, k, v)]
                truth = reference.causal_attention(*(x.double() for x in episode), **window, **options)[0, -1]
                assert_accurate(out[b], truth, floor=32)
        cache.advance()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    environments=st.integers(1, 5),
    length=st.integers(1, 40),
    layers=st.integers(1, 2),
    share=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    size=st.sampled_from([6, 16, 48]),
    groups=st.integers(1, 3),
    sinks=st.integers(0, 3),
    rotary=st.sampled_from([None, 1e4]),
    softcap=st.sampled_from([None, 3.0]),
    seed=st.integers(0, 2**31),
)
def test_a_step_equals_a_full_pass_over_the_same_window(
    environments, length, layers, share, size, groups, sinks, rotary, softcap, seed
):
    cache = KVCache(layers, environments, 2, size, length, sinks=min(sinks, length - 1), rotary=rotary)
    assert cache.environments == environments
    resets = draw_resets(environments, 3 * length + 1, share, seed)
    roll(cache, resets, layers, seed, groups, softcap=softcap)


def test_decoding_long_past_the_context_in_float64():
    roll(KVCache(1, 3, 2, 3, 4, dtype=torch.float64), draw_resets(3, 60, 0.03, 1), 1, dtype=torch.float64)


@pytest.mark.parametrize("size", [6, 16])
@pytest.mark.parametrize(("length", "sinks"), [(8, 0), (5, 2), (3, 0), (1, 0), (20, 3)])
def test_a_prefill_continues_as_if_it_had_been_steps(size, length, sinks):
    lengths = torch.tensor([0, 3, 8, 5])
    filled, stepped = (KVCache(2, 4, 2, size, length, sinks=sinks, rotary=50.0) for _ in range(2))
    q, k, v = (normal(12, 2, 4, 2, size, seed=seed) for seed in range(3))
    steps = torch.zeros(8, 2, 4, 2, size)
    for t in range(8):
        before = stepped.keys.clone(), stepped.values.clone()
        for layer in range(2):
            steps[t, layer] = decode_attention(q[t, layer], k[t, layer], v[t, layer], stepped, layer)
        for ring, old in zip((stepped.keys, stepped.values), before, strict=True):
            ring[:, t >= lengths] = old[:, t >= lengths]
        stepped.advance((t < lengths).long())
    for layer in range(2):
        out = prefill_attention(*(x[:8, layer].transpose(0, 1) for x in (q, k, v)), lengths, filled, layer)
        for b, n in enumerate(lengths.tolist()):
            assert torch.allclose(out[b, :n], steps[:n, layer, b], atol=1e-5)
            assert out[b, n:].eq(0).all()
    filled.advance(lengths)
    assert torch.equal(filled.cache_position, stepped.cache_position)
    for t in range(8, 12):
        for layer in range(2):
            both = [decode_attention(q[t, layer], k[t, layer], v[t, layer], c, layer) for c in (filled, stepped)]
            assert torch.allclose(*both, atol=1e-5)
        filled.advance()
        stepped.advance()
    with pytest.raises(ValueError, match="expected a cache that was just reset"):
        prefill_attention(*(x[:8, 0].transpose(0, 1) for x in (q, k, v)), lengths, filled, 0)


@pytest.mark.parametrize(("heads", "layers", "share"), [(1, 1, 0.0), (2, 2, 0.2), (4, 3, 0.1), (2, 2, 0.6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_cached_steps_equal_the_full_pass(heads, layers, share, seed):
    context, environments, width = 24, 6, 16
    torch.manual_seed(seed)
    transformer = Transformer(width, layers, heads, 32, 0.3, context).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():  # away from gains of one and biases of zero
            parameter.add_(0.2 * parameter.std(correction=0) * torch.randn_like(parameter) + 0.02)
    # Three contexts of steps; an environment is reset at random, and at the latest when its episode fills the context.
    draws = draw_resets(environments, 3 * context, share, seed)
    draws[1:, 0] = False
    x = normal(3 * context, environments, width, seed=seed)
    cache = transformer.initial_cache(environments)
    time = torch.zeros(environments, dtype=torch.int64)
    episodes = [[] for _ in range(environments)]
    finished = []
    for t in range(3 * context):
        reset = draws[t] | (time == context)
        if reset.any():
            cache.reset(reset)
            time = time.masked_fill(reset, 0)
        h = transformer.step(x[t], time, cache)
        for b in range(environments):
            if reset[b]:
                finished.append(episodes[b])
                episodes[b] = []
            episodes[b].append((x[t, b], h[b]))
        time = time + 1
    played = [[torch.stack(column) for column in zip(*each, strict=True)] for each in finished + episodes if each]
    windows = torch.nn.utils.rnn.pad_sequence([inputs for inputs, _ in played], batch_first=True)
    assert windows.shape[1] == context
    full, sensitivity = in_float64(transformer, windows, torch.arange(context).expand(len(windows), -1))
    for row, (_, outputs) in enumerate(played):
        own = slice(len(outputs))
        assert_accurate(outputs, full[row, own], floor=DEVIATIONS, sensitivity=sensitivity[row, own])
    assert outputs.std() > 0.5  # the comparison has something to compare


def test_a_transformer_goes_on_from_a_prefix():
    transformer = Transformer(32, 2, 2, 48, 0.3, 12).eval()
    x, lengths = normal(3, 10, 32), torch.tensor([4, 0, 7])
    cache = transformer.initial_cache(3)
    time = torch.arange(10).expand(3, 10)
    prefix = transformer.prefill(x[:, :7], time[:, :7], lengths, cache)
    steps = [transformer.step(x[torch.arange(3), lengths + t], lengths + t, cache) for t in range(3)]
    full, sensitivity = in_float64(transformer, x, time)
    for b, n in enumerate(lengths.tolist()):
        for found, own in ((prefix[b, :n], slice(n)), (torch.stack(steps)[:, b], slice(n, n + 3))):
            assert_accurate(found, full[b, own], floor=DEVIATIONS, sensitivity=sensitivity[b, own])
    wider = Transformer(48, 2, 2, 48, 0.0, 12).eval()
    with pytest.raises(ValueError, match="make a new cache when the policy or the number of environments changes"):
        wider.step(normal(3, 48), lengths, cache)
    with pytest.raises(ValueError, match="make a new cache when"):
        transformer.step(normal(2, 32), lengths[:2], cache)


def test_a_step_without_reset_mask_forgets_all():
    cache = KVCache(1, 2, 1, 2, 3)
    q, k, v = (normal(2, 1, 2, seed=seed) for seed in range(3))
    first = decode_attention(q, k, v, cache, 0)
    assert torch.allclose(first, v)
    for _ in range(5):
        decode_attention(q, normal(2, 1, 2, seed=8), normal(2, 1, 2, seed=9), cache, 0)
        cache.advance()
    cache.reset()
    assert cache.cache_position.tolist() == [0, 0]
    assert torch.equal(decode_attention(q, k, v, cache, 0), first)


@pytest.mark.parametrize("size", [3, 16])
def test_appending_writes_one_row_of_one_layer_and_moves_nothing(size):
    layers, environments, length = 3, 4, 5
    cache = KVCache(layers, environments, 2, size, length)
    cache.keys.copy_(normal(*cache.keys.shape))
    cache.values.copy_(normal(*cache.values.shape, seed=1))
    storage = cache.keys.data_ptr(), cache.values.data_ptr()
    cache.cache_position.copy_(torch.tensor([0, 3, 5, 13]))
    for layer in (1, 0):
        before = cache.keys.clone(), cache.values.clone(), cache.cache_position.clone()
        q, k, v = (normal(environments, 2, size, seed=5 + layer + i) for i in range(3))
        decode_attention(q, k, v, cache, layer)
        for old, new, row in zip(before, (cache.keys, cache.values), (k, v), strict=False):
            expected = old.clone()
            for b, slot in enumerate([0, 3, 0, 3]):  # seen modulo 5
                expected[layer, b, :, slot] = row[b]
            assert torch.equal(new, expected)
        assert torch.equal(cache.cache_position, before[2])
    cache.advance()
    assert cache.cache_position.tolist() == [1, 4, 6, 14]
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == storage


def test_a_reset_touches_only_its_environments():
    one, other = KVCache(2, 3, 1, 2, 4), KVCache(2, 3, 1, 2, 4)
    for t in range(9):
        if t == 6:
            one.reset(torch.tensor([False, True, False]))
            assert one.cache_position.tolist() == [6, 0, 6]
            assert torch.equal(one.keys, other.keys)
        for layer in range(2):
            q, k, v = (normal(3, 1, 2, seed=100 * t + 10 * layer + i) for i in range(3))
            a, b = decode_attention(q, k, v, one, layer), decode_attention(q, k, v, other, layer)
            assert torch.equal(a[[0, 2]], b[[0, 2]])
            assert torch.equal(a[1], b[1]) == (t < 6)
        one.advance()
        other.advance()


@pytest.mark.parametrize("size", [2, 16])
def test_rows_behind_the_count_do_not_matter_even_nan(size):
    # What an episode left in the ring, a NaN included, must not reach the next one.
    fresh, used = KVCache(1, 2, 1, size, 4), KVCache(1, 2, 1, size, 4)
    for _ in range(3):
        decode_attention(*(torch.full((2, 1, size), math.nan),) * 3, used, 0)
        used.advance()
    used.reset(torch.tensor([True, False]))
    q, k, v = (normal(2, 1, size, seed=seed) for seed in range(3))
    assert torch.equal(decode_attention(q, k, v, used, 0)[0], decode_attention(q, k, v, fresh, 0)[0])


def test_a_cache_may_store_a_shorter_type():
    cache = KVCache(1, 2, 1, 4, 3, dtype=torch.bfloat16)
    q, k, v = (normal(2, 1, 4, seed=seed) for seed in range(3))
    out = decode_attention(q, k, v, cache, 0)
    assert out.dtype == torch.float32
    assert_accurate(out, v.bfloat16().double())
    assert not torch.equal(v, v.bfloat16().float())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        *(({name: 0}, f"at least 1 {name}, .*got 0") for name in ("layers", "environments", "heads", "length")),
        ({"head_size": 0}, "expected a head size of 1 to 256, got 0"),
        ({"head_size": 257}, "expected a head size of 1 to 256, got 257"),
        ({"dtype": torch.int8}, "expected one of torch.float32, .*, got torch.int8"),
        ({"sinks": 3}, "expected 0 <= sinks < length = 3, got 3"),
        ({"rotary": 1e4, "head_size": 3}, "even head size"),
    ],
)
def test_a_cache_says_what_it_expected(changes, sentence):
    sizes = {"layers": 1, "environments": 1, "heads": 1, "head_size": 2, "length": 3}
    with pytest.raises(ValueError, match=f"KVCache: .*{sentence}"):
        KVCache(**{**sizes, **changes})


@pytest.mark.parametrize("which", range(3))
def test_decoding_refuses_what_does_not_fit_the_cache(which):
    cache = KVCache(1, 2, 3, 4, 5)
    for wrong in [(3, 3, 4), (2, 2, 4), (2, 3, 5), (2, 3)]:
        arguments = [torch.zeros(2, 3, 4) for _ in range(3)]
        arguments[which] = torch.zeros(wrong)
        with pytest.raises(
            ValueError, match=r"k, v of shape \[B, K, D\] = \(2, 3, 4\) .*, got .*; make a new cache when"
        ):
            decode_attention(*arguments, cache, 0)
    good = [torch.zeros(2, 3, 4) for _ in range(3)]
    with pytest.raises(ValueError, match="a layer below 1"):
        decode_attention(*good, cache, 1)
    good[which] = good[which].bfloat16()
    with pytest.raises(ValueError, match="decode_attention: expected q, k, v of one dtype on one device, got"):
        decode_attention(*good, cache, 0)
    with pytest.raises(ValueError, match="expected q, k, v on cpu, as the cache is, got meta"):
        decode_attention(*(torch.zeros(2, 3, 4, device="meta") for _ in range(3)), cache, 0)
    assert cache.keys.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_softcap_beyond_all_scores_changes_nothing(dtype):
    q, k, v = tensors((2, 5, 2, 16), dtype=dtype)
    free, capped = (reference.causal_attention(q, k, v, softcap=softcap) for softcap in (None, 2.0**40))
    assert torch.equal(free, capped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_scale_beyond_half_precision_selects_one_step(dtype, implementation):
    """Products times 2^40 fit float32, in which scores are held, and no half precision."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, 2, 16, generator=generator).to(dtype) for _ in range(3))
    cache = KVCache(1, 2, 2, 16, 4)
    for x in (q, 2 * q, k):
        with torch.no_grad():
            out = decode_attention(x[:, 0], x[:, 0], v[:, 0], cache, 0, scale=2.0**40)
        cache.advance()
    assert out.isfinite().all()
    window = causal_attention(*(torch.cat((x, 2 * x, k), 1) for x in (q, k, v)), scale=2.0**40)
    assert window.isfinite().all()
