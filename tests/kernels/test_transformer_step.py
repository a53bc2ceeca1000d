"""The native cached step of a whole Transformer against its layers one by one."""

import copy

import pytest
import torch

from compare import assert_accurate
from two_hot_truth import normal
from twohot import _native
from twohot.attention import KVCache
from twohot.nets.frozen import freeze_network
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


def test_the_native_step_of_a_policy_checks_its_arguments():
    x = torch.zeros(1 << 12)
    at, numbers, time, position = x.data_ptr(), *torch.tensor([[1, 1], [1, 0], [5, 2]]).unbind()
    given = {"rows": 2, "columns": 3, "actions": 4, "observation": [(at, 2)], "reward": at, "affine": [at] * 3}
    given |= {"choice": numbers.data_ptr(), "action": 0, "time": time.data_ptr()}
    inputs = _native.StepInputs(**given)
    assert inputs.rows == 2
    late = torch.tensor([0, -1])
    for wrong, sentence in (
        ({"observation": [(at, 3)]}, "observation: expected 3 numbers, reward included, got 4"),
        ({"observation": [(0, 2)]}, "got a zero"),
        ({"affine": [at, 0, at]}, "got a zero"),
        ({"action": at}, "got a zero"),
        ({"time": 0}, "got a zero"),
        ({"actions": 1}, "previous_action: expected choices of 0 to 0, got 1"),
        ({"time": late.data_ptr()}, "time: expected at least 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.StepInputs(**{**given, **wrong})
    with pytest.raises(ValueError, match="address of the output"):
        inputs.fill(0)
    sizes = {"encoder_sizes": [7, 16], "encoder_parameters": [at] * 4, "width": 16, "feed_forward": 16, "heads": 1}
    sizes |= {"layers": 1, "parameters": [at] * 18, "actor_sizes": [16, 4], "actor_parameters": [at] * 2}
    sizes |= {"slope": 0.0, "floor": 0.1, "ceiling": 1.0, "encoder_epsilon": 1e-5, "epsilon": 1e-5}
    for wrong, sentence in (
        ({"encoder_sizes": [7, 32]}, "an encoder with `width` outputs"),
        ({"actor_sizes": [32, 4]}, "an actor with as many inputs"),
        ({"actor_sizes": [16]}, "expected sizes >= 1"),
        ({"layers": 2}, "expected 34 addresses of parameters, got 18"),
        ({"floor": 2.0}, "expected floor <= ceiling"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.PolicyStep(**{**sizes, **wrong})
    policy, action = _native.PolicyStep(**sizes), torch.full((2,), -1)
    step = {"positions": at, "times": 2, "keys": at, "values": at, "cache_dtype": "float32", "rows": 4, "sinks": 0}
    step |= {"cache_position": position.data_ptr(), "cosine": 0, "sine": 0, "action": action.data_ptr(), "threads": 1}
    assert not policy.step(inputs, **{**step, "times": 1})
    assert (time.tolist(), position.tolist()) == ([1, 0], [5, 2])
    assert policy.step(inputs, **step)
    assert action.tolist() == [0, 0]
    assert (time.tolist(), position.tolist()) == ([2, 1], [6, 3])
    time.zero_()
    for wrong, sentence in (
        ({"action": 0}, "expected the addresses of h, and of x or action"),
        ({"x": at}, "expected the addresses of h, and of x or action"),
        ({"keys": 0}, "got a zero"),
        ({"rows": 0}, "0 <= sinks < rows"),
    ):
        with pytest.raises(ValueError, match=sentence):
            policy.step(inputs, **{**step, **wrong})
    fewer = _native.StepInputs(**{**given, "actions": 0, "choice": 0})
    with pytest.raises(ValueError, match="expected inputs of 7 numbers, got 3"):
        policy.step(fewer, **step)
