"""The native form of an MLP against its layers one by one."""

import copy

import pytest
import torch
from torch import nn

from compare import assert_accurate
from twohot import _native
from twohot.nets.linear import MLP
from twohot.nets.packed import PackedMLP

pytestmark = pytest.mark.usefixtures("nothing_forced")


@torch.no_grad()
def networks(inputs=21, hidden=40, layers=2, outputs=48, seed=0):
    torch.manual_seed(seed)
    norm = nn.LayerNorm(outputs)
    norm.weight.add_(torch.randn(outputs))
    norm.bias.add_(torch.randn(outputs))
    return MLP(inputs, hidden, layers, outputs), norm


def weights(network, last=None):
    *layers, (weight, bias) = [(layer.weight, layer.bias) for layer in network.layers]
    return [*layers, (weight[-last:], bias[-last:]) if last else (weight, bias)]


@pytest.mark.parametrize("rows", [0, 1, 8, 13, 100])
@pytest.mark.parametrize(("layers", "with_norm", "last"), [(0, False, None), (2, True, None), (1, False, 5)])
@torch.no_grad()
def test_it_is_accurate(rows, layers, with_norm, last):
    network, norm = networks(layers=layers)
    norm = norm if with_norm else None
    x = torch.randn(rows, 21)

    def plain(network, norm, x):
        out = network.last_outputs(x, last) if last else network(x)
        return out if norm is None else norm(out)

    truth = plain(copy.deepcopy(network).double(), copy.deepcopy(norm) and copy.deepcopy(norm).double(), x.double())
    packed = PackedMLP(weights(network, last), norm)
    assert truth.shape == (rows, last or 48)
    assert_accurate(packed(x), truth, plain(network, norm, x))
    assert torch.equal(copy.deepcopy(packed)(x), packed(x))


@torch.no_grad()
def test_any_number_of_threads_gives_the_same_bits():
    network, norm = networks()
    packed = PackedMLP(weights(network), norm)
    x, threads, found = torch.randn(40, 21), torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(packed(x))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_it_runs_in_float32_on_a_cpu_where_native_code_may(monkeypatch):
    network, norm = networks()
    assert PackedMLP.runs(weights(network), norm)
    assert PackedMLP.runs(weights(networks(outputs=5)[0]))
    assert not PackedMLP.runs(weights(networks(outputs=5)[0]), nn.LayerNorm(5))
    assert not PackedMLP.runs(weights(copy.deepcopy(network).double()))
    assert not PackedMLP.runs(weights(copy.deepcopy(network).to("meta")))
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert not PackedMLP.runs(weights(network), norm)


@pytest.mark.parametrize(
    ("sizes", "parameters"), [([], []), ([4], []), ([4, 0], [1, 1]), ([4, 8], [1]), ([4, 8], [1, 1, 1, 1])]
)
def test_bad_sizes_are_refused(sizes, parameters):
    with pytest.raises(ValueError, match="expected sizes"):
        _native.mlp_step(1, 1, 1, sizes, parameters, epsilon=0, slope=0, threads=1)
