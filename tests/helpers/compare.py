"""The one tolerance policy of the tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OF_TWO = 8.0
"""The floor for two results that are held against each other, each of which has the usual one."""


def error_in_eps(actual: Tensor, truth: Tensor, dtype: torch.dtype, sensitivity: Tensor | float = 0.0) -> float:
    """Largest |actual - truth| / (max(1, |truth|) + sensitivity), in eps of `dtype`; infinite if one alone is finite.

    Args:
        actual: values of any dtype. truth: float64 values of the same shape; NaN matches NaN, an infinity its like.
        sensitivity: at least 0, of a shape that broadcasts to theirs; see `assert_accurate`.
    """
    assert truth.dtype == torch.float64, f"the truth must be float64, got {truth.dtype}"
    assert actual.shape == truth.shape, f"expected the shape {tuple(truth.shape)}, got {tuple(actual.shape)}"
    actual = actual.detach().to(torch.float64)
    same = (actual == truth) | (actual.isnan() & truth.isnan())
    error = torch.where(same, 0.0, (actual - truth).abs() / (truth.abs().clamp(min=1) + sensitivity))
    return error.nan_to_num(nan=torch.inf).amax().item() / torch.finfo(dtype).eps if error.numel() else 0.0


def assert_accurate(
    actual: Tensor,
    truth: Tensor,
    plain: Tensor | None = None,
    *,
    floor: float = 4.0,
    sensitivity: Tensor | float = 0.0,
) -> None:
    """The error against a float64 truth is at most twice that of plain PyTorch in the same dtype, plus a floor.

    Which of two roundings is nearer to the truth is the processor's and the library's own: neither plain PyTorch's luck
    nor a floor found by trial bounds an ill-conditioned value. Its sensitivity does, which is derived: to first order
    sum_i |x_i dy/dx_i| over the numbers x_i that y is computed from and that are rounded themselves. It is the sum of
    the sizes of the terms for a sum, |x| exp(x) for exp(x).

    Args:
        actual: output of the code under test. truth: the same in float64, computed independently.
        plain: the same by plain PyTorch in the dtype of `actual`; without it, the floor alone is the bound.
        floor: in units of the eps of the dtype of `actual`, relative to max(1, |truth|) + sensitivity: how many eps
            each step of the computation may lose. Half the longest chain of additions, where there is a long one.
        sensitivity: by how many eps the value moves where what it is computed from is off by one; float64, of a shape
            that broadcasts to that of `truth`.

    Raises:
        AssertionError: when a shape, a dtype or a value differs.
    """
    bound = floor
    if plain is not None:
        assert plain.dtype == actual.dtype, f"expected the dtype {plain.dtype}, got {actual.dtype}"
        bound += 2 * error_in_eps(plain, truth, actual.dtype, sensitivity)
    error = error_in_eps(actual, truth, actual.dtype, sensitivity)
    assert error <= bound, f"error of {error:.4g} eps of {actual.dtype}, expected at most {bound:.4g}"


def summation(terms: int) -> float:
    """Eps, of the sum of the sizes of its terms, that a sum of so many may lose in whichever order it is summed.

    Half an eps an addition at most (Higham 2002, section 4.2); and, the signs of rounding errors being independent,
    more than 3 sqrt(n) with a probability below 1e-7 (Higham and Mary 2019).
    """
    return min(terms / 2, 3 * math.sqrt(terms))
