"""The native cached step of a whole Transformer against its layers one by one."""

import copy
import pickle

import pytest
import torch

from compare import OF_TWO, assert_accurate
from two_hot_truth import normal
from twohot import _native
from twohot.attention import KVCache
from twohot.nets.packed import PANEL, PackedStep, pack
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


def by_layers(module, x, time, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PackedStep, "fits", lambda *_: False)
        return module.step(x, time, cache)


SHAPES = {
    "one environment": (1, {}, {}),
    "agents": (13, {"width": 256, "layers": 3, "heads": 8, "feed_forward": 1024}, {}),
    "odd widths": (11, {"width": 48, "heads": 3, "feed_forward": 16}, {}),
    "large heads, many environments": (70, {"width": 160, "heads": 2, "layers": 1}, {}),
    "sinks and rotary": (9, {}, {"sinks": 3, "rotary": 100.0}),
}


@pytest.mark.parametrize(("environments", "sizes", "options"), SHAPES.values(), ids=SHAPES.keys())
def test_native_steps_are_accurate(environments, sizes, options, monkeypatch):
    module = transformer(**sizes)
    exact = copy.deepcopy(module).double()
    cache, plain_cache = (cache_of(module, environments, **options) for _ in range(2))
    exact_cache = cache_of(module, environments, torch.float64, **options)
    time = torch.zeros(environments, dtype=torch.int64)
    for t in range(3 * module.context):
        reset = torch.arange(environments) % 7 == t % 9
        for each in (cache, plain_cache, exact_cache):
            each.reset(reset)
        time = time.masked_fill(reset, 0)
        x = normal(environments, module.width, seed=t)
        assert module._packed.fits(module, x, cache)
        h = module.step(x, time, cache)
        plain = by_layers(module, x, time, plain_cache, monkeypatch)
        assert_accurate(h, by_layers(exact, x.double(), time, exact_cache, monkeypatch), plain, floor=16)
        assert torch.equal(cache.seen, plain_cache.seen)
        time += 1
    assert_accurate(cache.keys, exact_cache.keys, plain_cache.keys, floor=16)
    assert_accurate(cache.values, exact_cache.values, plain_cache.values, floor=16)


def test_a_native_step_with_a_bfloat16_cache(monkeypatch):
    module = transformer()
    caches = [cache_of(module, 5, torch.bfloat16) for _ in range(2)]
    time = torch.zeros(5, dtype=torch.int64)
    for t in range(20):
        x = normal(5, 64, seed=t)
        h, other = module.step(x, time, caches[0]), by_layers(module, x, time, caches[1], monkeypatch)
        assert (h - other).abs().max() < 2e-2  # a key may round to either side
        time += 1


def test_threads_change_no_bit_of_a_step():
    module, x, outputs = transformer(), normal(40, 64), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        cache = cache_of(module, 40)
        outputs += [module.step(x, torch.zeros(40, dtype=torch.int64), cache)]
    torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def assert_current(module, monkeypatch):
    x, time = normal(3, module.width), torch.zeros(3, dtype=torch.int64)
    h = module.step(x, time, cache_of(module, 3))
    assert_step(h, module, x, time, monkeypatch)
    return h


def assert_step(h, module, x, time, monkeypatch):
    """A first step is as near to float64 as that of the layers one by one."""
    plain = by_layers(module, x, time, cache_of(module, len(x)), monkeypatch)
    double = copy.deepcopy(module).double()
    exact = by_layers(double, x.double(), time, cache_of(module, len(x), torch.float64), monkeypatch)
    assert_accurate(h, exact, plain, floor=16)


def test_every_change_of_a_parameter_is_seen(monkeypatch):
    module = transformer()
    before = assert_current(module, monkeypatch)
    addresses = module._packed._weights._addresses
    assert_current(module, monkeypatch)
    assert module._packed._weights._addresses is addresses  # packed once
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            parameter.mul_(1.1 + 0.1 * torch.rand_like(parameter))
        after = assert_current(module, monkeypatch)
        assert not torch.equal(before, after), name
        before = after
    module.load_state_dict(transformer(seed=1).state_dict(), assign=True)
    after = assert_current(module, monkeypatch)
    assert not torch.equal(before, after)
    module.norm.weight.data = 3 * module.norm.weight.data
    bias = module.norm.bias.detach().double()
    expected = 3 * (after.double() - bias) + bias
    assert_accurate(assert_current(module, monkeypatch), expected, floor=OF_TWO, sensitivity=3 * bias.abs())
    module.layers[0].up.iterate()
    before = assert_current(module, monkeypatch)
    other = transformer(seed=2)
    module.layers[0].qkv = other.layers[0].qkv
    after = assert_current(module, monkeypatch)
    assert not torch.equal(before, after)
    module.layers[1] = other.layers[1]
    assert not torch.equal(after, assert_current(module, monkeypatch))


def test_a_copy_packs_for_itself(monkeypatch):
    module = transformer()
    before = assert_current(module, monkeypatch)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other._packed is not module._packed
        assert other._packed._weights._addresses == []
        with torch.no_grad():
            other.norm.weight.mul_(2)
        assert not torch.equal(assert_current(other, monkeypatch), before)
        assert torch.equal(assert_current(module, monkeypatch), before)


def test_other_steps_go_layer_by_layer(monkeypatch):
    module, x = transformer(), normal(3, 64)
    fits = module._packed.fits
    assert fits(module, x, cache_of(module, 3))
    assert fits(module, normal(3, 128)[:, ::2], cache_of(module, 3))
    assert not fits(module, x, cache_of(module, 3, torch.float16))
    assert not fits(module, x, cache_of(module, 2))
    assert not fits(module, x[:, :48], cache_of(module, 3))
    assert not fits(module, x, KVCache(1, 3, 2, 32, 12))
    assert not fits(module, x, KVCache(2, 3, 4, 16, 12))
    assert not fits(module, x.double(), cache_of(module, 3))
    assert not fits(transformer(feed_forward=40), x, cache_of(module, 3))
    assert not fits(copy.deepcopy(module).double(), x, cache_of(module, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(module, x, cache_of(module, 3))
    monkeypatch.setenv("TWOHOT_ATTENTION", "reference")
    assert not fits(module, x, cache_of(module, 3))
    monkeypatch.delenv("TWOHOT_ATTENTION")
    time = torch.zeros(3, dtype=torch.int64)
    strided, packed = (module.step(each, time, cache_of(module, 3)) for each in (normal(3, 128)[:, ::2], x))
    assert not torch.equal(strided, packed)
    assert torch.equal(strided, module.step(normal(3, 128)[:, ::2].contiguous(), time, cache_of(module, 3)))


def test_compiling_a_step_breaks_nowhere(monkeypatch):
    module, x, time = transformer(), normal(3, 64), torch.zeros(3, dtype=torch.int64)
    compiled = torch.compile(module.step, fullgraph=True, backend="aot_eager")
    assert_step(compiled(x, time, cache_of(module, 3)), module, x, time, monkeypatch)


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
        **dict.fromkeys(("input", "output", "keys", "values", "seen"), x.data_ptr()),
        **{"environments": 1, "width": 16, "feed_forward": 16, "parameters": [x.data_ptr()] * 18, "epsilon": 1e-5},
        **{"slope": 0.0, "cache_dtype": "float32", "layers": 1, "heads": 1, "rows": 4, "size": 16, "threads": 1},
    }
    _native.transformer_step(**given)
    for wrong, sentence in (
        ({"size": 24}, "expected a head size that is a multiple of 16 up to 256, got 24"),
        ({"cache_dtype": "float16"}, "expected a cache of float32 or bfloat16"),
        ({"width": 32}, "a width of heads . size"),
        ({"feed_forward": 24}, "a feed_forward that is a multiple of 16"),
        ({"sinks": 4}, "0 <= sinks < rows"),
        ({"parameters": [1] * 17}, "expected 18 addresses of parameters, got 17"),
        ({"seen": 0}, "got a zero"),
        ({"sine": 1}, "got a zero"),
    ):
        with pytest.raises(ValueError, match=sentence):
            _native.transformer_step(**{**given, **wrong})
