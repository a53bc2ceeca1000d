"""The native pools and residual norms against torch's own."""

import pytest
import torch
from torch.nn import functional

from compare import assert_accurate
from two_hot_truth import normal
from twohot.kernels import backend
from twohot.kernels.images import op, reference

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch):
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)


def images(*shape, seed=0):
    """[M, C, H, W] in torch's channels-last form, with ties."""
    return (4 * normal(*shape, seed=seed)).round().div(4).contiguous(memory_format=torch.channels_last)


SHAPES = [(1, 16, 3, 3), (3, 32, 4, 7), (18, 16, 9, 5), (2, 48, 12, 13)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
def test_pools_equal_torch(shape, form):
    x = images(*shape).contiguous(memory_format=form)
    x[0, 3, 1, 1] = torch.nan
    same = x.clone().requires_grad_()
    x.requires_grad_()
    out, expected = op.max_pool(x), reference.max_pool(same)
    assert type(out.grad_fn).__name__ == "_MaxPoolBackward"
    assert torch.equal(out.nan_to_num(99), expected.nan_to_num(99))
    grad_output = images(*out.shape, seed=1)
    out.backward(grad_output)
    expected.backward(grad_output)
    assert torch.equal(x.grad, same.grad)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 4])
def test_residual_norms_are_accurate(shape, groups):
    arguments = [images(*shape), images(*shape, seed=1), 1 + normal(shape[1], seed=2), normal(shape[1], seed=3)]
    grad_output = images(*shape, seed=4)

    def run(function, dtype):
        x, residual, weight, bias = leaves = [a.to(dtype, copy=True).requires_grad_() for a in arguments]
        out = function(x, residual, groups, weight, bias, 1e-5)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad_output.to(dtype))]

    native, by_torch = run(op.residual_norm, torch.float32), run(reference.residual_norm, torch.float32)
    for actual, other, truth in zip(native, by_torch, run(reference.residual_norm, torch.float64), strict=True):
        assert_accurate(actual, truth, other, floor=32)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        again = run(op.residual_norm, torch.float32)
        torch.set_num_threads(1)
        assert all(torch.equal(a, b) for a, b in zip(native, again, strict=True))


def test_images_run_natively_where_they_can(monkeypatch):
    cpu = torch.device("cpu")
    assert backend.images_run_natively(cpu, torch.float32, 48)
    assert not backend.images_run_natively(cpu, torch.float32, 24)
    assert not backend.images_run_natively(cpu, torch.float32, 2048)
    assert not backend.images_run_natively(cpu, torch.bfloat16, 48)
    assert not backend.images_run_natively(torch.device("meta"), torch.float32, 48)
    monkeypatch.setenv("TWOHOT_BACKEND", "reference")
    assert not backend.images_run_natively(cpu, torch.float32, 48)
    x = images(2, 16, 5, 5)
    assert torch.equal(op.max_pool(x), functional.max_pool2d(x, 3, stride=2))


def test_second_derivatives_are_refused():
    x = images(1, 16, 5, 5).requires_grad_()
    weight = torch.ones(16)
    for out in (op.max_pool(x), op.residual_norm(x, x, 4, weight, weight, 1e-5)):
        with pytest.raises(RuntimeError, match="differentiated once"):
            torch.autograd.grad(out.square().sum(), x, create_graph=True)
