"""Causal attention of windows, and the ring cache that continues it step by step."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_accurate
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.kernels.attention import reference
from twohot.nets.transformer import Transformer


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def attend(q, keys, values):
    """softmax(q . k / sqrt(D)) v of one query [D] over rows [n, D], by loops over plain numbers."""
    scores = [sum(a * b for a, b in zip(q, key, strict=True)) / math.sqrt(len(q)) for key in keys]
    weights = [math.exp(score - max(scores)) for score in scores]
    total = sum(weights)
    return [sum(w * value[d] for w, value in zip(weights, values, strict=True)) / total for d in range(len(q))]


def causal_by_loop(q, k, v):
    out = torch.empty_like(q)
    batch, length, heads, _ = q.shape
    for b, t, h in itertools.product(range(batch), range(length), range(heads)):
        past = k[b, : t + 1, h].tolist(), v[b, : t + 1, h].tolist()
        out[b, t, h] = torch.tensor(attend(q[b, t, h].tolist(), *past), dtype=torch.float64)
    return out


# Whole windows


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 4), (1, 9, 2, 7)])
def test_reference_equals_loops(shape):
    q, k, v = (normal(*shape, seed=seed, dtype=torch.float64) for seed in range(3))
    assert_accurate(reference.causal_attention(q, k, v), causal_by_loop(q, k, v), floor=64)


def test_reference_gradients_numerically():
    q, k, v = (normal(1, 4, 2, 3, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(3))
    assert torch.autograd.gradcheck(reference.causal_attention, (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 7, 2, 5), (2, 64, 3, 16), (1, 129, 2, 32), (2, 0, 1, 4), (0, 3, 1, 4)]
)
def test_causal_attention_and_its_gradients(shape, dtype):
    inputs = [normal(*shape, seed=seed, dtype=dtype) for seed in range(3)]
    upstream = normal(*shape, seed=3, dtype=dtype)

    def run(function, inputs, upstream):
        inputs = [x.clone().requires_grad_() for x in inputs]
        out = function(*inputs)
        out.backward(upstream)
        return [out.detach(), *(x.grad for x in inputs)]

    actual = run(causal_attention, inputs, upstream)
    plain = run(reference.causal_attention, inputs, upstream)
    truth = run(reference.causal_attention, [x.double() for x in inputs], upstream.double())
    assert actual[0].dtype == dtype
    for a, t, p in zip(actual, truth, plain, strict=True):
        assert_accurate(a, t, p, floor=16)


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


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4),) * 3, ((1, 2, 3, 4), (1, 3, 3, 4), (1, 2, 3, 4)), ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 5))]
)
def test_causal_attention_refuses_other_shapes(shapes):
    with pytest.raises(ValueError, match=r"causal_attention: expected q, k, v of one shape \[B, L, H, D\], got"):
        causal_attention(*(torch.zeros(shape) for shape in shapes))


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


def roll(cache, resets, layers, seed=0, heads=2, size=3, dtype=torch.float32):
    """Step through `resets`, comparing each output with attention over a plain list of what the episode has seen."""
    steps, environments = resets.shape
    q, k, v = (normal(steps, layers, environments, heads, size, seed=seed + i, dtype=dtype) for i in range(3))
    begun = [0] * environments
    for t in range(steps):
        cache.reset(resets[t])
        begun = [t if reset else start for reset, start in zip(resets[t].tolist(), begun, strict=True)]
        for layer in range(layers):
            out = decode_attention(q[t, layer], k[t, layer], v[t, layer], cache, layer)
            for b, start in enumerate(begun):
                oldest = max(start, t + 1 - cache.length)
                keys, values = (x[oldest : t + 1, layer, b].double().transpose(0, 1) for x in (k, v))
                scores = keys @ q[t, layer, b].double().unsqueeze(-1) / math.sqrt(size)
                truth = (scores.softmax(1) * values).sum(1)
                assert_accurate(out[b], truth, floor=32)
        cache.advance()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    environments=st.integers(1, 5),
    length=st.integers(1, 7),
    steps=st.integers(1, 25),
    layers=st.integers(1, 2),
    share=st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_decoding_attends_over_the_last_rows_of_each_episode(environments, length, steps, layers, share, seed):
    cache = KVCache(layers, environments, 2, 3, length)
    assert cache.environments == environments
    roll(cache, draw_resets(environments, steps, share, seed), layers, seed)


def test_decoding_long_past_the_context_in_float64():
    roll(KVCache(1, 3, 2, 3, 4, dtype=torch.float64), draw_resets(3, 60, 0.03, 1), 1, dtype=torch.float64)


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
    lengths = set()
    for episode in filter(None, finished + episodes):
        inputs, outputs = (torch.stack(column) for column in zip(*episode, strict=True))
        full = transformer(inputs.unsqueeze(0), torch.arange(len(episode)).unsqueeze(0))[0]
        assert (outputs - full).abs().max() < 1e-5
        lengths.add(len(episode))
    assert max(lengths) == context
    assert outputs.std() > 0.5  # the comparison has something to compare


def test_a_step_without_reset_mask_forgets_all():
    cache = KVCache(1, 2, 1, 2, 3)
    q, k, v = (normal(2, 1, 2, seed=seed) for seed in range(3))
    first = decode_attention(q, k, v, cache, 0)
    assert torch.allclose(first, v)
    for _ in range(5):
        decode_attention(q, normal(2, 1, 2, seed=8), normal(2, 1, 2, seed=9), cache, 0)
        cache.advance()
    cache.reset()
    assert cache.seen.tolist() == [0, 0]
    assert torch.equal(decode_attention(q, k, v, cache, 0), first)


def test_appending_writes_one_row_of_one_layer_and_moves_nothing():
    layers, environments, length = 3, 4, 5
    cache = KVCache(layers, environments, 2, 3, length)
    cache.keys.copy_(normal(*cache.keys.shape))
    cache.values.copy_(normal(*cache.values.shape, seed=1))
    storage = cache.keys.data_ptr(), cache.values.data_ptr()
    cache.seen.copy_(torch.tensor([0, 3, 5, 13]))
    cache._longest = 13
    for layer in (1, 0):
        before = cache.keys.clone(), cache.values.clone(), cache.seen.clone()
        q, k, v = (normal(environments, 2, 3, seed=5 + layer + i) for i in range(3))
        decode_attention(q, k, v, cache, layer)
        for old, new, row in zip(before, (cache.keys, cache.values), (k, v), strict=False):
            expected = old.clone()
            for b, slot in enumerate([0, 3, 0, 3]):  # seen modulo 5
                expected[layer, b, :, slot] = row[b]
            assert torch.equal(new, expected)
        assert torch.equal(cache.seen, before[2])
    cache.advance()
    assert cache.seen.tolist() == [1, 4, 6, 14]
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == storage


def test_a_reset_touches_only_its_environments():
    one, other = KVCache(2, 3, 1, 2, 4), KVCache(2, 3, 1, 2, 4)
    for t in range(9):
        if t == 6:
            one.reset(torch.tensor([False, True, False]))
            assert one.seen.tolist() == [6, 0, 6]
            assert torch.equal(one.keys, other.keys)
        for layer in range(2):
            q, k, v = (normal(3, 1, 2, seed=100 * t + 10 * layer + i) for i in range(3))
            a, b = decode_attention(q, k, v, one, layer), decode_attention(q, k, v, other, layer)
            assert torch.equal(a[[0, 2]], b[[0, 2]])
            assert torch.equal(a[1], b[1]) == (t < 6)
        one.advance()
        other.advance()


def test_rows_behind_the_count_do_not_matter_even_nan():
    # What an episode left in the ring, a NaN included, must not reach the next one.
    fresh, used = KVCache(1, 2, 1, 2, 4), KVCache(1, 2, 1, 2, 4)
    for _ in range(3):
        decode_attention(*(torch.full((2, 1, 2), math.nan),) * 3, used, 0)
        used.advance()
    used.reset(torch.tensor([True, False]))
    q, k, v = (normal(2, 1, 2, seed=seed) for seed in range(3))
    assert torch.equal(decode_attention(q, k, v, used, 0)[0], decode_attention(q, k, v, fresh, 0)[0])


def test_a_cache_may_store_a_shorter_type():
    cache = KVCache(1, 2, 1, 4, 3, dtype=torch.bfloat16)
    q, k, v = (normal(2, 1, 4, seed=seed) for seed in range(3))
    out = decode_attention(q, k, v, cache, 0)
    assert out.dtype == torch.float32
    assert torch.equal(out, v.bfloat16().float())


@pytest.mark.parametrize("name", ["layers", "environments", "length"])
def test_a_cache_needs_at_least_one_of_everything(name):
    sizes = {"layers": 1, "environments": 1, "heads": 1, "head_size": 1, "length": 1}
    with pytest.raises(ValueError, match=f"KVCache: expected at least 1 {name}, got 0"):
        KVCache(**{**sizes, name: 0})


@pytest.mark.parametrize("which", range(3))
def test_decoding_refuses_shapes_that_do_not_fit_the_cache(which):
    cache = KVCache(1, 2, 3, 4, 5)
    for wrong in [(3, 3, 4), (2, 2, 4), (2, 3, 5), (2, 3)]:
        tensors = [torch.zeros(2, 3, 4) for _ in range(3)]
        tensors[which] = torch.zeros(wrong)
        with pytest.raises(ValueError, match=r"expected q, k, v of shape \[B, H, D\] = \(2, 3, 4\) .* got"):
            decode_attention(*tensors, cache, 0)
    assert cache.keys.eq(0).all()
