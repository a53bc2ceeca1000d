"""The last layer fused with its loss: numbers against float64, and tiles."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import two_hot_truth as truth
from compare import assert_accurate
from layer_examples import (
    by_formulas,
    every_dtype,
    gradients,
    layer,
    layer_example,
    leaves,
    linear_cross_entropy,
    sensitivities,
)
from two_hot_truth import normal
from twohot.kernels.linear_two_hot import op
from twohot.losses import (
    ValueBins,
    linear_bin_expectation,
    linear_two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Numbers


@every_dtype
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("heads", "rows", "bins", "bias"),
    [
        (None, (700,), 17, True),
        (None, (3, 100), 64, False),
        (None, (), 5, True),
        (3, (2, 150), 101, True),
        (2, (513,), 8, False),
        (4, (1,), 2, True),
    ],
)
def test_loss_and_every_gradient(heads, rows, bins, bias, reduction, dtype, small_tiles) -> None:
    support = ValueBins.amago2(bins)
    inputs = layer_example(heads, rows, 12, bins, dtype, bias)
    of_rows = inputs[0].shape[:-1]
    row_weight, grad_output = normal(*of_rows, seed=4).abs(), normal(*of_rows, seed=5)
    mask = normal(*of_rows, seed=6) < 0.8
    own = 1000 * normal(*of_rows, seed=7)
    shared = own if heads is None else own[0]
    cases = itertools.product((own, shared), (None, row_weight), (None, mask), (0.0, 0.75))
    for target, w, m, sigma in cases:

        def run(tensors, function, dtype=None):
            tensors = leaves(tensors, dtype)
            loss, value = function(tensors)
            if reduction == "none":
                return loss.detach(), value, gradients(loss, tensors, grad_output.to(loss.dtype))
            # As large as a sum, so that an error of one row can be seen.
            size = torch.tensor(float(loss.new_empty(of_rows).numel() if reduction == "mean" else 1), dtype=loss.dtype)
            return loss.detach(), value, gradients(loss, tensors, size)

        options = {"row_weight": w, "mask": m, "reduction": reduction}
        actual = run(
            inputs,
            lambda t: linear_cross_entropy(*t, target, support, sigma, **options, return_readout=True),  # noqa: B023
        )
        exact = run(inputs, lambda t: by_formulas(t, target, support, sigma, w, m, reduction), torch.float64)  # noqa: B023
        plain = run(inputs, lambda t: by_formulas(t, target, support, sigma, w, m, reduction))  # noqa: B023
        assert actual[0].dtype == actual[1].dtype == torch.float32
        of = sensitivities(inputs, target, support, sigma, w, m)
        count = torch.ones(of_rows).sum() if m is None else m.sum()
        bounds = {"none": of.loss, "sum": of.loss.sum(), "mean": of.loss.sum() / count}
        assert_accurate(actual[0], exact[0], plain[0], sensitivity=bounds[reduction])
        assert_accurate(actual[1], exact[1], plain[1], sensitivity=of.value)
        assert actual[2].keys() == exact[2].keys()
        scale = math.prod(of_rows) / count if reduction == "mean" else 1
        if reduction == "none":
            of = sensitivities(inputs, target, support, sigma, grad_output if w is None else w * grad_output, m)
        for name in exact[2]:
            assert actual[2][name].dtype == dtype
            sensitivity = scale * of.of_loss[name]
            assert_accurate(actual[2][name], exact[2][name], plain[2][name], sensitivity=sensitivity)


@pytest.mark.parametrize("name", truth.SUPPORTS)
def test_every_support(name, implementation) -> None:
    bins = truth.SUPPORTS[name]
    inputs = layer_example(2, (40,), 16, bins.count)
    target = truth.targets(bins, 40, seed=8)
    for sigma in (0.0, 0.75):

        def run(function, dtype=None):
            tensors = leaves(inputs, dtype)
            loss, value = function(tensors)
            return loss.detach(), value, *gradients(loss, tensors).values()

        options = {"reduction": "sum", "return_readout": True}
        actual = run(lambda t: linear_cross_entropy(*t, target, bins, sigma, **options))  # noqa: B023
        exact = run(lambda t: by_formulas(t, target, bins, sigma, None, None, "sum"), torch.float64)  # noqa: B023
        plain = run(lambda t: by_formulas(t, target, bins, sigma, None, None, "sum"))  # noqa: B023
        of = sensitivities(inputs, target, bins, sigma)
        bounds = [of.loss.sum(), of.value, *of.of_loss.values()]
        for found, true, usual, sensitivity in zip(actual, exact, plain, bounds, strict=True):
            assert_accurate(found, true, usual, sensitivity=sensitivity)
        assert_accurate(linear_bin_expectation(*inputs, bins), exact[1], plain[1], sensitivity=of.value)


@every_dtype
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("heads", "rows"), [(None, (600,)), (None, ()), (3, (2, 7)), (2, ())])
def test_expectation_of_a_layer(heads, rows, bias, dtype, small_tiles, implementation) -> None:
    for bins in (ValueBins.amago2(33), ValueBins(-3.0, 8.0, 33, "linear", "raw")):
        inputs = layer_example(heads, rows, 12, 33, dtype, bias)
        exact = truth.readout(layer(*(None if x is None else x.double() for x in inputs)), bins)
        plain = truth.readout(layer(*inputs).float(), bins)
        value = linear_bin_expectation(*inputs, bins)
        assert value.dtype == torch.float32
        grad_output = normal(*exact.shape, seed=9)
        of = sensitivities(inputs, torch.zeros(exact.shape), bins, row_weight=grad_output)
        assert_accurate(value, exact, plain, sensitivity=of.value)
        tensors = leaves(inputs)
        again = linear_bin_expectation(*tensors, bins)
        assert again.requires_grad
        assert_accurate(again, exact, plain, sensitivity=of.value)
        found = gradients(again, tensors, grad_output)
        true, usual = leaves(inputs, torch.float64), leaves(inputs)
        true = gradients(truth.readout(layer(*true), bins), true, grad_output.double())
        usual = gradients(truth.readout(layer(*usual).float(), bins), usual, grad_output)
        for name in found:
            assert_accurate(found[name], true[name], usual[name], sensitivity=of.of_value[name])


def test_float64_and_many_bins_go_to_plain_pytorch() -> None:
    for bins, dtype in ((ValueBins.amago2(9), torch.float64), (ValueBins.amago2(4097), torch.float32)):
        for heads, rows in ((None, (5,)), (2, (3, 2)), (3, ()), (None, ())):
            inputs = leaves(layer_example(heads, rows, 6, bins.count, dtype))
            target = 50 * normal(*inputs[0].shape[:-1], seed=4, dtype=dtype)
            loss, value = linear_two_hot_cross_entropy(*inputs, target, bins, return_readout=True)
            expected, read = by_formulas(leaves(inputs, torch.float64), target, bins, 0.0, None, None, "mean")
            assert loss.dtype == value.dtype == dtype
            assert_accurate(loss, expected.detach(), floor=bins.count + 64)
            assert_accurate(value, read, floor=1024)
            assert_accurate(linear_bin_expectation(*inputs, bins), read, floor=1024)


@st.composite
def problems(draw):
    heads = draw(st.sampled_from([None, 1, 2, 3]))
    rows = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    whole = rows if heads is None else (heads, *rows)

    def shared():
        return tuple(1 if draw(st.booleans()) else size for size in whole[draw(st.integers(0, len(whole))) :])

    bins = ValueBins(
        -50.0, draw(st.floats(1.0, 1e4)), draw(st.integers(2, 12)), draw(st.sampled_from(["symlog", "linear"]))
    )
    sigma = draw(st.sampled_from([0.0, 0.75]))
    reduction = draw(st.sampled_from(["none", "mean", "sum"]))
    flags = draw(st.lists(st.booleans(), min_size=4, max_size=4))
    return heads, rows, (shared(), shared(), shared()), bins, sigma, reduction, flags


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problems())
def test_any_shape(problem) -> None:
    heads, rows, (of_target, of_weight, of_mask), bins, sigma, reduction, (bias, weighted, masked, learns) = problem
    inputs = layer_example(heads, rows, 5, bins.count, bias=bias)
    target = 100 * normal(*of_target, seed=4)
    row_weight = normal(*of_weight, seed=5).requires_grad_(learns) if weighted else None
    mask = normal(*of_mask, seed=6) < 0.5 if masked else None

    def run(function, dtype=None):
        tensors = leaves(inputs, dtype)
        loss, value = function(tensors)
        found = gradients(loss, tensors)
        if weighted and learns:
            again, _ = function(tensors)
            found["row_weight"] = truth.gradient(again, row_weight)
        return loss.detach(), value, *found.values()

    options = {"row_weight": row_weight, "mask": mask, "reduction": reduction, "return_readout": True}
    actual = run(lambda t: linear_cross_entropy(*t, target, bins, sigma, **options))
    exact = run(lambda t: by_formulas(t, target, bins, sigma, row_weight, mask, reduction), torch.float64)
    assert len(actual) == len(exact)
    for found, true in zip(actual, exact, strict=True):
        assert_accurate(found, true.double(), floor=256)


# Pieces


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 511, 512, 1025])
def test_tiles_change_nothing(rows, monkeypatch) -> None:
    """Targets that the heads share, or that start over in the midst of a tile; masks; all in tiles and in one."""
    bins = ValueBins.amago2(16)
    inputs = layer_example(3, (rows,), 8, 16)
    for of_target, masked in itertools.product(((rows,), (3, rows), (3, 1), (1,)), (False, True)):
        target = 10 * normal(*of_target, seed=4)
        mask = normal(*of_target, seed=5) < 0.5 if masked else None
        exact = leaves(inputs, torch.float64)
        loss, value = by_formulas(exact, target, bins, 0.0, None, mask, "none")
        total = loss.sum()
        expected = [loss.detach(), value, total.detach(), *gradients(total, exact).values()]
        expected.append(truth.readout(layer(*exact).detach(), bins))
        of = sensitivities(inputs, target, bins, mask=mask)
        bounds = [of.loss, of.value, of.loss.sum(), *of.of_loss.values(), of.value]
        for elements in (1, 1 << 24):
            monkeypatch.setattr(op, "_TILE_ELEMENTS", elements)
            assert len(list(op.tiles(inputs[0], 16))) == 3 * (-(-rows // 256) if elements == 1 else 1)
            tensors = leaves(inputs)
            loss, value = linear_two_hot_cross_entropy(
                *tensors, target, bins, mask=mask, reduction="none", return_readout=True
            )
            total = linear_two_hot_cross_entropy(*tensors, target, bins, mask=mask, reduction="sum")
            found = [loss.detach(), value, total.detach(), *gradients(total, tensors).values()]
            found.append(linear_bin_expectation(*inputs, bins))
            for a, b, sensitivity in zip(found, expected, bounds, strict=True):
                assert_accurate(a, b, sensitivity=sensitivity)


@pytest.mark.parametrize(("rows", "bins"), [(0, 8), (1, 8), (600, 8), (257, 4096), (5000, 128), (100_000, 2)])
def test_tiles_cover_each_head_once(rows, bins) -> None:
    max_rows = max(256, op._TILE_ELEMENTS // bins)
    for head in range(3):
        own = [tile for of_head, tile in op.tiles(torch.empty(3, rows, 1), bins) if of_head == head]
        assert [row for tile in own for row in range(tile.start, tile.stop)] == list(range(rows))
        assert all(0 < tile.stop - tile.start <= max_rows for tile in own)
        assert len(own) == -(-rows // max_rows)
