"""The losses and the readout of a last linear layer, against the layer and the loss by their formulas."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import two_hot_truth as truth
from compare import assert_accurate
from two_hot_truth import normal
from twohot.kernels.linear_two_hot import op
from twohot.kernels.two_hot import op as rows_op
from twohot.losses import (
    ValueBins,
    bin_expectation,
    hl_gauss_cross_entropy,
    linear_bin_expectation,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
    two_hot_cross_entropy,
)

NAN, INFINITY = math.nan, math.inf
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
NAMES = ("hidden", "weight", "bias")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch) -> str:
    """The name of the implementation that is forced."""
    monkeypatch.setenv("TWOHOT_BACKEND", request.param)
    return request.param


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """Pieces of 256 rows, the fewest that there are."""
    monkeypatch.setattr(op, "_PIECE_ELEMENTS", 1)


def layer_example(
    heads: int | None,
    rows: tuple[int, ...],
    width: int,
    bins: int,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden, weight, bias of a layer whose logits are of order 3."""
    of_heads = () if heads is None else (heads,)
    hidden = normal(*of_heads, *rows, width, seed=1, dtype=dtype)
    weight = (normal(*of_heads, bins, width, seed=2) * (3 / width**0.5)).to(dtype)
    return hidden, weight, normal(*of_heads, bins, seed=3, dtype=dtype) if bias else None


def in_eps_of_float32(dtype: torch.dtype, count: float) -> float:
    """`count` eps of the dtype that logits are rounded to, in eps of the float32 in which losses are."""
    return count * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps


def layer(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits, one head after the other."""
    if weight.dim() == 2:
        return nn.functional.linear(hidden, weight, bias)
    biases = [None] * len(weight) if bias is None else bias
    return torch.stack([nn.functional.linear(*head) for head in zip(hidden, weight, biases, strict=True)])


def leaves(tensors: tuple[Tensor | None, ...], dtype: torch.dtype | None = None) -> list[Tensor | None]:
    return [None if x is None else x.detach().to(dtype or x.dtype).clone().requires_grad_() for x in tensors]


def gradients(loss: Tensor, tensors: list[Tensor | None], upstream: Tensor | None = None) -> dict[str, Tensor]:
    present = {name: x for name, x in zip(NAMES, tensors, strict=True) if x is not None}
    return dict(zip(present, truth.gradient(loss, tuple(present.values()), upstream), strict=True))


def linear_cross_entropy(hidden, weight, bias, target, bins, sigma=0.0, **options):
    """The face that has labels of this sigma; 0 is two-hot."""
    if sigma > 0:
        return linear_hl_gauss_cross_entropy(hidden, weight, bias, target, bins, sigma, **options)
    return linear_two_hot_cross_entropy(hidden, weight, bias, target, bins, **options)


def by_formulas(inputs, target, bins, sigma, row_weight, mask, reduction) -> tuple[Tensor, Tensor]:
    """Loss and readout of a layer in the dtype of its inputs, float32 at least behind the logits."""
    logits = layer(*inputs)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = truth.cross_entropy(logits, truth.labels(target.to(logits.dtype), bins, sigma))
    factor = torch.ones((), dtype=logits.dtype) if row_weight is None else row_weight.to(logits.dtype)
    counts = torch.ones((), dtype=torch.bool) if mask is None else mask
    rows = torch.where(counts, rows * factor, 0)
    value = torch.where(counts, truth.readout(logits, bins), 0).detach()
    if reduction == "none":
        return rows, value
    count = max(int(counts.expand(rows.shape).sum()), 1) if reduction == "mean" else 1
    return rows.sum() / count, value


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
def test_loss_and_every_gradient(heads, rows, bins, bias, reduction, dtype, small_pieces) -> None:
    support = ValueBins.amago2(bins)
    inputs = layer_example(heads, rows, 12, bins, dtype, bias)
    of_rows = inputs[0].shape[:-1]
    row_weight, upstream = normal(*of_rows, seed=4).abs(), normal(*of_rows, seed=5)
    mask = normal(*of_rows, seed=6) < 0.8
    own = 1000 * normal(*of_rows, seed=7)
    shared = own if heads is None else own[0]
    cases = itertools.product((own, shared), (None, row_weight), (None, mask), (0.0, 0.75))
    for target, w, m, sigma in cases:

        def run(tensors, function, dtype=None):
            tensors = leaves(tensors, dtype)
            loss, value = function(tensors)
            if reduction == "none":
                return loss.detach(), value, gradients(loss, tensors, upstream.to(loss.dtype))
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
        for found, true, usual in zip(actual[:2], exact[:2], plain[:2], strict=True):
            assert_accurate(found, true, usual, floor=max(2 * bins, in_eps_of_float32(dtype, 8)))
        assert actual[2].keys() == exact[2].keys()
        for name in exact[2]:
            assert actual[2][name].dtype == dtype
            # Of order 1: sums over many rows are as wrong as their largest, which is rounded like any other.
            size = exact[2][name].abs().amax().clamp(min=1)
            found, true, usual = (x[name].double() / size for x in (actual[2], exact[2], plain[2]))
            floor = bins if dtype == torch.float32 else 8
            assert_accurate(found.to(dtype), true, usual.to(dtype), floor=floor)


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
        # Of large values of both signs little may remain.
        share = (
            layer(*(x.double() for x in inputs)).softmax(-1)
            @ truth.bin_values(bins).abs()
            / exact[1].abs().clamp(min=1)
        )
        floors = [2 * bins.count, 8 + 16 * share.amax().item(), *[4 * bins.count] * 3]
        for found, true, usual, floor in zip(actual, exact, plain, floors, strict=True):
            assert_accurate(found, true, usual, floor=floor)
        assert_accurate(linear_bin_expectation(*inputs, bins), exact[1], plain[1], floor=floors[1])


@every_dtype
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("heads", "rows"), [(None, (600,)), (None, ()), (3, (2, 7)), (2, ())])
def test_expectation_of_a_layer(heads, rows, bias, dtype, small_pieces, implementation) -> None:
    for bins in (ValueBins.amago2(33), ValueBins(-3.0, 8.0, 33, "linear", "raw")):
        inputs = layer_example(heads, rows, 12, 33, dtype, bias)
        exact = truth.readout(layer(*(None if x is None else x.double() for x in inputs)), bins)
        plain = truth.readout(layer(*inputs).float(), bins)
        value = linear_bin_expectation(*inputs, bins)
        assert value.dtype == torch.float32
        floor = max(32, in_eps_of_float32(dtype, 8))
        assert_accurate(value, exact, plain, floor=floor)
        tensors = leaves(inputs)
        again = linear_bin_expectation(*tensors, bins)
        assert again.requires_grad
        assert_accurate(again, exact, plain, floor=floor)
        upstream = normal(*exact.shape, seed=9)
        found = gradients(again, tensors, upstream)
        true, usual = leaves(inputs, torch.float64), leaves(inputs)
        true = gradients(truth.readout(layer(*true), bins), true, upstream.double())
        usual = gradients(truth.readout(layer(*usual).float(), bins), usual, upstream)
        for name in found:
            scale = true[name].abs().amax().clamp(min=1)  # readouts reach 1e5
            assert_accurate(found[name] / scale.to(dtype), true[name] / scale, usual[name] / scale.to(dtype), floor=16)


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
def test_pieces_change_nothing(rows, monkeypatch) -> None:
    """Targets that the heads share, or that begin anew in the midst of a piece; masks; all in pieces and in one."""
    bins = ValueBins.amago2(16)
    inputs = layer_example(3, (rows,), 8, 16)
    for of_target, masked in itertools.product(((rows,), (3, rows), (3, 1), (1,)), (False, True)):
        target = 10 * normal(*of_target, seed=4)
        mask = normal(*of_target, seed=5) < 0.5 if masked else None
        results = []
        for elements in (1, 1 << 24):
            monkeypatch.setattr(op, "_PIECE_ELEMENTS", elements)
            tensors = leaves(inputs)
            loss, value = linear_two_hot_cross_entropy(
                *tensors, target, bins, mask=mask, reduction="none", return_readout=True
            )
            total = linear_two_hot_cross_entropy(*tensors, target, bins, mask=mask, reduction="sum")
            results.append([loss.detach(), value, total.detach(), *gradients(total, tensors).values()])
            results[-1].append(linear_bin_expectation(*inputs, bins))
        assert len(list(op.pieces(inputs[0], 16))) == 3
        for a, b in zip(*results, strict=True):
            assert_accurate(a, b.double(), floor=64)


@pytest.mark.parametrize(("rows", "bins"), [(0, 8), (1, 8), (600, 8), (257, 4096), (5000, 128), (100_000, 2)])
def test_pieces_cover_each_head_once(rows, bins) -> None:
    most = max(256, op._PIECE_ELEMENTS // bins)
    for head in range(3):
        own = [piece for of_head, piece in op.pieces(torch.empty(3, rows, 1), bins) if of_head == head]
        assert [row for piece in own for row in range(piece.start, piece.stop)] == list(range(rows))
        assert all(0 < piece.stop - piece.start <= most for piece in own)
        assert len(own) == -(-rows // most)


# Rows that do not count


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_masked_rows_contribute_exactly_nothing_even_nan(reduction, dtype, small_pieces) -> None:
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
            results = []
            for tensors in (views, copies):
                loss, value = linear_two_hot_cross_entropy(
                    *tensors, target, bins, mask=m, row_weight=w, return_readout=True
                )
                read = linear_bin_expectation(*(x.detach() for x in tensors), bins)
                results.append([loss.detach(), value, read, *gradients(loss, tensors).values()])
            for a, b in zip(*results, strict=True):
                assert_accurate(a, b.double(), floor=16)


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
        assert_accurate(learnt, value.double(), floor=in_eps_of_float32(torch.bfloat16, 8))
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
    assert_accurate(loss, exact.detach(), floor=64)
    assert_accurate(value, values, floor=64)
    assert_accurate(read, values, floor=64)


def gradients_under_autocast(inputs, target, bins, options) -> dict[str, Tensor]:
    tensors = leaves(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_two_hot_cross_entropy(*tensors, target, bins, **options)
    return gradients(loss, tensors)


# Gradients as autograd wants them


FACES = {
    "mean": linear_two_hot_cross_entropy,
    "sum": lambda h, w, b, y, bins: linear_hl_gauss_cross_entropy(h, w, b, y, bins, reduction="sum"),
    "none": lambda h, w, b, y, bins: linear_two_hot_cross_entropy(h, w, b, y, bins, reduction="none").sum(),
    "readout": lambda h, w, b, y, bins: linear_bin_expectation(h, w, b, bins).sum(),
}
every_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
BINS, BINS_64 = ValueBins.amago2(16), ValueBins.amago2(64)
REFUSED = r"can be differentiated once\. .*TWOHOT_BACKEND=reference"


@every_face
def test_one_graph_may_go_backward_again_and_again(face) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    loss = face(*tensors, y, BINS)
    first, second = (torch.autograd.grad(loss, tensors, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert len({x.untyped_storage().data_ptr() for x in (*first, *second, *tensors)}) == 9
    expected = [x.clone() for x in first]
    for count in (1, 2, 3):
        loss.backward(retain_graph=True)
        for x, once in zip(tensors, expected, strict=True):
            assert_accurate(x.grad, (count * once).double())


@every_face
@pytest.mark.parametrize("factor", [2.0, -0.5, 0.0, NAN])
def test_a_loss_may_be_used_with_a_factor(face, factor) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    once = torch.autograd.grad(face(*tensors, y, BINS), tensors)
    scaled = torch.autograd.grad(factor * face(*tensors, y, BINS), tensors)
    for a, b in zip(scaled, once, strict=True):
        assert_accurate(a, factor * b.double(), floor=16)


def test_a_loss_scale_saves_the_gradients_of_float16() -> None:
    rows, scale = 30_000, 2.0**16
    inputs = layer_example(None, (rows,), 8, 64, torch.float16)
    tensors, exact = leaves(inputs), leaves(inputs, torch.float64)
    target = normal(rows, seed=4)
    found = gradients(scale * linear_two_hot_cross_entropy(*tensors, target, BINS_64), tensors)
    expected = gradients(scale * by_formulas(exact, target, BINS_64, 0.0, None, None, "mean")[0], exact)
    for name, x in found.items():
        size = expected[name].abs().amax()
        assert_accurate((x.double() / size).half(), expected[name] / size, floor=16)


@every_face
def test_a_gradient_that_was_changed_in_place_is_never_given_again(face) -> None:
    tensors, y = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=1)
    loss = face(*tensors, y, BINS)
    found = torch.autograd.grad(loss, tensors, retain_graph=True)
    expected = [x.clone() for x in found]
    found[1].zero_()
    try:
        again = torch.autograd.grad(loss, tensors, retain_graph=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
    else:
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


@every_face
@pytest.mark.parametrize("asked", [(0, 1, 2), (0,), (1,), (2,)])
def test_a_second_derivative_is_refused(face, asked) -> None:
    inputs, y = layer_example(2, (5,), 4, 16), normal(5, seed=1)
    tensors = [x.requires_grad_(i in asked) for i, x in enumerate(inputs)]
    leaf = tensors[asked[0]]

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(face(*tensors, y, BINS), leaf, create_graph=True)
        return gradient.square().sum()

    with pytest.raises(RuntimeError, match=REFUSED):
        penalty().backward()
    # It must not fall away in silence beside a loss that has a gradient.
    with pytest.raises(RuntimeError, match=REFUSED):
        (face(*tensors, y, BINS) + penalty()).backward()
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(face(*tensors, y, BINS) + penalty(), leaf)


def test_outputs_do_not_depend_on_what_their_memory_held() -> None:
    hidden, weight, bias = layer_example(2, (3000,), 256, 16)  # the gradient of hidden is in recycled memory
    target, mask = normal(3000, seed=4), normal(3000, seed=5) < 0.5
    results = []
    for fill in (NAN, 0.0):
        found = []
        torch.utils.deterministic.fill_uninitialized_memory = True  # with NaN, what torch itself allocates
        torch.use_deterministic_algorithms(True)
        try:
            for options in ({}, {"mask": mask}, {"mask": mask, "reduction": "none"}):
                rows_op.empty_recycled(hidden.shape, hidden).fill_(fill)
                tensors = leaves((hidden, weight, bias))
                loss, value = linear_two_hot_cross_entropy(*tensors, target, BINS, return_readout=True, **options)
                found += [loss.detach(), value, *(x.clone() for x in gradients(loss, tensors).values())]
        finally:
            torch.use_deterministic_algorithms(False)
        results.append(found)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


# torch.library, torch.compile, torch.func


def test_registered_as_torch_asks() -> None:
    inputs = layer_example(2, (3,), 4, 9)
    y, mask, u = normal(3, seed=4), torch.tensor([True, False, True]), normal(6, seed=5)
    support = (-10.0, 10.0, "symlog", False)

    def check(operation, *arguments) -> None:
        results = torch.library.opcheck(operation, arguments)
        assert set(results.values()) == {"SUCCESS"}

    check(op.linear_cross_entropy, *leaves(inputs), y, mask, u, True, *support, 0.0, True, [True] * 3)
    check(op.linear_cross_entropy, *inputs[:2], None, y, None, None, False, *support, 0.75, False, [False] * 3)
    check(op.linear_cross_entropy_rows, *leaves(inputs), y, mask, *support, 0.0, True)
    check(op.linear_cross_entropy_rows_backward, *inputs, y, mask, u, *support[:3], 0.0, [True, True, False])
    check(op.linear_expectation, *inputs, *support)


def every_loss(h: Tensor, w: Tensor, b: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    mean, value = linear_two_hot_cross_entropy(h, w, b, y, BINS, mask=mask, return_readout=True)
    rows = linear_hl_gauss_cross_entropy(h, w, None, y, BINS, reduction="none")
    return (
        mean,
        value,
        rows,
        linear_bin_expectation(h, w, b, BINS),
        linear_bin_expectation(h.detach(), w.detach(), None, BINS),
    )


def combined(outputs: tuple[Tensor, ...]) -> Tensor:
    mean, _, rows, value, _ = outputs
    return mean + (rows * torch.arange(rows.numel()).view_as(rows)).sum() + 0.5 * value.sum()


def test_compiles_without_a_break() -> None:
    torch.compiler.reset()
    compiled = torch.compile(every_loss, backend="aot_eager", fullgraph=True)
    tensors, y, mask = leaves(layer_example(2, (5,), 4, 16)), normal(5, seed=4), torch.arange(5) != 3
    actual, expected = compiled(*tensors, y, mask), every_loss(*tensors, y, mask)
    for a, b in zip(actual, expected, strict=True):
        assert_accurate(a, b.detach().double(), floor=16)
    found = [torch.autograd.grad(combined(outputs), tensors) for outputs in (actual, expected)]
    for a, b in zip(*found, strict=True):
        assert_accurate(a, b.double(), floor=16)
    torch.compiler.reset()


@pytest.mark.parametrize(
    "mapped", [(1, None, None, 0, None), (None, 0, 0, None, None), (0, 0, 0, 0, 0), (2, 1, 1, None, 0)]
)
def test_vmap_equals_a_loop(mapped) -> None:
    size = 3
    single = (*layer_example(2, (5,), 4, 16), normal(5, seed=4), normal(5, seed=5) < 0.7)
    inputs = [
        x if dim is None else torch.stack([x.roll(i, 0).roll(i, -1) for i in range(size)], dim)
        for x, dim in zip(single, mapped, strict=True)
    ]

    def found(*given):
        return grad(lambda h, w, b: combined(every_loss(h, w, b, *given[3:])), argnums=(0, 1, 2))(*given[:3])

    for function in (every_loss, found):
        actual = vmap(function, in_dims=mapped)(*inputs)
        for i in range(size):
            own = [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, mapped, strict=True)]
            for a, b in zip(actual, function(*own), strict=True):
                assert_accurate(a[i], b.double(), floor=16)


@pytest.mark.parametrize(
    "face",
    [
        pytest.param(FACES["mean"], id="mean"),
        pytest.param(FACES["none"], id="none"),
        pytest.param(
            FACES["readout"], id="readout", marks=pytest.mark.xfail(reason="linear_expectation has no rule for vmap")
        ),
    ],
)
def test_no_operation_is_mapped_over_by_a_slow_loop(face) -> None:
    h, w, b = layer_example(2, (5,), 4, 16)
    torch._C._functorch._set_vmap_fallback_enabled(False)
    try:
        vmap(lambda h: face(h, w, b, torch.zeros(5), BINS))(h.expand(3, 2, 5, 4))
    finally:
        torch._C._functorch._set_vmap_fallback_enabled(True)


@every_face
@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_tracing_reads_no_data(face, mode) -> None:
    def found(h: Tensor, w: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        tensors = [x.detach().requires_grad_() for x in (h, w, b)]
        return torch.autograd.grad(face(*tensors, y, BINS), tensors)

    inputs = (*layer_example(2, (5,), 4, 16), normal(5, seed=4))
    graph = make_fx(found, tracing_mode=mode)(*inputs)
    assert any(str(node.target).startswith("twohot.") for node in graph.graph.nodes)
    other = [x.flip(0) for x in inputs]
    for a, b in zip(graph(*other), found(*other), strict=True):
        assert_accurate(a, b.double(), floor=16)


@every_face
def test_fake_tensors_have_no_data(face) -> None:
    with FakeTensorMode():
        tensors = [torch.empty(shape, requires_grad=True) for shape in ((2, 5, 4), (2, 16, 4), (2, 16))]
        y = torch.empty(5)
        loss = face(*tensors, y, BINS)
        loss.backward()
        (2 * face(*tensors, y, BINS)).backward()
        assert loss.shape == ()
        assert [x.grad.shape for x in tensors] == [x.shape for x in tensors]


# What is the same, and what is refused


def test_a_layer_and_its_loss_are_the_two_of_them(implementation) -> None:
    inputs, target = layer_example(2, (3, 5), 4, 16), normal(3, 5, seed=4)
    logits = layer(*inputs)
    mask, weight = normal(3, 1, seed=5) < 1, normal(5, seed=6)
    for reduction in ("none", "mean", "sum"):
        options = {"mask": mask, "reduction": reduction}
        for linear, plain in (
            (linear_two_hot_cross_entropy, two_hot_cross_entropy),
            (linear_hl_gauss_cross_entropy, hl_gauss_cross_entropy),
        ):
            loss = linear(*inputs, target, BINS, row_weight=weight, **options)
            assert_accurate(loss, plain(logits, target, BINS, weight=weight, **options).double(), floor=16)
    assert_accurate(linear_bin_expectation(*inputs, BINS), bin_expectation(logits, BINS).double(), floor=16)


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
    ({"row_weight": torch.zeros(2)}, r"expected a weight whose shape broadcasts .*, got \(2,\)"),
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
