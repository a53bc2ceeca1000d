"""The last layer fused with its loss: rows that do not count, shapes, layouts, dtypes, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.func import grad

import two_hot_truth as truth
from compare import OF_TWO, assert_accurate
from layer_examples import (
    BINS,
    INFINITY,
    NAMES,
    NAN,
    by_formulas,
    gradients,
    layer,
    layer_example,
    leaves,
    sensitivities,
)
from two_hot_truth import normal
from twohot.losses import (
    ValueBins,
    bin_expectation,
    hl_gauss_cross_entropy,
    linear_bin_expectation,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
    two_hot_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Rows that do not count


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_masked_rows_contribute_exactly_nothing_even_nan(reduction, dtype, small_tiles) -> None:
    bins = ValueBins.amago2(9)
    for heads, of_target in ((None, (600,)), (2, (600,)), (2, (2, 600))):
        inputs = layer_example(heads, (600,), 6, 9, dtype)
        target = 10 * normal(*of_target, seed=4)
        row_weight = normal(*inputs[0].shape[:-1], seed=5).abs()
        mask = normal(*of_target, seed=6) < 0.3
        counts = mask.expand(inputs[0].shape[:-1])

        def results(hidden, target, row_weight):
            tensors = leaves((hidden, *inputs[1:]))  # noqa: B023
            loss, value = linear_two_hot_cross_entropy(
                *tensors,
                target,
                bins,
                row_weight=row_weight,
                mask=mask,  # noqa: B023
                reduction=reduction,
                return_readout=True,
            )
            return loss.detach(), value, *gradients(loss, tensors).values()

        clean = results(inputs[0], target, row_weight)
        spoilt = (
            torch.where(counts.unsqueeze(-1), inputs[0], torch.tensor(NAN, dtype=dtype)),
            torch.where(mask, target, NAN),
            torch.where(counts, row_weight, NAN),
        )
        poisoned = results(*spoilt)
        for a, b in zip(clean, poisoned, strict=True):
            assert torch.equal(a, b)
        assert poisoned[1][~counts].eq(0).all()
        assert poisoned[2][~counts].eq(0).all()
        assert poisoned[2][counts].ne(0).any(-1).all()


def test_nan_in_masked_hidden_states_under_transforms() -> None:
    hidden, weight, bias = layer_example(2, (6,), 4, 16)
    mask = torch.arange(6) % 2 == 0
    spoilt = hidden.masked_fill(~mask.unsqueeze(-1), NAN)

    def loss(weight: Tensor, hidden: Tensor) -> Tensor:
        return linear_two_hot_cross_entropy(hidden, weight, bias, torch.zeros(6), BINS, mask=mask)

    assert_accurate(grad(loss)(weight, spoilt), grad(loss)(weight, hidden).double())


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nothing_but_masked_rows_is_zero(reduction, implementation) -> None:
    bins = ValueBins.amago2(9)
    inputs = layer_example(2, (5,), 4, 9)
    tensors = leaves(inputs)
    target = torch.full((5,), NAN)
    loss, value = linear_two_hot_cross_entropy(
        *tensors, target, bins, mask=torch.zeros(5, dtype=torch.bool), reduction=reduction, return_readout=True
    )
    assert loss.eq(0).all()
    assert value.eq(0).all()
    assert all(x.eq(0).all() for x in gradients(loss, tensors).values())


def test_a_nan_spoils_its_own_row_and_the_sums(implementation) -> None:
    bins = ValueBins.amago2(9)
    hidden, weight, bias = layer_example(2, (5,), 4, 9)
    target = torch.tensor([0.0, NAN, 1.0, INFINITY, -INFINITY])
    tensors = leaves((hidden, weight, bias))
    loss, value = linear_two_hot_cross_entropy(*tensors, target, bins, reduction="none", return_readout=True)
    assert loss.isnan().tolist() == [[False, True, False, False, False]] * 2
    assert value.isfinite().all()
    found = gradients(loss, tensors)
    assert found["hidden"].isnan().all(-1).tolist() == loss.isnan().tolist()
    assert found["hidden"].isnan().any(-1).tolist() == loss.isnan().tolist()
    assert found["weight"].isnan().all()
    loss = linear_two_hot_cross_entropy(*tensors, target, bins)
    assert loss.isnan()


# Shapes, layouts, dtypes


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 2)])
def test_no_rows_at_all(shape, reduction, implementation) -> None:
    bins = ValueBins.amago2(8)
    for heads in (None, 2):
        tensors = leaves(layer_example(heads, shape, 4, 8))
        rows = tensors[0].shape[:-1]
        loss, value = linear_two_hot_cross_entropy(
            *tensors, torch.zeros(shape), bins, reduction=reduction, return_readout=True
        )
        assert loss.shape == (rows if reduction == "none" else ())
        assert value.shape == linear_bin_expectation(*(x.detach() for x in tensors), bins).shape == rows
        assert loss.sum().item() == 0
        for name, x in gradients(loss, tensors).items():
            assert x.shape == tensors[NAMES.index(name)].shape
            assert x.eq(0).all()


def test_layouts(implementation) -> None:
    bins = ValueBins.amago2(8)
    hidden = normal(6, 5, 4, seed=1).permute(2, 1, 0)  # [4, 5, 6]
    weights = {
        "transposed": normal(4, 6, 8, seed=2).transpose(1, 2),
        "strided": normal(4, 16, 12, seed=2)[:, ::2, ::2],
        "expanded": normal(1, 8, 6, seed=2).expand(4, 8, 6),
    }
    target, bias = normal(5, 4, seed=3).T, normal(8, 4, seed=4).T
    mask, row_weight = (normal(5, 4, seed=5) < 0.5).T, normal(5, seed=6).expand(4, 5)
    for weight in weights.values():
        views = [x.detach().requires_grad_() for x in (hidden, weight, bias)]
        copies = [x.detach().contiguous().clone().requires_grad_() for x in (hidden, weight, bias)]
        for m, w in ((None, None), (mask, row_weight)):
            exact = leaves(copies, torch.float64)
            loss, value = by_formulas(exact, target, bins, 0.0, w, m, "mean")
            count = 20 if m is None else m.sum()
            expected = [loss.detach(), value, truth.readout(layer(*exact).detach(), bins)]
            expected += gradients(loss, exact).values()
            of = sensitivities(copies, target, bins, row_weight=w, mask=m)
            bounds = [of.loss.sum() / count, of.value, of.value, *(x / count for x in of.of_loss.values())]
            for tensors in (views, copies):
                loss, value = linear_two_hot_cross_entropy(
                    *tensors, target, bins, mask=m, row_weight=w, return_readout=True
                )
                read = linear_bin_expectation(*(x.detach() for x in tensors), bins)
                found = [loss.detach(), value, read, *gradients(loss, tensors).values()]
                for a, b, sensitivity in zip(found, expected, bounds, strict=True):
                    assert_accurate(a, b, sensitivity=sensitivity)


@pytest.mark.parametrize("asked", [flags for flags in itertools.product((False, True), repeat=3) if any(flags)])
def test_only_what_asks_for_a_gradient_gets_one(asked, implementation) -> None:
    bins = ValueBins.amago2(8)
    inputs = layer_example(2, (5,), 4, 8)
    target, row_weight = normal(5, seed=4), normal(5, seed=5)
    full = leaves(inputs)
    for options in ({}, {"reduction": "none"}, {"row_weight": row_weight}, {"mask": torch.arange(5) < 3}):
        tensors = [x.detach().clone().requires_grad_(flag) for x, flag in zip(inputs, asked, strict=True)]
        loss = linear_two_hot_cross_entropy(*tensors, target, bins, **options)
        loss.sum().backward()
        expected = gradients(linear_two_hot_cross_entropy(*full, target, bins, **options), full)
        for name, x, flag in zip(NAMES, tensors, asked, strict=True):
            if flag:
                assert_accurate(x.grad, expected[name].double())
            else:
                assert x.grad is None
    with torch.no_grad():
        assert not linear_two_hot_cross_entropy(*full, target, bins).requires_grad
        assert not linear_bin_expectation(*full, bins).requires_grad
    with torch.inference_mode():
        linear_two_hot_cross_entropy(*inputs, target, bins)
        linear_bin_expectation(*inputs, bins)


def test_a_row_weight_learns_where_it_asks_to(implementation) -> None:
    bins = ValueBins.amago2(8)
    inputs, target, mask = layer_example(2, (5,), 4, 8), normal(5, seed=4), torch.arange(5) != 2
    rows = by_formulas(tuple(x.double() for x in inputs), target, bins, 0.0, None, mask, "none")[0]
    for reduction, shape in itertools.product(("none", "sum", "mean"), ((), (5,), (2, 1), (2, 5))):
        row_weight = normal(*shape, seed=5).requires_grad_()
        loss = linear_two_hot_cross_entropy(
            *inputs, target, bins, row_weight=row_weight, mask=mask, reduction=reduction
        )
        exact = rows.sum_to_size(shape) if shape else rows.sum()
        assert_accurate(truth.gradient(loss, row_weight), exact / (8 if reduction == "mean" else 1), floor=16)


def test_under_autocast_the_products_run_in_its_dtype(implementation) -> None:
    bins = ValueBins(-2.0, 2.0, 16, "linear")
    inputs, target = layer_example(2, (40,), 8, 16), normal(40, seed=4)
    half = tuple(x.bfloat16() for x in inputs)
    for options in ({}, {"reduction": "none"}, {"mask": torch.arange(40) < 30}):
        expected = linear_two_hot_cross_entropy(*half, target, bins, **options)
        tensors = leaves(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            loss = linear_two_hot_cross_entropy(*tensors, target, bins, **options)
            value = linear_bin_expectation(*inputs, bins)
            learnt = linear_bin_expectation(*tensors, bins)
        assert loss.dtype == value.dtype == learnt.dtype == torch.float32
        assert_accurate(loss, expected.double(), floor=16)
        assert_accurate(value, linear_bin_expectation(*half, bins).double(), floor=16)
        sensitivity = sensitivities(half, target, bins).value
        assert_accurate(learnt, value.double(), floor=OF_TWO, sensitivity=sensitivity)
        assert all(x.dtype == torch.float32 for x in gradients(loss, tensors).values())
        other = leaves(half)
        found = gradients(linear_two_hot_cross_entropy(*other, target, bins, **options), other)
        for name, x in gradients_under_autocast(inputs, target, bins, options).items():
            assert_accurate(x.bfloat16(), found[name].double())


def test_autocast_lets_float64_alone() -> None:
    inputs, target = leaves(layer_example(2, (5,), 8, 16, torch.float64)), normal(5, seed=4)
    exact, values = by_formulas(inputs, target, BINS, 0.0, None, None, "mean")
    with torch.autocast("cpu", torch.bfloat16):
        loss, value = linear_two_hot_cross_entropy(*inputs, target, BINS, return_readout=True)
        read = linear_bin_expectation(*inputs, BINS)
    assert loss.dtype == value.dtype == read.dtype == torch.float64
    of = sensitivities(inputs, target, BINS)
    assert_accurate(loss, exact.detach(), sensitivity=of.loss.mean())
    assert_accurate(value, values, sensitivity=of.value)
    assert_accurate(read, values, sensitivity=of.value)


def gradients_under_autocast(inputs, target, bins, options) -> dict[str, Tensor]:
    tensors = leaves(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_two_hot_cross_entropy(*tensors, target, bins, **options)
    return gradients(loss, tensors)


# What is the same, and what is refused


def test_a_layer_and_its_loss_are_the_two_of_them(implementation) -> None:
    inputs, target = layer_example(2, (3, 5), 4, 16), normal(3, 5, seed=4)
    logits = layer(*inputs)
    mask, weight = normal(3, 1, seed=5) < 1, normal(5, seed=6)
    for sigma, linear, plain in (
        (0.0, linear_two_hot_cross_entropy, two_hot_cross_entropy),
        (0.75, linear_hl_gauss_cross_entropy, hl_gauss_cross_entropy),
    ):
        of = sensitivities(inputs, target, BINS, sigma, weight, mask)
        count = 2 * 5 * mask.sum()
        for reduction, sensitivity in (
            ("none", of.loss),
            ("mean", of.loss.sum() / count),
            ("sum", of.loss.sum()),
        ):
            options = {"mask": mask, "reduction": reduction}
            loss = linear(*inputs, target, BINS, row_weight=weight, **options)
            expected = plain(logits, target, BINS, weight=weight, **options).double()
            assert_accurate(loss, expected, floor=OF_TWO, sensitivity=sensitivity)
    read = linear_bin_expectation(*inputs, BINS)
    assert_accurate(read, bin_expectation(logits, BINS).double(), floor=OF_TWO, sensitivity=of.value)


H, W, B, Y = torch.zeros(2, 5, 4), torch.zeros(2, 16, 4), torch.zeros(2, 16), torch.zeros(5)
OF_LAYER = [
    ({"weight": torch.zeros(4)}, r"expected hidden \[..., E\] with weight \[N, E\], .*, got \(2, 5, 4\) and \(4,\)"),
    ({"hidden": torch.zeros(4)}, r"expected hidden .* got \(4,\) and \(2, 16, 4\)"),
    ({"hidden": torch.zeros(()), "weight": torch.zeros(16, 4)}, r"expected hidden .* got \(\) and \(16, 4\)"),
    (
        {"hidden": torch.zeros(3, 5, 4)},
        r"expected a weight \(3, 16, 4\) for hidden \(3, 5, 4\) and 16 bins, got \(2, 16",
    ),
    ({"weight": torch.zeros(2, 15, 4)}, r"expected a weight \(2, 16, 4\) .* and 16 bins, got \(2, 15, 4\)"),
    ({"weight": torch.zeros(2, 16, 3)}, r"expected a weight \(2, 16, 4\) .* got \(2, 16, 3\)"),
    ({"bias": torch.zeros(16)}, r"expected a bias \(2, 16\), got \(16,\)"),
    ({"weight": W.double()}, "expected a weight of torch.float32, as hidden is, got torch.float64"),
    ({"bias": B.bfloat16()}, "expected a bias of torch.float32, as hidden is, got torch.bfloat16"),
    ({"hidden": H.long(), "weight": W.long(), "bias": None}, "expected a floating point hidden, got torch.int64"),
]
OF_ROWS = [
    ({"target": Y.int()}, "expected a floating point target, got torch.int32"),
    ({"target": torch.zeros(4)}, r"expected a target whose shape broadcasts to the rows \(2, 5\), got \(4,\)"),
    ({"target": torch.zeros(3, 2, 5)}, r"expected a target whose shape broadcasts .*, got \(3, 2, 5\)"),
    ({"row_weight": torch.zeros(2)}, r"expected a row_weight whose shape broadcasts .*, got \(2,\)"),
    ({"mask": torch.ones(2, dtype=torch.bool)}, r"expected a mask whose shape broadcasts .*, got \(2,\)"),
    ({"mask": torch.ones(5)}, "expected a bool mask, got torch.float32"),
    ({"reduction": "average"}, "expected reduction 'none', 'mean' or 'sum', got 'average'"),
]


@pytest.mark.parametrize(("arguments", "message"), OF_LAYER + OF_ROWS)
def test_bad_arguments(arguments, message, implementation) -> None:
    given = {"hidden": H, "weight": W, "bias": B, "target": Y, "bins": BINS, **arguments}
    for face in (linear_two_hot_cross_entropy, linear_hl_gauss_cross_entropy):
        with pytest.raises(ValueError, match=f"{face.__name__}: {message}"):
            face(**given)
    if message in [message for _, message in OF_LAYER]:
        del given["target"]
        with pytest.raises(ValueError, match=f"linear_bin_expectation: {message}"):
            linear_bin_expectation(**given)


def test_bad_sigma() -> None:
    for sigma in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="linear_hl_gauss_cross_entropy: expected sigma > 0, in bin widths"):
            linear_hl_gauss_cross_entropy(H, W, B, Y, BINS, sigma)
