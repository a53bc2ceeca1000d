"""The private interfaces of torch and Python that the operations use do what `torch_private` says of them.

Where one of these fails after an update of torch, that interface has moved.
"""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from twohot.kernels import torch_private as private


class Plain(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_the_environment_is_that_of_os(monkeypatch):
    key = private.environment_key("A_PRIVATE_NAME")
    assert private.environment.get(key) is None
    monkeypatch.setenv("A_PRIVATE_NAME", "x")
    assert private.environment[key] == os.environ.encodevalue("x")
    monkeypatch.delenv("A_PRIVATE_NAME")
    assert private.environment.get(key) is None


def test_transforms_of_functorch_are_seen():
    def seen(x):
        found.append(private.functorch_transforms_active())
        return x.sum()

    found = []
    seen(torch.ones(2))
    torch.func.grad(seen)(torch.ones(2))
    torch.func.vmap(seen)(torch.ones(2, 2))
    assert found == [False, True, True]


def test_dispatch_modes_are_counted():
    before = private.dispatch_mode_count()
    with Plain():
        assert private.dispatch_mode_count() == before + 1
    assert private.dispatch_mode_count() == before


@pytest.mark.parametrize("keep", [False, True])
def test_a_backward_pass_knows_whether_its_graph_is_kept(keep):
    found = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda gradient: found.append(private.graph_is_kept()))
    y.sum().backward(retain_graph=keep)
    assert found == [keep]


def test_the_body_of_an_operation_is_the_function_that_was_registered():
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    operation = torch.library.custom_op("twohot_test::double", double, mutates_args=())
    assert private.operation_body(operation) is double


def test_tensors_move_towards_others_together():
    x, y = [torch.zeros(2), torch.ones(1)], [torch.ones(2), torch.zeros(1)]
    private.foreach_lerp_(x, y, 0.25)
    assert [each.tolist() for each in x] == [[0.25, 0.25], [0.75]]
    assert [each.item() for each in private.foreach_norm([torch.tensor([3.0, 4.0]), torch.tensor([-2.0])])] == [5, 2]


def test_gamma_numbers_have_gradients():
    shape = torch.full((2000,), 3.0, requires_grad=True)
    drawn = private.standard_gamma(shape, generator=torch.Generator().manual_seed(0))
    drawn.mean().backward()
    assert drawn.mean().item() == pytest.approx(3, abs=0.2)
    assert shape.grad is not None
    assert shape.grad.sum().item() == pytest.approx(1, abs=0.1)  # E[x] is its shape


def test_writes_are_counted():
    x = torch.zeros(2)
    before = private.write_count(x)
    x.add_(1)
    assert private.write_count(x) > before
