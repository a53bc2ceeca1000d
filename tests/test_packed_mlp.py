"""The native form of an MLP that acts against its layers one by one."""

import copy

import pytest
import torch
from torch import nn

from compare import assert_accurate
from twohot import _native
from twohot.nets.linear import MLP
from twohot.nets.packed import MOST_ROWS, PackedMLP

pytestmark = pytest.mark.usefixtures("nothing_forced")


def networks(inputs=21, hidden=40, layers=2, outputs=48, seed=0):
    torch.manual_seed(seed)
    norm = nn.LayerNorm(outputs)
    with torch.no_grad():
        norm.weight.add_(torch.randn(outputs))
        norm.bias.add_(torch.randn(outputs))
    return MLP(inputs, hidden, layers, outputs), norm


def layer_by_layer(network, x, norm, last, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PackedMLP, "fits", lambda *_: False)
        return network.step(x, norm, last)


@pytest.mark.parametrize("rows", [0, 1, 8, 13, 100])
@pytest.mark.parametrize(("layers", "with_norm", "last"), [(0, False, None), (2, True, None), (1, False, 5)])
@torch.no_grad()
def test_it_is_accurate(rows, layers, with_norm, last, mlp_calls, monkeypatch):
    network, norm = networks(layers=layers)
    norm = norm if with_norm else None
    x = torch.randn(rows, 21)
    exact, exact_norm = copy.deepcopy(network).double(), copy.deepcopy(norm)
    truth = layer_by_layer(exact, x.double(), exact_norm and exact_norm.double(), last, monkeypatch)
    assert truth.shape == (rows, last or 48)
    assert_accurate(network.step(x, norm, last), truth, layer_by_layer(network, x, norm, last, monkeypatch))
    assert len(mlp_calls) == 1


@torch.no_grad()
def test_any_number_of_threads_gives_the_same_bits():
    network, norm = networks()
    x, threads, found = torch.randn(40, 21), torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(network.step(x, norm))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@torch.no_grad()
def test_changed_weights_count(monkeypatch):
    network, norm = networks()
    x = torch.randn(3, 21)
    network.step(x, norm)
    changes = [
        lambda: network[0].weight.mul_(2),
        lambda: norm.bias.add_(1),
        lambda: setattr(network[2], "weight", nn.Parameter(torch.randn(40, 40))),
        lambda: network.load_state_dict(networks(seed=1)[0].state_dict()),
    ]
    for change in changes:
        before = network.step(x, norm)
        change()
        torch.testing.assert_close(network.step(x, norm), layer_by_layer(network, x, norm, None, monkeypatch))
        assert not torch.allclose(before, network.step(x, norm))


def test_it_runs_for_few_rows_without_gradient_alone(mlp_calls):
    network, _ = networks()
    with torch.no_grad():
        network.step(torch.randn(MOST_ROWS + 1, 21))
        network.step(torch.randn(2, 3, 21))
        network.double().step(torch.randn(2, 21, dtype=torch.float64))
        network.float()
    network.step(torch.randn(2, 21))
    assert not mlp_calls
    with torch.no_grad():
        network.step(torch.randn(2, 21))
    assert len(mlp_calls) == 1


@pytest.mark.parametrize(
    ("sizes", "parameters"), [([], []), ([4], []), ([4, 0], [1, 1]), ([4, 8], [1]), ([4, 8], [1, 1, 1, 1])]
)
def test_bad_sizes_are_refused(sizes, parameters):
    with pytest.raises(ValueError, match="expected sizes"):
        _native.mlp_step(1, 1, 1, sizes, parameters, epsilon=0, slope=0, threads=1)
