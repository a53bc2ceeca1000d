"""Trajectory encoders beside the plain Transformer, and the positions, against explicit formulas in float64."""

import dataclasses
import math

import pytest
import torch

from compare import assert_accurate
from network_formulas import gru_states, layer_norm, leaky_relu, linear, normal, perturb
from twohot.agent.build import make_trajectory_encoder
from twohot.config import AgentConfig
from twohot.nets.positions import LearnedPositions
from twohot.nets.set_memory import SetMemory
from twohot.nets.trajectory import FeedForwardMemory, GRUMemory, IdentityMemory
from twohot.nets.transformer import Transformer

MEMORIES = {
    "fixed": {"positions": "fixed"},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "gru": {"memory": "gru"},
    "set": {"memory": "set"},
    "feedforward": {"memory": "feedforward"},
    "identity": {"memory": "identity"},
}
CONFIG = AgentConfig(width=32, layers=2, heads=2, feed_forward=32, dropout=0.1, context=12)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=MEMORIES, name="memory")
def _memory(request):
    module = make_trajectory_encoder(dataclasses.replace(CONFIG, **MEMORIES[request.param]))
    return perturb(module, 0.1).eval()


# All of them


def test_cached_steps_equal_the_whole_trials_for_every_mix_of_resets(memory):
    batch, steps = 5, 30
    x = normal(batch, steps, 32)
    generator = torch.Generator().manual_seed(4)
    cache = memory.initial_cache(batch)
    time, starts = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    resets = 0
    for t in range(steps):
        # A trial may end at any step, and has to where it has filled the context.
        mask = (torch.rand(batch, generator=generator) < 0.15) | (time == 12)
        if t:
            cache.reset(mask)
            time.masked_fill_(mask, 0)
            starts.masked_fill_(mask, t)
            resets += int(mask.sum())
        h = memory.step(x[:, t], time, cache)
        for b in range(batch):
            trial = x[b : b + 1, starts[b] : t + 1]
            whole = memory(trial, torch.arange(trial.shape[1]).unsqueeze(0))[0, -1]
            assert (h[b] - whole).abs().max() < 1e-5
        assert not h.requires_grad or isinstance(memory, IdentityMemory)
        time += 1
    assert resets > 10


def test_later_steps_and_other_rows_change_nothing_bit_for_bit(memory):
    x, time = normal(3, 9, 32), torch.arange(9).expand(3, 9)
    before = memory(x, time)
    for t in (1, 4, 8):
        changed, late = x.clone(), time.clone()
        changed[:, t:] = 100 * normal(3, 9 - t, 32, seed=9)
        late[:, t:] = 0
        assert torch.equal(memory(changed, late)[:, :t], before[:, :t])
    changed = x.clone()
    changed[1] += 1
    assert torch.equal(memory(changed, time)[::2], before[::2])


def test_what_came_before_is_remembered_by_those_with_memory(memory):
    x, time = normal(2, 6, 32), torch.arange(6).expand(2, 6)
    changed = x.clone()
    changed[:, 0] += normal(2, 32, seed=3)
    moved = (memory(changed, time) != memory(x, time)).any(-1)
    assert moved[:, 0].all()
    assert moved[:, 1:].all() if isinstance(memory, Transformer | GRUMemory | SetMemory) else not moved[:, 1:].any()


def test_gradients_reach_every_parameter(memory):
    x, time = normal(3, 12, 32).requires_grad_(), torch.arange(12).expand(3, 12)
    memory(x, time).backward(normal(3, 12, 32, seed=1))
    assert x.grad.ne(0).any(-1).all()
    assert [name for name, parameter in memory.named_parameters() if not parameter.grad.ne(0).any()] == []


def test_autocast_is_near_float32(memory):
    x, time = normal(3, 8, 32), torch.arange(8).expand(3, 8)
    expected = memory(x, time)
    with torch.autocast("cpu", torch.bfloat16):
        actual = memory(x, time)
    assert (actual - expected).abs().max() < 0.2
    assert actual.isfinite().all()


# GRU, feed-forward, identity


def test_the_state_of_a_gru_stays_float32_under_autocast():
    module, states = GRUMemory(16, 2, 0.0), []
    module.gru.register_forward_hook(lambda _, inputs, outputs: states.append(outputs[0]))
    x, time = normal(2, 9, 16), torch.arange(9).expand(2, 9)
    module(x, time)
    with torch.autocast("cpu", torch.bfloat16):
        module(x, time)
    assert torch.equal(*states)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_gru_equals_its_formula(layers):
    module = perturb(GRUMemory(6, layers, 0.0).double())
    x = normal(3, 7, 6, dtype=torch.float64)
    actual = module(x, torch.arange(7).expand(3, 7))
    for row in range(3):
        expected = layer_norm(linear(module.out, gru_states(module.gru, x[row])), module.norm)
        assert_accurate(actual[row].detach(), expected.detach(), floor=1e4)


def test_a_feed_forward_network_equals_its_formula():
    module = perturb(FeedForwardMemory(6, 2, 10, 0.0).double())
    x = normal(3, 4, 6, dtype=torch.float64)
    expected = x
    for layer in module.layers:
        hidden = layer_norm(expected, layer.norm) @ layer.up.effective_weight().T + layer.up.bias
        hidden = layer_norm(leaky_relu(hidden), layer.norm_hidden)
        expected = expected + hidden @ layer.down.effective_weight().T + layer.down.bias
    assert_accurate(module(x, torch.zeros(3, 4)).detach(), layer_norm(expected, module.norm).detach(), floor=1e4)


@pytest.mark.parametrize("name", ["gru", "feedforward", "fixed"])
def test_dropout_is_for_training_only(name):
    module = make_trajectory_encoder(dataclasses.replace(CONFIG, dropout=0.5, **MEMORIES[name]))
    x, time = normal(2, 4, 32), torch.arange(4).expand(2, 4)
    assert not torch.equal(module(x, time), module(x, time))
    module.eval()
    assert torch.equal(module(x, time), module(x, time))


def test_a_feed_forward_network_drops_inputs_and_what_its_layers_add():
    x, time = normal(2, 4, 16), torch.zeros(2, 4)
    for module in (FeedForwardMemory(16, 0, 24, 0.5), FeedForwardMemory(16, 1, 24, 0.5).layers):
        arguments = (x, time) if isinstance(module, FeedForwardMemory) else (x,)
        assert not torch.equal(module(*arguments), module(*arguments))


def test_identity_gives_what_it_gets():
    module, x = IdentityMemory(), normal(2, 4, 32)
    assert module(x, torch.zeros(2, 4)) is x
    assert list(module.parameters()) == []


# Positions


def test_learned_positions_are_rows_and_the_last_row_goes_on():
    module = LearnedPositions(4, 3)
    time = torch.tensor([[0, 1], [2, 3], [1000, 1]], dtype=torch.int32)
    assert torch.equal(module(time), module.table[torch.tensor([[0, 1], [2, 2], [2, 1]])])


@pytest.mark.parametrize(("learned", "rows"), [(0, 12), (50, 50)])
def test_the_table_of_learned_positions_covers_the_context_or_what_was_asked_for(learned, rows):
    module = make_trajectory_encoder(dataclasses.replace(CONFIG, positions="learned", learned_positions=learned))
    assert module.positions.table.shape == (rows, 32)


def test_learned_positions_are_added_to_the_embeddings():
    module = make_trajectory_encoder(dataclasses.replace(CONFIG, positions="learned")).eval()
    fixed = make_trajectory_encoder(CONFIG).eval()
    fixed.load_state_dict({n: t for n, t in module.state_dict().items() if not n.startswith("positions.")})
    x, time = normal(2, 5, 32), torch.arange(5) + torch.tensor([[0], [4]])
    shifted = x + module.positions(time) - fixed.positions(time)
    assert torch.allclose(module(x, time), fixed(shifted, time), atol=1e-5)


def test_rotary_attention_rotates_queries_and_keys_by_the_time():
    module = perturb(Transformer(8, 1, 2, 12, 0.0, 16, positions="rotary"), 0.1).double().eval()
    layer, x = module.layers[0], normal(2, 6, 8, dtype=torch.float64)
    time = torch.arange(6) + torch.tensor([[0], [7]])  # a window may begin anywhere in a trial
    q, k, v = (layer_norm(x, layer.norm_attention) @ layer.qkv.effective_weight().T).split(8, dim=-1)
    attended = torch.zeros(2, 6, 8, dtype=torch.float64)
    for b in range(2):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)

            def turned(rows, t, b=b, part=part):
                pair = torch.complex(rows[b, t, part][:2], rows[b, t, part][2:])
                angle = time[b, t] * torch.tensor([1.0, 10_000**-0.5], dtype=torch.float64)
                return torch.polar(torch.ones_like(angle), angle) * pair

            for t in range(6):
                scores = [(turned(q, t) * turned(k, s).conj()).real.sum() / math.sqrt(4) for s in range(t + 1)]
                weights = torch.stack(scores).softmax(0)
                attended[b, t, part] = layer.head_scale[head] * (weights.unsqueeze(-1) * v[b, : t + 1, part]).sum(0)
    y = x + layer_norm(attended @ layer.out.effective_weight().T + layer.out.bias, layer.norm_attended)
    hidden = layer_norm(y, layer.norm_feed_forward) @ layer.up.effective_weight().T + layer.up.bias
    hidden = layer_norm(leaky_relu(hidden), layer.norm_hidden)
    y = y + hidden @ layer.down.effective_weight().T + layer.down.bias
    assert_accurate(module(x, time).detach(), layer_norm(y, module.norm).detach(), floor=1e4)


def test_rotary_positions_continue_from_a_prefix():
    module = perturb(Transformer(32, 2, 2, 32, 0.0, 16, positions="rotary"), 0.1).eval()
    x, time = normal(3, 8, 32), torch.arange(8).expand(3, 8)
    cache = module.initial_cache(3)
    prefix = module.prefill(x[:, :5], time[:, :5], torch.full((3,), 5), cache)
    whole = module(x, time)
    assert torch.allclose(prefix, whole[:, :5], atol=1e-5)
    for t in range(5, 8):
        assert torch.allclose(module.step(x[:, t], time[:, t], cache), whole[:, t], atol=1e-5)
