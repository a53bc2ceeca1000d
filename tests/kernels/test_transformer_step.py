"""The native cached step of a whole Transformer against its layers one by one."""

import copy
import math
import weakref

import numpy as np
import pytest
import torch

from compare import assert_accurate
from two_hot_truth import normal
from twohot import _native
from twohot.attention import KVCache
from twohot.nets.frozen_networks import freeze_network
from twohot.nets.packed import PANEL, PackedTransformer, pack
from twohot.nets.transformer import Transformer

pytestmark = pytest.mark.usefixtures("nothing_forced")


def transformer(width=64, layers=2, heads=2, feed_forward=80, context=12, seed=0):
    """A Transformer away from gains of one and biases of zero."""
    torch.manual_seed(seed)
    module = Transformer(width, layers, heads, feed_forward, 0.3, context).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * parameter.std(correction=0) * torch.randn_like(parameter) + 0.02)
    return module


def cache_of(module, environments, dtype=torch.float32, **options):
    size = module.width // module.heads
    return KVCache(len(module.layers), environments, module.heads, size, module.context, dtype=dtype, **options)


SHAPES = {
    "one environment": (1, {}, {}),
    "agents": (13, {"width": 256, "layers": 3, "heads": 8, "feed_forward": 1024}, {}),
    "odd widths": (11, {"width": 48, "heads": 3, "feed_forward": 16}, {}),
    "large heads, many environments": (70, {"width": 160, "heads": 2, "layers": 1}, {}),
    "sinks and rotary": (9, {}, {"sinks": 3, "rotary": 100.0}),
}


@pytest.mark.parametrize(("environments", "sizes", "options"), SHAPES.values(), ids=SHAPES.keys())
def test_native_steps_are_accurate(environments, sizes, options):
    module = transformer(**sizes)
    frozen, exact = freeze_network(module), copy.deepcopy(module).double()
    assert frozen.packed
    cache, plain_cache = (cache_of(module, environments, **options) for _ in range(2))
    exact_cache = cache_of(module, environments, torch.float64, **options)
    time = torch.zeros(environments, dtype=torch.int64)
    for t in range(3 * module.context):
        reset = torch.arange(environments) % 7 == t % 9
        for each in (cache, plain_cache, exact_cache):
            each.reset(reset)
        time = time.masked_fill(reset, 0)
        x = normal(environments, module.width, seed=t)
        h, plain = frozen.step(x, time, cache), module.step(x, time, plain_cache)
        assert_accurate(h, exact.step(x.double(), time, exact_cache), plain, floor=16)
        assert torch.equal(cache.cache_position, plain_cache.cache_position)
        time += 1
    assert_accurate(cache.keys, exact_cache.keys, plain_cache.keys, floor=16)
    assert_accurate(cache.values, exact_cache.values, plain_cache.values, floor=16)


def test_a_native_step_with_a_bfloat16_cache():
    module = transformer()
    frozen, caches = freeze_network(module), [cache_of(module, 5, torch.bfloat16) for _ in range(2)]
    time = torch.zeros(5, dtype=torch.int64)
    for t in range(20):
        x = normal(5, 64, seed=t)
        h, other = frozen.step(x, time, caches[0]), module.step(x, time, caches[1])
        assert (h - other).abs().max() < 2e-2  # a key may round to either side
        time += 1


def test_threads_change_no_bit_of_a_step():
    module, x, outputs = transformer(), normal(40, 64), []
    frozen, before = freeze_network(module), torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs += [frozen.step(x, torch.zeros(40, dtype=torch.int64), cache_of(module, 40))]
    torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def test_it_runs_in_float32_on_a_cpu_where_native_code_may(monkeypatch):
    module = transformer()
    assert PackedTransformer.runs(module)
    assert not PackedTransformer.runs(transformer(feed_forward=40))
    assert not PackedTransformer.runs(copy.deepcopy(module).double())
    assert not PackedTransformer.runs(copy.deepcopy(module).to("meta"))
    monkeypatch.setenv("TWOHOT_ATTENTION", "reference")
    assert not PackedTransformer.runs(module)


def test_rows_may_lie_apart():
    frozen, time = freeze_network(transformer()), torch.zeros(3, dtype=torch.int64)
    apart = normal(3, 128)[:, ::2]
    strided, packed = (frozen.step(x, time, frozen.initial_cache(3)) for x in (apart, apart.contiguous()))
    assert torch.equal(strided, packed)


def test_a_cache_of_another_transformer_is_refused():
    frozen, x, time = freeze_network(transformer()), normal(3, 64), torch.zeros(3, dtype=torch.int64)
    of_others = (
        cache_of(transformer(), 3, torch.float16),
        cache_of(transformer(), 2),
        KVCache(1, 3, 2, 32, 12),
        KVCache(2, 3, 4, 16, 12),
    )
    for cache in of_others:
        with pytest.raises(ValueError, match=r"cache\.keys: expected a contiguous tensor"):
            frozen.step(x, time, cache)
    with pytest.raises(ValueError, match="x: expected a contiguous tensor"):
        frozen.packed(x[:, :48], frozen.initial_cache(3))


def test_compiling_a_plain_step_breaks_nowhere():
    module, x, time = transformer(layers=1), normal(3, 64), torch.zeros(3, dtype=torch.int64)
    compiled = torch.compile(module.step, fullgraph=True, backend="aot_eager")
    exact = copy.deepcopy(module).double().step(x.double(), time, cache_of(module, 3, torch.float64))
    plain = module.step(x, time, cache_of(module, 3))
    assert_accurate(compiled(x, time, cache_of(module, 3)), exact, plain, floor=16)


def test_packing_fills_panels_up():
    weight = normal(PANEL + 3, 5)
    panels, bias = pack(weight, weight[:, 0])
    assert panels.shape == (2, 5, PANEL)
    assert torch.equal(panels[1, :, :3], weight[PANEL:].T)
    assert torch.equal(panels[0, 4], weight[:PANEL, 4])
    assert panels[1, :, 3:].eq(0).all()
    assert bias.tolist() == [*weight[:, 0].tolist(), *[0.0] * (PANEL - 3)]
    assert pack(weight, None)[1] is None


def test_the_native_step_checks_its_arguments():
    x = torch.zeros(1 << 12)
    given = {
        **dict.fromkeys(("x", "output", "keys", "values", "cache_position"), x.data_ptr()),
        **{"environments": 1, "width": 16, "feed_forward": 16, "parameters": [x.data_ptr()] * 18, "epsilon": 1e-5},
        **{"slope": 0.0, "cache_dtype": "float32", "layers": 1, "heads": 1, "rows": 4, "size": 16, "threads": 1},
    }
    _native.transformer_step(**given)
    for wrong, sentence in (
        ({"size": 24}, "expected a head size that is a multiple of 16 up to 256, got 24"),
        ({"cache_dtype": "float16"}, "cache_dtype: expected one of 'float32', 'bfloat16'; got 'float16'"),
        ({"width": 32}, "a width of heads . size"),
        ({"feed_forward": 24}, "a feed_forward that is a multiple of 16"),
        ({"sinks": 4}, "0 <= sinks < rows"),
        ({"parameters": [1] * 17}, "expected 18 addresses of parameters, got 17"),
        ({"cache_position": 0}, "got a zero"),
        ({"sine": 1}, "got a zero"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.transformer_step(**{**given, **wrong})


NUMBERS, ROWS = torch.zeros(1 << 12), np.zeros((2, 2), np.float32)
AT = NUMBERS.data_ptr()
FORM = {"names": ["seen"], "columns": 3, "actions": 4, "counts": [4], "affine": [AT] * 3}


def inputs_of(form=FORM, **changes):
    given = {"observation": [ROWS], "reward": ROWS[:, 0].copy(), "action": np.array([1, 1]), "features": []}
    return _native.StepInputs(_native.StepForm(**form), **{**given, "time": np.array([1, 0]), **changes})


def test_what_an_encoder_sees_is_checked():
    for wrong in ({"columns": -1}, {"counts": [3]}, {"counts": [4, 1]}, {"counts": [5, -1]}, {"affine": [AT, 0, AT]}):
        with pytest.raises(ValueError, match="columns and actions >= 0, counts that add up"):
            _native.StepForm(**{**FORM, **wrong})
    inputs = inputs_of()
    assert inputs.rows == 2
    odd = np.frombuffer(b"\0" * 17, np.uint8)[1:].view(np.float32).reshape(2, 2)
    for wrong, sentence in (
        ({"observation": [np.zeros((2, 3), np.float32)]}, "observation: expected 3 numbers, reward included, got 4"),
        (
            {"observation": [np.zeros((3, 2), np.float32)]},
            r"'seen': .* 2 rows, .* float32 of shape \(3, 2\)",
        ),
        ({"observation": [ROWS.astype(np.float64)]}, r"observation 'seen': .* got float64 of shape \(2, 2\)"),
        ({"observation": [ROWS.T]}, "observation 'seen': expected a C-contiguous array"),
        ({"observation": []}, "observation: expected 1 arrays, got 0"),
        ({"observation": [odd]}, "observation 'seen': expected a C-contiguous array"),
        ({"observation": [np.array(3, np.float32)]}, "observation 'seen': expected a C-contiguous array"),
        ({"reward": ROWS}, "previous_reward: expected one number a row, got 2"),
        ({"action": np.zeros((2, 4), np.float32)}, "previous_action: .* got float32"),
        ({"action": np.zeros((2, 2), np.int64)}, "previous_action: expected 1 numbers a row, got 2"),
        ({"action": np.array([1, 4])}, "previous_action: expected choices of 0 to 3, got 4"),
        ({"action": np.array([-1, 0])}, "previous_action: expected choices of 0 to 3, got -1"),
        ({"time": np.array([0, -1])}, "time: expected at least 0"),
        ({"time": np.zeros(2, np.int32)}, "time: .* got int32"),
        ({"time": np.zeros((2, 1), np.int64)}, "time: expected an array"),
        ({"features": [np.zeros((1, 2), np.float32)]}, "features: .* 2 rows"),
    ):
        with pytest.raises(ValueError, match=sentence):
            inputs_of(**wrong)
    for wrong in ({"observation": [NUMBERS]}, {"action": None}, {"reward": 3.0}):
        with pytest.raises(TypeError, match="expected an array"):
            inputs_of(**wrong)
    fixed = np.array([1, 0])
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="time"):
        inputs_of(time=fixed)
    with pytest.raises(ValueError, match="output: expected 7 numbers a row, got 6"):
        inputs.fill(np.zeros((2, 6), np.float32))


def test_what_an_encoder_sees_is_kept_when_its_lists_change():
    seen = [np.full((2, 2), 7, np.float32)]
    inputs = inputs_of(form={**FORM, "affine": []}, observation=seen)
    freed = weakref.ref(seen[0])
    seen.clear()
    assert freed() is not None
    filled = np.zeros((2, 7), np.float32)
    inputs.fill(filled)
    assert (filled[:, :2] == 7).all()


def test_what_an_encoder_sees_stands_side_by_side():
    filled = np.full((2, 9), np.nan, np.float32)
    two = {"form": {**FORM, "counts": [2, 2], "affine": []}, "time": np.array([0, 3]), "features": [ROWS + 5]}
    two |= {"observation": [ROWS + 7], "reward": np.array([0, -1], np.float32), "action": np.array([[1, 1], [0, 1]])}
    inputs_of(**two).fill(filled)
    assert filled[0].tolist() == [7, 7, 0, 0, 0, 0, 0, 5, 5]
    assert filled[1].tolist() == [7, 7, pytest.approx(-math.log(2)), 1, 0, 0, 1, 5, 5]
    relaxed = np.array([[1, 2, 3, 4], [0.5, 0.5, 0, 1]], np.float32)
    inputs_of(**{**two, "action": relaxed}).fill(filled)
    assert filled[:, 3:7].tolist() == [[0, 0, 0, 0], [0.5, 0.5, 0, 1]]
    for wrong in (np.array([[1, 1], [0, 2]]), np.array([[2, 1], [0, 1]])):
        with pytest.raises(ValueError, match="previous_action: expected choices of 0 to 1, got 2"):
            inputs_of(**{**two, "action": wrong})


def test_the_native_step_of_a_policy_checks_its_arguments():
    at, time, position = AT, np.array([1, 0]), torch.tensor([5, 2])
    inputs = inputs_of(time=time)
    own = {"encoder_sizes": [7, 16], "encoder_parameters": [at] * 4, "encoder_epsilon": 1e-5, "actor_sizes": [16, 4]}
    own |= {"actor_parameters": [at] * 2, "actions": "choices", "counts": [4], "low": 0.1, "high": 1.0}
    sizes = {"width": 16, "feed_forward": 16, "heads": 1, "layers": 1, "parameters": [at] * 18}
    sizes |= {"slope": 0.0, "epsilon": 1e-5}
    for wrong, sentence in (
        ({"actor_sizes": [16]}, "expected sizes >= 1"),
        ({"actor_sizes": [16, 16], "actor_parameters": [at] * 4, "counts": [16]}, "an actor without a norm"),
        ({"low": 2.0}, "expected low <= high"),
        ({"counts": [3]}, "counts add up"),
        ({"counts": [4, 1]}, "counts add up"),
        ({"counts": [5, -1]}, "counts add up"),
        ({"counts": []}, "counts add up"),
        ({"actions": "buttons"}, "counts add up"),
        ({"actions": "other", "counts": []}, "counts add up"),
        ({"actions": "numbers", "counts": [], "actor_sizes": [16, 3]}, "an even number of outputs"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.PolicyPart(**{**own, **wrong})
    part = _native.PolicyPart(**own)
    wide = _native.PolicyPart(**{**own, "encoder_sizes": [7, 32]})
    narrow = _native.PolicyPart(**{**own, "actor_sizes": [32, 4]})
    for parts, wrong, sentence in (
        ([part], {"layers": 2}, "expected 34 addresses of parameters, got 18"),
        ([part, wide], {}, "encoders have `width` outputs"),
        ([part, narrow], {}, "their actors as many inputs"),
        ([part, None], {}, "expected parts"),
        ([], {}, "expected parts"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.PolicyStep(parts=parts, **{**sizes, **wrong})
    policy, action = _native.PolicyStep(parts=[part], **sizes), np.full(2, -1)
    step = {"positions": at, "times": 2, "keys": at, "values": at, "cache_dtype": "float32", "rows": 4, "sinks": 0}
    step |= {"cache_position": position.data_ptr(), "cosine": 0, "sine": 0, "threads": 1}
    drawn = [(None, action, None)]
    assert not policy.step([inputs], drawn, **{**step, "times": 1})
    assert (time.tolist(), position.tolist()) == ([1, 0], [5, 2])
    assert policy.step([inputs], drawn, **step)
    assert action.tolist() == [0, 0]
    assert (time.tolist(), position.tolist()) == ([2, 1], [6, 3])
    time[:] = 0
    four = np.zeros((2, 4), np.float32)
    for outputs, wrong, sentence in (
        ([(None, None, None)], {}, "expected h, x or an action that is wanted"),
        ([(four, action, None)], {}, "expected x, or an action"),
        ([(four[:, :3].copy(), None, None)], {}, "x: expected 4 numbers a row, got 3"),
        ([(four[:1], None, None)], {}, "x: .* 2 rows"),
        ([(None, four, None)], {}, "action: .* got float32"),
        ([(None, np.zeros((2, 2), np.int64), None)], {}, "action: expected 1 numbers a row, got 2"),
        ([(None, action, four)], {}, "random: expected 1 numbers a row, got 4"),
        (drawn * 2, {}, "inputs and outputs of each part"),
        (drawn, {"keys": 0}, "got a zero"),
        (drawn, {"rows": 0}, "0 <= sinks < rows"),
    ):
        with pytest.raises(ValueError, match=sentence):
            policy.step([inputs], outputs, **{**step, **wrong})
    with pytest.raises(ValueError, match="inputs and outputs of each part"):
        policy.step([None], drawn, **step)
    undrawn = _native.PolicyStep(parts=[_native.PolicyPart(**{**own, "actions": "", "counts": []})], **sizes)
    with pytest.raises(ValueError, match="of a part that draws them"):
        undrawn.step([inputs], drawn, **step)
    with pytest.raises(ValueError, match="expected inputs of 7 numbers, got 3"):
        policy.step([inputs_of({**FORM, "actions": 0, "counts": []})], drawn, **step)
    with pytest.raises(ValueError, match="expected inputs of 7 numbers, got 9"):
        policy.step([inputs_of(features=[ROWS])], drawn, **step)
