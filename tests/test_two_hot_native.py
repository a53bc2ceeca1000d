"""The native two-hot kernels, in every form that this processor can run, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_accurate
from twohot import _native
from twohot.kernels import backend
from twohot.kernels.two_hot import op
from twohot.losses import ValueBins, bin_expectation, two_hot_cross_entropy

BINS = (2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 601, 4096)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def rows(count: int, bins: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0):
    """Logits [count, bins] and positions [count], some of them at the ends and on bins."""
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(count, bins, generator=generator)).to(dtype)
    position = torch.rand(count, generator=generator) * (bins - 1)
    position[: min(3, count)] = torch.tensor([0.0, bins - 1.0, 1.0])[: min(3, count)]
    return logits, position


def truth(logits: torch.Tensor, position: torch.Tensor):
    """Loss and its gradient with respect to the logits in float64, by two gathers."""
    z = logits.double().requires_grad_()
    lower = position.double().floor().clamp(max=z.shape[-1] - 2)
    share = (position.double() - lower).unsqueeze(-1)
    log_p = z.log_softmax(-1)
    index = lower.long().unsqueeze(-1)
    loss = -((1 - share) * log_p.gather(-1, index) + share * log_p.gather(-1, index + 1)).squeeze(-1)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", BINS)
def test_loss_gradient_and_readout(bins: int, dtype: torch.dtype) -> None:
    logits, position = rows(37, bins, dtype)
    values = torch.linspace(-5, 5, bins)
    values = (values - values.flip(0)) / 2
    z = logits.clone().requires_grad_()
    loss, maximum, log_sum, readout = op.two_hot_rows(z, position, None, values, True)
    expected, gradient = truth(logits, position)
    assert_accurate(
        loss, expected, torch.nn.functional.cross_entropy(logits.float(), position.long(), reduction="none")
    )
    assert torch.equal(maximum, logits.float().amax(-1))
    assert_accurate(maximum + log_sum, logits.double().logsumexp(-1))
    assert_accurate(readout, logits.double().softmax(-1) @ values.double(), floor=8)
    assert torch.equal(op.expectation_rows(logits, values, True), readout.detach())
    assert_accurate(op.expectation_rows(logits, values, False), logits.double().softmax(-1) @ values.double(), floor=8)
    loss.sum().backward()
    assert z.grad.dtype == dtype
    label = torch.relu(1 - (position.unsqueeze(-1) - torch.arange(bins)).abs())
    assert_accurate(z.grad, gradient, (logits.float().softmax(-1) - label).to(dtype))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_numbers_equal_the_reference(data) -> None:
    """Rows of floats of any size, infinities and NaN: what the reference gives, the kernels give."""
    bins = data.draw(st.integers(2, 40))
    numbers = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.floats(-20, 20, width=32)
    logits = torch.tensor(data.draw(st.lists(st.lists(numbers, min_size=bins, max_size=bins), min_size=1, max_size=4)))
    places = st.integers(0, 1024 * (bins - 1)).map(lambda place: place / 1024) | st.just(float("nan"))
    position = torch.tensor(data.draw(st.lists(places, min_size=len(logits), max_size=len(logits))))
    loss, *_ = op.two_hot_rows(logits, position, None, None, False)
    index = torch.arange(bins, dtype=torch.float64)
    label = torch.relu(1 - (position.double().unsqueeze(-1) - index).abs())
    log_p = logits.double().log_softmax(-1)
    expected = -torch.where(label == 0, 0, label * log_p).sum(-1)
    expected = torch.where(position.isnan(), torch.nan, expected)
    both_infinite = loss.isinf() & (expected > 3e38)
    torch.testing.assert_close(
        torch.where(both_infinite, 0, loss.double()),
        torch.where(both_infinite, 0, expected),
        rtol=1e-5,
        atol=1e-5,
        equal_nan=True,
    )


def test_a_row_that_does_not_count_is_neither_read_nor_learnt_from() -> None:
    logits, position = rows(8, 16, torch.float32)
    logits[::2] = torch.nan
    position[::2] = torch.nan
    mask = torch.arange(8) % 2 == 1
    z = logits.clone().requires_grad_()
    outputs = op.two_hot_rows(z, position, mask, torch.linspace(-1, 1, 16), False)
    assert all(output[::2].eq(0).all() for output in outputs)
    outputs[0].sum().backward()
    assert z.grad[::2].eq(0).all()
    assert z.grad[1::2].isfinite().all()
    assert z.grad[1::2].ne(0).any()


def test_a_shared_target_is_never_copied(monkeypatch) -> None:
    seen = []
    real = op.two_hot_rows
    monkeypatch.setattr(op, "two_hot_rows", lambda *arguments: seen.append(arguments) or real(*arguments))
    bins = ValueBins.amago2(count=16)
    logits = torch.randn(4, 6, 5, 3, 16)
    mask = torch.rand(6, 5, 1) > 0.3
    two_hot_cross_entropy(logits, torch.randn(6, 5, 3), bins, mask=mask)
    assert (seen[0][0].shape, seen[0][1].shape, seen[0][2].shape) == ((360, 16), (90,), (90,))
    two_hot_cross_entropy(logits, torch.randn(6, 5, 3), bins, mask=torch.rand(4, 1, 1, 1) > 0.3)
    assert (seen[1][1].shape, seen[1][2].shape) == ((360,), (360,))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1), (5, 1, 2)])
def test_shapes(shape) -> None:
    bins = ValueBins.amago2(count=8)
    logits, target = torch.randn(*shape, 8), torch.randn(shape)
    for reduction in ("none", "sum", "mean"):
        native = two_hot_cross_entropy(logits, target, bins, reduction=reduction)
        double = two_hot_cross_entropy(logits.double(), target.double(), bins, reduction=reduction)
        torch.testing.assert_close(native.double(), double, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        bin_expectation(logits, bins).double(), bin_expectation(logits.double(), bins), rtol=1e-4, atol=1e-4
    )


def test_layouts() -> None:
    bins = ValueBins.amago2(count=8)
    logits = torch.randn(8, 5, 6).permute(1, 2, 0).requires_grad_()
    target = torch.randn(6, 5).T
    loss = two_hot_cross_entropy(logits, target, bins)
    double = two_hot_cross_entropy(logits.double(), target.double(), bins)
    torch.testing.assert_close(loss.double(), double, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(double, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_threads_change_no_bit() -> None:
    logits, position = rows(9000, 64, torch.float32)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        z = logits.clone().requires_grad_()
        loss, *_ = op.two_hot_rows(z, position, None, None, False)
        loss.square().sum().backward()
        results.append((loss.detach(), z.grad))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registered_as_torch_asks(dtype: torch.dtype) -> None:
    logits, position = rows(6, 9, dtype)
    values = torch.linspace(-1, 1, 9)
    mask = torch.rand(6) > 0.3
    for arguments in (
        (logits.clone().requires_grad_(), position, None, values, True),
        (logits.clone().requires_grad_(), position, mask, None, False),
    ):
        torch.library.opcheck(op.two_hot_rows, arguments, test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(op.expectation_rows, (logits, values, True))
    ones = torch.ones(6)
    torch.library.opcheck(op.two_hot_rows_backward, (logits, position, mask, ones, ones, ones))


def test_compiles_without_a_break() -> None:
    bins = ValueBins.amago2(count=16)

    def step(logits, target, mask):
        value = bin_expectation(logits.detach(), bins)
        return two_hot_cross_entropy(logits, target, bins, mask=mask), value

    logits, target, mask = torch.randn(4, 3, 16, requires_grad=True), torch.randn(3), torch.rand(3) > 0.5
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for (loss, value), again in (((*step(logits, target, mask),), compiled(logits, target, mask)),):
        torch.testing.assert_close(again[0], loss, rtol=0, atol=0)
        torch.testing.assert_close(again[1], value, rtol=0, atol=0)


def test_a_second_derivative_is_refused() -> None:
    logits, position = rows(3, 8, torch.float32)
    z = logits.requires_grad_()
    loss, *_ = op.two_hot_rows(z, position, None, None, False)
    (gradient,) = torch.autograd.grad(loss.sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="two_hot_rows_backward"):
        gradient.sum().backward()


def test_gradients_of_other_outputs_are_refused() -> None:
    logits, position = rows(3, 8, torch.float32)
    _, maximum, *_ = op.two_hot_rows(logits.requires_grad_(), position, None, None, False)
    with pytest.raises(RuntimeError, match="only the loss has a gradient"):
        maximum.sum().backward()


def test_the_choice_has_a_reason(monkeypatch) -> None:
    logits = torch.zeros(2, 8)
    assert backend.choose_two_hot(logits) == backend.Choice("native", "torch.float32 on the CPU")
    assert "torch.float64" in backend.choose_two_hot(logits.double()).reason
    assert "5000 bins" in backend.choose_two_hot(torch.zeros(1, 5000)).reason
    assert "meta" in backend.choose_two_hot(logits.to("meta")).reason
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert backend.choose_two_hot(logits).name == "reference"
    monkeypatch.setenv("TWOHOT_BACKEND", "native")
    with pytest.raises(RuntimeError, match=r"asks for native, but the logits are torch\.float64"):
        backend.choose_two_hot(logits.double())
    monkeypatch.setenv("TWOHOT_BACKEND", "quantum")
    with pytest.raises(RuntimeError, match="expected auto, native or reference, got 'quantum'"):
        backend.choose_two_hot(logits)


def test_native_code_checks_its_arguments() -> None:
    arguments = {"rows": 4, "bins": 8, "targets": 4, "threads": 1}
    for change in ({"bins": 1}, {"bins": 4097}, {"targets": 3}, {"rows": -1}, {"targets": 0}):
        with pytest.raises(ValueError, match="expected rows >= 0, 2 to 4096 bins"):
            _native.two_hot_forward(0, "float32", **(arguments | change))
    with pytest.raises(ValueError, match="float64"):
        _native.two_hot_forward(0, "float64", **arguments)
    with pytest.raises(ValueError, match="a loss needs positions"):
        _native.two_hot_forward(0, "float32", **arguments, loss=8)


@pytest.mark.parametrize("capability", ["portable", "avx2"])
def test_every_compiled_form(capability: str) -> None:
    """The tests above, with a lesser instruction set than this processor's best."""
    if os.environ.get("TWOHOT_CPU_CAPABILITY"):
        return
    environment = {**os.environ, "TWOHOT_CPU_CAPABILITY": capability}
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(Path(__file__)), "-p", "no:cacheprovider"]
    command += ["-k", "test_loss_gradient or test_any_numbers or test_a_row_that or test_capability"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]


def test_capability_is_the_one_asked_for() -> None:
    asked = os.environ.get("TWOHOT_CPU_CAPABILITY")
    assert _native.cpu_capability() in ("avx512", "avx2", "portable")
    if asked == "portable":
        assert _native.cpu_capability() == "portable"
