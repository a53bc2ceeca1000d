"""What losses and readouts are given: devices, layouts, types; each is right or a sentence."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from twohot.kernels.linear_two_hot import op as linear_op
from twohot.kernels.two_hot import op
from twohot.losses import (
    ValueBins,
    bin_expectation,
    hl_gauss,
    hl_gauss_cross_entropy,
    linear_bin_expectation,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
    two_hot,
    two_hot_cross_entropy,
)

BINS = ValueBins.amago2(32)
ROWS = {
    "logits": torch.zeros(5, 32),
    "target": torch.zeros(5),
    "weight": torch.ones(5),
    "mask": torch.ones(5, dtype=torch.bool),
}
LINEAR = {
    "hidden": torch.zeros(5, 8),
    "weight": torch.zeros(32, 8),
    "bias": torch.zeros(32),
    "target": torch.zeros(5),
    "row_weight": torch.ones(5),
    "mask": torch.ones(5, dtype=torch.bool),
}
READ = {name: LINEAR[name] for name in ("hidden", "weight", "bias")}
CASES = [
    (two_hot_cross_entropy, ROWS),
    (hl_gauss_cross_entropy, ROWS),
    (linear_two_hot_cross_entropy, LINEAR),
    (linear_hl_gauss_cross_entropy, LINEAR),
    (linear_bin_expectation, READ),
]
every_case = pytest.mark.parametrize(("function", "given"), CASES, ids=lambda case: getattr(case, "__name__", ""))
reductions = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
meta = torch.device("meta")


def options(function, reduction):
    return {} if function is linear_bin_expectation else {"reduction": reduction}


@every_case
@reductions
def test_each_argument_on_another_device_is_named(function, given, reduction, implementation):
    leader = next(iter(given))
    for name in given:
        wrong = given | {name: given[name].to(meta)}
        with pytest.raises(
            ValueError, match=rf"{function.__name__}: expected .* on (cpu|meta), as {leader} is"
        ) as error:
            function(**wrong, bins=BINS, **options(function, reduction))
        assert "cpu" in str(error.value)
        assert "meta" in str(error.value)
        assert name == leader or f"got {name} on meta" in str(error.value)


@every_case
@reductions
def test_devices_are_seen_in_traces_and_transforms_too(function, given, reduction):
    name = list(given)[1]
    wrong = {**given, name: given[name].to(meta)}

    def call(*tensors):
        return function(**dict(zip(wrong, tensors, strict=True)), bins=BINS, **options(function, reduction))

    with pytest.raises(Exception, match=f"got {name} on meta"):
        torch.compile(call, backend="eager")(*wrong.values())
    with pytest.raises(ValueError, match=f"got {name} on meta"):
        torch.func.vmap(call, in_dims=(0,) + (None,) * (len(wrong) - 1))(
            wrong[next(iter(wrong))].expand(2, -1, -1), *list(wrong.values())[1:]
        )
    with FakeTensorMode() as mode, pytest.raises(ValueError, match=f"got {name} on meta"):
        call(*(mode.from_tensor(x) for x in wrong.values()))


@every_case
@reductions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_without_data_have_shapes_and_dtypes(function, given, reduction, dtype):
    def typed(name, x):
        return x.to(dtype) if name in ("logits", "hidden", "bias") or x.dim() == 2 else x

    moved = {name: typed(name, x).to(meta) for name, x in given.items()}
    leader = moved[next(iter(moved))].requires_grad_()
    readout = {} if function is linear_bin_expectation else {"return_readout": True}
    found = function(**moved, bins=BINS, **options(function, reduction), **readout)
    loss, read = found if readout else (found, found)
    wide = torch.promote_types(dtype, torch.float32)
    assert loss.shape == ((5,) if reduction == "none" or not readout else ())
    assert read.shape == (5,)
    assert loss.dtype == read.dtype == wide
    assert loss.device.type == read.device.type == "meta"
    loss.sum().backward()
    assert leader.grad.shape == leader.shape
    assert leader.grad.is_meta


@every_case
@pytest.mark.parametrize(
    "odd", [None, 3, 0.5, "x", [0.0] * 5, np.zeros(5, np.float32)], ids=lambda odd: type(odd).__name__
)
def test_what_is_no_tensor_is_named(function, given, odd):
    for name in given:
        if odd is None and name in ("weight", "bias", "row_weight", "mask"):
            continue
        with pytest.raises(
            TypeError, match=rf"{function.__name__}: expected a tensor as {name}, got {type(odd).__name__}"
        ):
            function(**given | {name: odd}, bins=BINS)
    with pytest.raises(TypeError, match=r"expected bins as a ValueBins, such as ValueBins.amago2\(\)"):
        function(**given, bins=odd)


@every_case
def test_sparse_and_complex_tensors_are_refused(function, given):
    for name in given:
        with pytest.raises(ValueError, match=f"expected a dense tensor as {name}, got torch.sparse_coo"):
            function(**given | {name: given[name].to_sparse()}, bins=BINS)
        with pytest.raises(ValueError, match=r"floating point|real numbers|bool mask"):
            function(**given | {name: given[name].to(torch.complex64)}, bins=BINS)


@pytest.mark.parametrize("label", [two_hot, hl_gauss])
def test_labels_say_what_they_take(label):
    with pytest.raises(TypeError, match=f"{label.__name__}: expected a tensor as target, got float"):
        label(0.5, BINS)
    with pytest.raises(TypeError, match=f"{label.__name__}: expected bins as a ValueBins"):
        label(torch.zeros(2), 32)
    with pytest.raises(TypeError, match="bin_expectation: expected bins as a ValueBins"):
        bin_expectation(torch.zeros(2, 32), 32)


@pytest.mark.parametrize(
    "sigma", [0.0, -1.0, float("nan"), float("inf"), 1e-320, 1e300, True, "x", None, torch.tensor(1.0)]
)
def test_sigmas_that_float32_cannot_tell_are_refused(sigma):
    for call in (
        lambda: hl_gauss_cross_entropy(ROWS["logits"], ROWS["target"], BINS, sigma),
        lambda: hl_gauss(ROWS["target"], BINS, sigma),
    ):
        with pytest.raises(ValueError, match="expected sigma > 0, in bin widths"):
            call()


def test_views_of_negated_memory_are_read_as_they_are():
    logits = torch.complex(torch.zeros(5, 32), torch.randn(5, 32)).conj().imag
    target = torch.complex(torch.zeros(5), torch.randn(5)).conj().imag
    assert logits.is_neg()
    expected = two_hot_cross_entropy(logits.clone().resolve_neg(), target.clone().resolve_neg(), BINS)
    assert torch.equal(two_hot_cross_entropy(logits, target, BINS), expected)
    one = torch._neg_view(torch.randn(5, 32))  # contiguous, so that its memory would be read
    with pytest.raises(ValueError, match=r"logits: expected numbers as memory has them.*resolve_neg"):
        bin_expectation(one, BINS)


ROW_ARGUMENTS = {"logits": torch.zeros(4, 8), "target": torch.zeros(2), "mask": torch.ones(2, dtype=torch.bool)}
SUPPORT = (-1.0, 1.0, "linear", "transformed")


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("logits", torch.zeros(4, 8, dtype=torch.float64)),
        ("logits", torch.zeros(8, 4).T),
        ("logits", torch.zeros(32)),
        ("target", torch.zeros(0)),
        ("target", torch.zeros(2, dtype=torch.float64)),
        ("target", torch.zeros(4)[::2]),
        ("target", torch.zeros(2, device="meta")),
        ("mask", torch.ones(1, dtype=torch.bool)),
        ("mask", torch.ones(2)),
        ("mask", torch.ones(2, device="meta", dtype=torch.bool)),
    ],
)
def test_operations_take_nothing_by_its_address_alone(name, odd):
    given = ROW_ARGUMENTS | {name: odd}
    with pytest.raises(ValueError, match=rf"{name}: expected .*, got a "):
        op.cross_entropy_rows(*given.values(), *SUPPORT, "two_hot", 0.0, True)
    with pytest.raises(ValueError, match=rf"{name}: expected .*, got a "):
        op.cross_entropy(*given.values(), None, True, *SUPPORT, "two_hot", 0.0, True, True)


def test_operations_know_the_labels_there_are():
    with pytest.raises(ValueError, match="labels: expected one of two_hot, two_hot_raw, hl_gauss, got 'one_hot'"):
        op.cross_entropy_rows(*ROW_ARGUMENTS.values(), *SUPPORT, "one_hot", 0.0, True)


def without_memory(kind):
    if kind == "zeros":
        return torch._efficientzerotensor(5)
    with FakeTensorMode():
        return torch.zeros(5)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("kind", ["zeros", "traced"])
@pytest.mark.parametrize("name", ["target", "weight"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_tensors_without_memory_are_not_taken_for_nothing(kind, name, reduction):
    with pytest.raises(ValueError, match=f"{name}: expected a tensor with data"):
        two_hot_cross_entropy(bins=BINS, reduction=reduction, **ROWS | {"mask": None, name: without_memory(kind)})


@pytest.mark.parametrize("name", ["logits", "target"])
def test_tensors_whose_memory_was_given_back_are_refused(name):
    freed = ROWS[name].clone()
    freed.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=f"{name}: expected a tensor with data"):
        two_hot_cross_entropy(bins=BINS, **ROWS | {"mask": None, "weight": None, name: freed})


def test_a_row_weight_of_other_rows_is_refused():
    layer = torch.zeros(1, 4, 3), torch.zeros(1, 8, 3), None
    with pytest.raises(ValueError, match=r"weight: expected a contiguous tensor \[4\]"):
        linear_op.linear_cross_entropy(
            *layer, torch.zeros(4), None, torch.ones(3), True, *SUPPORT, "two_hot", 0.0, False, [True] * 3
        )
