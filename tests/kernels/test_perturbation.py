"""The switch that makes matrix products round as on another processor: it reaches them all, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compare import error_in_eps
from perturbation import perturbed_products, product_sensitivity
from two_hot_truth import gradient, normal

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
X, Y, Z, V = normal(6, 6, seed=1), normal(6, 6, seed=2), normal(6, 6, seed=3), normal(6, seed=4)
XS, YS, ZS = (normal(3, 6, 6, seed=seed) for seed in (5, 6, 7))
IMAGES, KERNELS = normal(2, 3, 6, 6, seed=8), normal(4, 3, 3, 3, seed=9)
PRODUCTS = {
    "@": (torch.matmul, X, Y),
    "@ of a batch": (torch.matmul, XS, Y),
    "matrix @ vector": (torch.matmul, X, V),
    "addmm": (torch.addmm, Z, X, Y),
    "addmm_": (lambda z, x, y: z.clone().addmm_(x, y), Z, X, Y),
    "addmm, out": (lambda z, x, y: torch.addmm(z, x, y, out=torch.empty_like(z)), Z, X, Y),
    "mm, out": (lambda x, y: torch.mm(x, y, out=torch.empty_like(x)), X, Y),
    "addmv": (torch.addmv, V, X, V),
    "bmm": (torch.bmm, XS, YS),
    "bmm, out": (lambda x, y: torch.bmm(x, y, out=torch.empty_like(x)), XS, YS),
    "baddbmm": (torch.baddbmm, ZS, XS, YS),
    "baddbmm_": (lambda z, x, y: z.clone().baddbmm_(x, y), ZS, XS, YS),
    "linear": (functional.linear, XS, Y, V),
    "linear without bias": (functional.linear, X, Y),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), XS, YS),
    "tensordot": (lambda x, y: torch.tensordot(x, y, 2), XS, Y),
    "conv2d": (functional.conv2d, IMAGES, KERNELS),
}


def every(names):
    return pytest.mark.parametrize(
        ("function", "operands"), [(PRODUCTS[name][0], PRODUCTS[name][1:]) for name in names], ids=names
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every(list(PRODUCTS))
def test_every_product_is_off_by_an_eps_at_most(function, operands, dtype) -> None:
    operands = [x.to(dtype) for x in operands]
    usual, sizes = function(*operands), function(*(x.abs() for x in operands))
    with perturbed_products(1):
        once, again = function(*operands), function(*operands)
    with perturbed_products(2):
        other = function(*operands)
    assert torch.equal(once, again)
    assert not torch.equal(once, usual)
    assert not torch.equal(once, other)
    terms = sizes if dtype.itemsize > 2 else usual.abs()
    # What is added is rounded itself, and so is the sum.
    assert ((once - usual).double().abs() <= 1.6 * torch.finfo(dtype).eps * terms.double()).all()
    assert torch.equal(function(*operands), usual)


@every([name for name in PRODUCTS if not name.endswith("out")])
def test_gradients_are_products_too(function, operands) -> None:
    leaves = [x.clone().requires_grad_() for x in operands]
    grad_output = normal(*function(*operands).shape, seed=10)
    usual = gradient(function(*leaves), tuple(leaves), grad_output)
    output = function(*leaves)
    with perturbed_products(1):
        found = gradient(output, tuple(leaves), grad_output)
    assert not all(torch.equal(a, b) for a, b in zip(found, usual, strict=True))


def test_a_row_does_not_depend_on_the_others() -> None:
    spoilt = X.clone()
    spoilt[2] = torch.nan
    with perturbed_products(1):
        rows = torch.arange(6) != 2
        assert torch.equal((spoilt @ Y)[rows], (X @ Y)[rows])


def test_whole_numbers_are_let_alone() -> None:
    numbers = torch.arange(36).view(6, 6)
    with perturbed_products(1):
        assert torch.equal(numbers @ numbers, torch.from_numpy(numbers.numpy() @ numbers.numpy()))


def test_a_sensitivity_is_that_of_the_terms() -> None:
    """Of x y + z: three draws of -1, 0 and 1 have a mean square of 2 / 3, of what is added up."""
    x, y, z = normal(30, 6, dtype=torch.float64), normal(6, 7, seed=1, dtype=torch.float64), normal(7, seed=2).double()
    (found,) = product_sensitivity(lambda: (functional.linear(x, y.T, z),), draws=64)
    expected = (2 / 3) ** 0.5 * functional.linear(x.abs(), y.T.abs(), z.abs())
    assert (found / expected).mean().item() == pytest.approx(1, abs=0.05)
    (found,) = product_sensitivity(lambda: (functional.linear(x, y.T, z),), torch.bfloat16, draws=64)
    assert (found / functional.linear(x, y.T, z).abs()).mean().item() == pytest.approx((2 / 3) ** 0.5, abs=0.05)


def test_an_error_is_relative_to_the_sensitivity() -> None:
    """x + 100 - 100, which has lost all digits of x beyond those of 100."""
    sums: Tensor = (torch.full((3,), 100.0) + torch.tensor([1.0, 1 + 1e-6, -1.0])) - 100
    exact = torch.tensor([1.0, 1 + 1e-6, -1.0], dtype=torch.float64)
    assert error_in_eps(sums, exact, torch.float32) > 5
    assert error_in_eps(sums, exact, torch.float32, exact.abs() + 200) < 0.5
    assert error_in_eps(sums + 1, exact, torch.float32, exact.abs() + 200) > 1e4
