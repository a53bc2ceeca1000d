"""The calls of `native_fuzz` that take tensors: losses, attention, critics, images, layers, and steps of networks."""

import torch
from gymnasium import spaces

from native_fuzz import Draw
from twohot import _native, attention, info, losses
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig
from twohot.kernels.attention import op as attention_op
from twohot.kernels.critics import op as critics_op
from twohot.kernels.images import op as images_op
from twohot.kernels.linear_two_hot import op as linear_op
from twohot.kernels.transformer_layer import op as layer_op
from twohot.kernels.two_hot import op as two_hot_op
from twohot.losses import ValueBins
from twohot.nets.critic import CriticEnsemble
from twohot.nets.frozen import freeze
from twohot.nets.frozen_networks import freeze_network
from twohot.nets.grids import GridEncoder
from twohot.nets.images import ImageEncoder
from twohot.nets.linear import MLP
from twohot.nets.packed import PackedMLP
from twohot.nets.packed_features import pack_features
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.tokens import TokenEncoder
from twohot.nets.transformer import Transformer, TransformerLayer

DTYPES = (torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)
SUPPORTS = (ValueBins.c51(-5, 5, 11), ValueBins(-20, 20, 32), ValueBins(-9, 30, 17, "signed_sqrt", "raw", "raw"))


def _rows(draw: Draw) -> tuple[int, ...]:
    return draw.choice((), (1,), (5,), (3, 4), (2, 1, 3), (0,), (40,))


def two_hot_losses(draw: Draw):
    bins, rows = draw.choice(*SUPPORTS), _rows(draw)
    loss = draw.choice(losses.two_hot_cross_entropy, losses.hl_gauss_cross_entropy)
    arguments = {
        "logits": draw.normal(*rows, bins.count, dtype=draw.choice(*DTYPES), gradient=True),
        "target": 4 * draw.normal(*draw.choice(rows, rows[-1:], ())),
        "bins": bins,
        "weight": draw.choice(None, draw.normal(*rows)),
        "mask": draw.mask(*draw.choice(rows, rows[-1:])),
        "reduction": draw.choice("none", "mean", "sum"),
        "return_readout": draw.choice(True, False),
    }
    if loss is losses.hl_gauss_cross_entropy:
        arguments["sigma"] = draw.choice(0.75, 0.1, 3.0)
    return loss, arguments, True


def expectations(draw: Draw):
    bins = draw.choice(*SUPPORTS)
    logits = draw.normal(*_rows(draw), bins.count, dtype=draw.choice(*DTYPES), gradient=True)
    return losses.bin_expectation, {"logits": logits, "bins": bins}, True


def linear_losses(draw: Draw):
    bins, rows = draw.choice(*SUPPORTS), draw.choice((5,), (3, 4), (2, 600), (0,), (1,))
    heads, width, dtype = draw.choice((), (2,), (3,)), draw.size(1, 8, 33), draw.choice(*DTYPES)
    function = draw.choice(
        losses.linear_two_hot_cross_entropy, losses.linear_hl_gauss_cross_entropy, losses.linear_bin_expectation
    )
    arguments = {
        "hidden": draw.normal(*heads, *rows, width, dtype=dtype, gradient=True),
        "weight": draw.normal(*heads, bins.count, width, dtype=dtype, gradient=True)
        .detach()
        .div(width**0.5)
        .requires_grad_(),
        "bias": draw.choice(None, draw.normal(*heads, bins.count, dtype=dtype, gradient=True)),
        "bins": bins,
    }
    if function is not losses.linear_bin_expectation:
        arguments |= {
            "target": 4 * draw.normal(*draw.choice((*heads, *rows), rows)),
            "row_weight": draw.choice(None, draw.normal(*heads, *rows)),
            "mask": draw.mask(*rows),
            "reduction": draw.choice("none", "mean", "sum"),
            "return_readout": draw.choice(True, False),
        }
    return function, arguments, True


def whole_windows(draw: Draw):
    batch, steps, heads, groups, size = draw.size(1, 2, 0), draw.size(1, 7, 50, 0), draw.size(1, 2), draw.size(1, 3), 16
    size, dtype = draw.choice(16, 32, 8, 48), draw.choice(*DTYPES)
    arguments = {
        "q": draw.normal(batch, steps, heads * groups, size, dtype=dtype, gradient=True),
        "k": draw.normal(batch, steps, heads, size, dtype=dtype, gradient=True),
        "v": draw.normal(batch, steps, heads, size, dtype=dtype, gradient=True),
        "lengths": draw.choice(None, draw.integers(steps + 1, batch, dtype=draw.choice(torch.int64, torch.int32))),
        "window": draw.choice(None, 1, 5, 60),
        "sinks": draw.size(0, 1, 3),
        "softcap": draw.choice(None, 5.0),
        "scale": draw.choice(None, 0.3),
        "rotary": draw.choice(None, 100.0),
    }
    return attention.causal_attention, arguments, True


def cached_steps(draw: Draw):
    environments, heads, size, length = draw.size(1, 3, 9), draw.size(1, 2), draw.choice(16, 32, 24), draw.size(1, 2, 9)
    wide, dtype = heads * draw.size(1, 2), draw.choice(*DTYPES[:-1])
    shape = (2, environments, heads, length, size)

    def decode(q, k, v, layer, softcap, scale, keys, values, cache_position, steps, mask, sizes, sinks, rotary):
        cache = attention.KVCache(*sizes, dtype=draw.choice(torch.float32), sinks=sinks, rotary=rotary)
        cache.keys, cache.values, cache.cache_position = keys, values, cache_position
        with torch.no_grad():
            out = attention.decode_attention(q, k, v, cache, layer, softcap=softcap, scale=scale)
            cache.advance(steps)
            again = attention.decode_attention(q, k, v, cache, layer, softcap=softcap, scale=scale)
        cache.reset(mask)
        return out, again, cache.keys, cache.values, cache.cache_position

    cache_dtype = draw.choice(torch.float32, torch.bfloat16)
    arguments = {
        "q": draw.normal(environments, wide, size, dtype=dtype),
        "k": draw.normal(environments, heads, size, dtype=dtype),
        "v": draw.normal(environments, heads, size, dtype=dtype),
        "layer": draw.size(0, 1),
        "softcap": draw.choice(None, 5.0),
        "scale": draw.choice(None, 0.3),
        "keys": torch.randn(shape, generator=draw.torch).to(cache_dtype),
        "values": torch.randn(shape, generator=draw.torch).to(cache_dtype),
        "cache_position": draw.integers(draw.size(1, 30), environments),
        "steps": draw.choice(1, draw.integers(4, environments)),
        "mask": draw.mask(environments),
        "sizes": (2, environments, heads, size, length),
        "sinks": draw.size(0, length - 1),
        "rotary": draw.choice(None, 100.0),
    }
    return decode, arguments, True


def filled_caches(draw: Draw):
    batch, steps, heads, size, length = draw.size(1, 3), draw.size(1, 6), draw.size(1, 2), 16, draw.size(1, 4, 9)

    def prefill(q, k, v, lengths, layer, cache_position, rotary):
        cache = attention.KVCache(2, batch, heads, size, length, rotary=rotary)
        cache.cache_position = cache_position
        out = attention.prefill_attention(q, k, v, lengths, cache, layer)
        cache.advance(lengths)
        step = attention.decode_attention(q[:, 0], k[:, 0], v[:, 0], cache, layer)
        return out, step, cache.keys, cache.values, cache.cache_position

    arguments = {
        "q": draw.normal(batch, steps, 2 * heads, size),
        "k": draw.normal(batch, steps, heads, size),
        "v": draw.normal(batch, steps, heads, size),
        "lengths": draw.integers(steps + 1, batch),
        "layer": draw.size(0, 1),
        "cache_position": torch.zeros(batch, dtype=torch.int64),
        "rotary": draw.choice(None, 100.0),
    }
    return prefill, arguments, True


def _critics(draw: Draw, bins: int):
    space = draw.choice(spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (3,)))
    torch.manual_seed(draw.size(*range(9)))
    return CriticEnsemble(6, 16, draw.size(1, 2), draw.size(1, 2), (0.9, 0.99), space, bins), space


def _actions(draw: Draw, space: spaces.Space, *rows: int) -> torch.Tensor:
    if isinstance(space, spaces.Discrete):
        return draw.integers(4, *rows)
    if isinstance(space, spaces.MultiDiscrete):
        return torch.stack((draw.integers(2, *rows), draw.integers(3, *rows)), -1)
    if isinstance(space, spaces.MultiBinary):
        return draw.integers(2, *rows, 2)
    return draw.normal(*rows, 3).clamp(-1, 1)


def critics_losses(draw: Draw):
    bins, steps = draw.choice(*SUPPORTS), draw.size(1, 5, 0)
    several = draw.turn % 2 == 0
    critics, space = _critics(draw, bins.count if several else 1)

    def classes(critics, h, action, target, mask, bins, dtype):
        return critics.cross_entropy(critics.state_features(h).to(dtype), action, target, bins, mask)

    def numbers(critics, h, action, target, mask, bins, dtype):
        factor, offset = target.new_ones(2), target.new_zeros(2)
        return critics.squared_error(critics.state_features(h).to(dtype), action, target, factor, offset, mask)

    arguments = {
        "critics": critics,
        "h": draw.normal(steps, 6),
        "action": _actions(draw, space, steps),
        "target": 4 * draw.normal(steps, 2),
        "mask": torch.rand(steps, generator=draw.torch) < 0.7,
        "bins": bins,
        "dtype": torch.float32,
    }
    return _without_spoiling(classes if several else numbers, arguments, "critics", "dtype")


def critics_values(draw: Draw):
    bins, steps, rows = draw.choice(*SUPPORTS), draw.size(1, 5), draw.size(1, 7)
    several = draw.turn % 2 == 0
    critics, space = _critics(draw, bins.count if several else 1)

    def classes(critics, h, step, discount, action, bins):
        return critics.values(critics.state_features(h), step, discount, action, bins)

    def numbers(critics, h, step, discount, action, bins):
        return critics.outputs(critics.state_features(h), step, discount, action)

    arguments = {
        "critics": critics,
        "h": draw.normal(steps, 6),
        "step": draw.integers(steps, rows),
        "discount": draw.integers(2, rows),
        "action": _actions(draw, space, rows),
        "bins": bins,
    }
    return _without_spoiling(classes if several else numbers, arguments, "critics")


def _without_spoiling(call, arguments, *names):
    """The call with some arguments that are never spoiled."""
    kept = {name: arguments.pop(name) for name in names}

    def bound(**others):
        return call(**{**kept, **others})

    bound.__name__ = call.__name__
    return bound, arguments, True


def critics_operations(draw: Draw):
    several, steps, entries, rows, width = draw.turn % 2 == 0, 3, 4, draw.size(1, 6, 0), draw.size(1, 16)
    depth, bins, acts = draw.size(0, 1, 2), 11 if several else 1, draw.choice(0, 3)
    arguments = {
        "state": draw.normal(2, steps, width),
        "table": draw.normal(2, entries, width),
        "action_weight": draw.normal(2, acts, width) if acts else None,
        "weights": draw.normal(depth, 2, width, width),
        "biases": draw.normal(depth, 2, width),
        "head": draw.normal(2, width, bins),
        "head_bias": draw.normal(2, bins),
        "step": draw.integers(steps, rows),
        "entry": draw.integers(entries, rows),
        "action": draw.normal(rows, acts) if acts else None,
    }
    support = {"low": -5.0, "high": 5.0, "transform": "symlog", "readout_kind": "transformed"}
    if draw.choice(True, False):
        call = critics_op.critics_expectation if several else critics_op.critics_output
        return _positional(call, arguments | (support if several else {}))
    arguments |= {"target": draw.normal(rows)}
    if several:
        arguments |= {
            "mask": draw.mask(rows),
            **support,
            "labels": draw.choice("two_hot", "two_hot_raw", "hl_gauss"),
            "sigma": 0.75,
        }
        return _positional(critics_op.cross_entropy, arguments)
    arguments |= {"factor": draw.normal(rows), "offset": draw.normal(rows), "mask": draw.mask(rows)}
    return _positional(critics_op.squared_error, arguments)


def _positional(operation, arguments, plain=True):
    """A call of an operation by place, whose tensors alone may be spoiled: its schema says what else there is."""
    tensors = {name: x for name, x in arguments.items() if isinstance(x, torch.Tensor)}

    def call(**given):
        return operation(*(arguments | given).values())

    call.__name__ = getattr(operation, "__qualname__", str(operation))
    return call, tensors, plain


def two_hot_operations(draw: Draw):
    rows, bins, targets = draw.size(1, 6, 0), 11, draw.size(1, 3)
    rows *= targets
    support = {"low": -2.0, "high": 2.0, "transform": draw.choice("symlog", "linear", "signed_sqrt")}
    support["readout_kind"] = draw.choice("transformed", "raw")
    logits = draw.normal(rows, bins, dtype=draw.choice(*DTYPES[:-1])).contiguous()
    labelled = {"logits": logits, "target": draw.normal(targets).contiguous(), "mask": draw.mask(targets)}
    sigma = {"labels": draw.choice("two_hot", "two_hot_raw", "hl_gauss"), "sigma": 0.75}
    grad_output = {"grad_output": draw.normal(rows).contiguous()}
    one_pass = {"weight": draw.choice(None, draw.normal(rows).contiguous()), "mean": True}
    ends = {name: support[name] for name in ("low", "high", "transform")}
    return draw.choice(
        lambda: _positional(two_hot_op.cross_entropy_rows, labelled | support | sigma | {"with_readout": True}, False),
        lambda: _positional(two_hot_op.cross_entropy_rows_backward, labelled | grad_output | ends | sigma, False),
        lambda: _positional(
            two_hot_op.cross_entropy,
            labelled | one_pass | support | sigma | {"with_readout": True, "with_gradient": True},
            False,
        ),
        lambda: _positional(two_hot_op.expectation, {"logits": logits, **support}, False),
        lambda: _positional(two_hot_op.expectation_backward, {"logits": logits, **grad_output, **support}, False),
    )()


def linear_operations(draw: Draw):
    heads, rows, width, bins = draw.size(1, 2), draw.size(1, 5), draw.size(1, 8), 11
    layer = {
        "hidden": draw.normal(heads, rows, width),
        "weight": draw.normal(heads, bins, width),
        "bias": draw.choice(None, draw.normal(heads, bins)),
    }
    support = {"low": -2.0, "high": 2.0, "transform": "symlog", "readout_kind": "transformed"}
    labelled = layer | {"target": draw.normal(rows).contiguous(), "mask": draw.mask(rows)}
    one_pass = {"row_weight": draw.choice(None, draw.normal(heads * rows).contiguous()), "mean": True}
    wanted = {"wanted": [True, False, True]}
    return draw.choice(
        lambda: _positional(linear_op.linear_expectation, layer | support, False),
        lambda: _positional(
            linear_op.linear_cross_entropy,
            labelled | one_pass | support | {"labels": "two_hot", "sigma": 0.0, "with_readout": True} | wanted,
            False,
        ),
        lambda: _positional(
            linear_op.linear_cross_entropy_rows,
            labelled | support | {"labels": "hl_gauss", "sigma": 0.75, "with_readout": True},
            False,
        ),
    )()


def attention_operations(draw: Draw):
    batch, steps, heads, size, rows = draw.size(1, 2), draw.size(1, 5), draw.size(1, 2), 16, draw.size(1, 4)
    rotary = draw.choice(True, False)
    angles = {"cosine": draw.normal(steps, size // 2).contiguous(), "sine": draw.normal(steps, size // 2).contiguous()}
    options = {"window": draw.size(0, 2), "sinks": draw.size(0, 1), "softcap": draw.choice(0.0, 4.0), "scale": 0.25}
    windows = {
        "q": draw.normal(batch, steps, 2 * heads, size),
        "k": draw.normal(batch, steps, heads, size),
        "v": draw.normal(batch, steps, heads, size),
        "lengths": draw.choice(None, draw.integers(steps + 1, batch)),
        **(angles if rotary else {"cosine": None, "sine": None}),
        **options,
    }
    if draw.choice(True, False):
        return _positional(attention_op.causal_attention, windows, False)
    step = {
        "q": draw.normal(batch, 2 * heads, size),
        "k": draw.normal(batch, heads, size),
        "v": draw.normal(batch, heads, size),
        "keys": torch.randn(batch, heads, rows, size, generator=draw.torch),
        "values": torch.randn(batch, heads, rows, size, generator=draw.torch),
        "cache_position": draw.integers(9, batch),
        "sinks": draw.size(0, rows - 1),
        "softcap": draw.choice(0.0, 4.0),
        "scale": 0.25,
        "cosine": draw.normal(batch, size // 2).contiguous() if rotary else None,
        "sine": draw.normal(batch, size // 2).contiguous() if rotary else None,
    }
    return _positional(attention_op.decode_attention, step)


def pools(draw: Draw):
    shape = draw.size(1, 2), draw.size(16, 32, 3), draw.size(3, 7), draw.size(3, 8)
    return _positional(images_op.max_pool, {"x": draw.normal(*shape, gradient=True)})


def residual_norms(draw: Draw):
    shape = draw.size(1, 2), draw.size(16, 32, 4), draw.size(2, 5), draw.size(1, 6)
    arguments = {
        "x": draw.normal(*shape, gradient=True),
        "residual": draw.normal(*shape, gradient=True),
        "groups": 4,
        "weight": draw.normal(shape[1], gradient=True),
        "bias": draw.normal(shape[1], gradient=True),
        "epsilon": 1e-5,
    }
    return _positional(images_op.residual_norm, arguments)


def layers(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    layer = TransformerLayer(32, 2, 64, 0.0, draw.choice(None, 100.0))

    def forward(layer, x):
        return layer(x)

    x = draw.normal(draw.size(1, 2), draw.size(1, 9), 32, gradient=True)
    return _without_spoiling(forward, {"layer": layer, "x": x}, "layer")


def layer_operations(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    parameters = TransformerLayer(32, 2, 64, 0.0).folded()
    arguments = {name: x.detach().requires_grad_() for name, x in parameters._asdict().items()}

    def run(x, dtype, heads, **parameters):
        settings = layer_op.Settings(heads, None, 1e-5, 0.01, draw.choice(0.0, 0.3))
        return layer_op.run(x, dtype, settings, layer_op.Layer(**parameters))

    return run, {"x": draw.normal(2, 5, 32, gradient=True), "dtype": torch.float32, "heads": 2, **arguments}, False


def dropouts(draw: Draw):
    x = draw.normal(*draw.choice((4, 5), (0,), (), (3, 1, 2)), gradient=True)
    return _positional(layer_op.dropout, {"x": x, "share": draw.choice(0.0, 0.5)}, False)


def transformer_steps(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    kind = draw.choice("fixed", "learned", "rotary")
    transformer = freeze_network(Transformer(32, draw.size(1, 2), 2, 64, 0.0, draw.size(1, 4), positions=kind))
    environments = draw.size(1, 3, 9)

    def step(transformer, x, time, cache_position, keys, values):
        cache = transformer.initial_cache(environments)
        cache.cache_position = cache_position
        cache.keys, cache.values = (torch.zeros_like(cache.keys) if x is None else x for x in (keys, values))
        return transformer.step(x, time, cache), transformer.step(x, time, cache), cache.keys, cache.values

    arguments = {
        "transformer": transformer,
        "x": draw.normal(environments, 32),
        "time": draw.integers(50, environments),
        "cache_position": draw.integers(draw.size(1, 9), environments),
        "keys": draw.choice(None, torch.zeros_like(transformer.initial_cache(environments).keys)),
        "values": draw.choice(None, torch.zeros_like(transformer.initial_cache(environments).keys)),
    }
    return _without_spoiling(step, arguments, "transformer")


def mlps(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    layers = [(each.weight.detach(), each.bias.detach()) for each in MLP(6, 16, draw.size(0, 1, 2), 32).layers]
    packed = PackedMLP(layers, draw.choice(None, torch.nn.LayerNorm(32)))

    def step(x):
        return packed(x)

    return step, {"x": draw.normal(draw.size(1, 3, 0, 300), 6)}, True


def encoders(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    seen = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(-1, 1, (2, 2))})
    encoder = freeze_network(TimestepEncoder(seen, spaces.Discrete(4), hidden=16, layers=2, width=32))
    rows = draw.size(1, 3)

    def encode(encoder, a, b, previous_action, previous_reward, time):
        return encoder({"a": a, "b": b}, previous_action, previous_reward, time)

    arguments = {
        "encoder": encoder,
        "a": draw.normal(rows, 3),
        "b": draw.normal(rows, 2, 2),
        "previous_action": draw.integers(4, rows),
        "previous_reward": draw.normal(rows),
        "time": draw.integers(3, rows),
    }
    return _without_spoiling(encode, arguments, "encoder")


def features(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    rows = draw.size(1, 3, 0)
    kind = draw.choice("image", "grid", "tokens")
    if kind == "image":
        encoder, x = ImageEncoder((36, 37, 3), 8, "nature"), draw.integers(256, rows, 36, 37, 3, dtype=torch.uint8)
    elif kind == "grid":
        encoder, x = (
            GridEncoder((4, 3, 2), 8),
            draw.integers(256, rows, 4, 3, 2, dtype=draw.choice(torch.uint8, torch.int64)),
        )
    else:
        encoder, x = TokenEncoder(9, 8, width=4, hidden=16), draw.integers(12, rows, 5)
    found = pack_features(encoder)
    assert found is not None
    packed = found[0]

    def call(x):
        return packed(x)

    return call, {"x": x.numpy()}, False


def policies(draw: Draw):
    torch.manual_seed(draw.size(*range(9)))
    seen = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(-1, 1, (2, 2))})
    action = draw.choice(
        spaces.Discrete(4), spaces.Box(-1, 1, (3,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)
    )
    config = AgentConfig(width=32, layers=draw.size(1, 2), heads=2, feed_forward=32, context=3, critics=1)
    policy, rows = freeze(AgentNetworks(config, seen, action)), draw.size(1, 3)

    def act(policy, a, b, previous_action, previous_reward, time):
        state = policy.initial_state(rows)
        state.time = time
        return policy.act(state, {"a": a, "b": b}, previous_action, previous_reward, greedy=True)

    arguments = {
        "policy": policy,
        "a": draw.normal(rows, 3),
        "b": draw.normal(rows, 2, 2),
        "previous_action": _actions(draw, action, rows),
        "previous_reward": draw.normal(rows),
        "time": draw.integers(90, rows),
    }
    return _without_spoiling(act, arguments, "policy")


def memory(draw: Draw):
    megabytes = draw.size(1, 2)

    def keep():
        logits = torch.zeros(megabytes * 2**12, 64, requires_grad=True)
        losses.two_hot_cross_entropy(logits, torch.zeros(len(logits)), ValueBins.amago2(64)).backward()
        logits.grad = None
        assert losses.release_memory() >= 0
        return info.environment_info()["native module"], _native.cpu_capabilities()

    return keep, {}, False


CASES = (
    *(two_hot_losses, expectations, linear_losses, whole_windows, cached_steps, filled_caches),
    *(critics_losses, critics_values, critics_operations, two_hot_operations, linear_operations, attention_operations),
    *(
        pools,
        residual_norms,
        layers,
        layer_operations,
        dropouts,
        transformer_steps,
        mlps,
        encoders,
        features,
        policies,
        memory,
    ),
)
