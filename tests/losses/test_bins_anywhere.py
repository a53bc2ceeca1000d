"""Value bins under other default devices, dtypes and tensor modes, in files and from odd arguments."""

import copy
import inspect
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from twohot.kernels.two_hot import reference
from twohot.losses import BinExpectation, BinsError, ValueBins, bin_expectation, hl_gauss, two_hot
from twohot.losses.bins import TRANSFORMS

MAKERS = {
    "amago2": ValueBins.amago2,
    "tdmpc2": ValueBins.tdmpc2,
    "dreamerv3": ValueBins.dreamerv3,
    "muzero": ValueBins.muzero,
    "c51": ValueBins.c51,
    "edges": lambda: ValueBins.from_edges(-3.0, 7.0, 20, "symlog"),
    "replaced": lambda: ValueBins(-10_000, 60_000, 96, "signed_sqrt", "raw", "raw"),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def of_tensors(bins):
    """f(low), f(high) by the tensors' formulas."""
    forward, _ = reference.TRANSFORMS[bins.transform]
    return tuple(forward(torch.tensor([bins.low, bins.high], dtype=torch.float64)).tolist())


@every_maker
def test_ends_are_those_of_the_formulas_of_tensors(make):
    assert make().transformed_ends == pytest.approx(of_tensors(make()), rel=1e-15)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_numbers_are_those_of_tensors(transform):
    x = torch.cat((torch.logspace(-30, 30, 61, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    x = torch.cat((x, -x))
    for number, tensor in zip(TRANSFORMS[transform], reference.TRANSFORMS[transform], strict=True):
        y = x.clamp(-300, 300) if tensor is reference.symexp else x
        torch.testing.assert_close(torch.tensor([number(z) for z in y.tolist()], dtype=torch.float64), tensor(y))


@every_maker
def test_bins_are_made_under_any_default(make):
    expected, logits = make(), torch.randn(3, make().count)
    values, read, label = expected.values(), bin_expectation(logits, expected), two_hot(torch.ones(2), expected)
    smooth = hl_gauss(torch.ones(2), expected)
    contexts = [torch.device("meta"), FakeTensorMode(), torch.inference_mode()]
    for context in contexts:
        with context:
            bins = make()
            torch.nn.Sequential(torch.nn.Linear(4, bins.count), BinExpectation(bins))
            assert bins == expected
            assert bins.transformed_ends == expected.transformed_ends
    with torch.device("meta"):  # tensors that are given stay where they are
        assert torch.equal(make().values(), values)
        assert torch.equal(bin_expectation(logits, make()), read)
    try:
        torch.set_default_device("meta")
        assert make() == expected
    finally:
        torch.set_default_device(None)
    for dtype in (torch.float64, torch.bfloat16):
        try:
            torch.set_default_dtype(dtype)
            assert make().transformed_ends == expected.transformed_ends
            assert torch.equal(make().values(), values)
            assert torch.equal(bin_expectation(logits, make()), read)
            assert torch.equal(two_hot(torch.ones(2, dtype=torch.float32), make()), label)
            assert torch.equal(hl_gauss(torch.ones(2, dtype=torch.float32), make()), smooth)
        finally:
            torch.set_default_dtype(torch.float32)


@every_maker
def test_bins_go_through_files_and_copies(make):
    bins = make()
    assert bins.transformed_ends  # what is kept beside the fields does not count
    file = io.BytesIO()
    torch.save({"bins": bins}, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(bins)), copy.copy(bins), copy.deepcopy(bins), torch.load(file)["bins"]]
    for other in copies:
        assert other == bins
        assert hash(other) == hash(bins)
        assert other.transformed_ends == bins.transformed_ends


def test_bins_of_a_file_are_checked():
    rebuild, fields = ValueBins.c51().__reduce__()
    with pytest.raises(BinsError, match="at least 2 bins, got 0"):
        rebuild(*fields[:2], 0, *fields[3:])


def test_the_signature_is_that_of_the_fields():
    assert list(inspect.signature(ValueBins).parameters) == ["low", "high", "count", "transform", "readout", "labels"]


def test_numbers_of_numpy_are_numbers():
    assert ValueBins(np.float32(-3), np.int16(3), np.int64(9), "linear") == ValueBins(-3.0, 3.0, 9, "linear")
    assert type(ValueBins(-3, 3, np.int64(9)).count) is int
    assert ValueBins.amago2(np.int64(64)) == ValueBins.amago2(64)


@pytest.mark.parametrize(
    ("given", "named", "words"),
    [
        ((128,), {}, r"ValueBins\(128\): expected both ends.*ValueBins\.amago2\(count\)"),
        ((128,), {"transform": "linear"}, "expected both ends"),
        ((), {"count": True}, "at least 2 bins, got True"),
        ((), {"count": "64"}, "at least 2 bins, got '64'"),
        ((), {"count": math.nan}, "at least 2 bins, got nan"),
        ((), {"count": -(2**70)}, "at least 2 bins, got -"),
        ((True, 3), {}, "expected numbers as low and high, got low=True"),
        (("1", 3), {}, "expected numbers as low and high, got low='1'"),
        ((torch.tensor(1.0), 3), {}, r"expected numbers as low and high, got low=tensor\(1\.\)"),
        ((None, 3), {}, "expected numbers as low and high, got low=None"),
        ((0, 10**400), {}, "expected finite low < high"),
        ((-math.inf, 3), {}, "expected finite low < high"),
        ((-(2**127), 2**127, 9, "linear"), {}, "expected ends whose distance float32 holds"),
        ((-(2**127), 2**127, 9, "symlog", "raw", "raw"), {}, "expected ends whose distance float32 holds"),
        ((0, 3.402e38), {}, "expected ends that float32 holds"),
        ((0, 3), {"transform": ["linear"]}, r"expected one of .*, got \['linear'\]"),
        ((0, 3), {"readout": None}, "expected 'transformed' or 'raw', got None"),
        ((0, 3), {"labels": 1}, "expected 'transformed' or 'raw', got 1"),
    ],
)
def test_odd_arguments_are_a_sentence(given, named, words):
    with pytest.raises(BinsError, match=words):
        ValueBins(*given, **named)
