"""The one tolerance policy of the tests."""

from __future__ import annotations

import torch
from torch import Tensor


def error_in_eps(actual: Tensor, truth: Tensor, dtype: torch.dtype) -> float:
    """Largest |actual - truth| / max(1, |truth|), in units of the eps of `dtype`; infinite where only one is finite.

    Args:
        actual: values of any dtype. truth: float64 values of the same shape; NaN matches NaN, an infinity its like.
    """
    assert truth.dtype == torch.float64, f"the truth must be float64, got {truth.dtype}"
    assert actual.shape == truth.shape, f"expected the shape {tuple(truth.shape)}, got {tuple(actual.shape)}"
    actual = actual.detach().to(torch.float64)
    same = (actual == truth) | (actual.isnan() & truth.isnan())
    error = torch.where(same, 0.0, (actual - truth).abs() / truth.abs().clamp(min=1))
    return error.nan_to_num(nan=torch.inf).amax().item() / torch.finfo(dtype).eps if error.numel() else 0.0


def assert_accurate(actual: Tensor, truth: Tensor, plain: Tensor | None = None, *, floor: float = 4.0) -> None:
    """The error against a float64 truth is at most twice that of plain PyTorch in the same dtype, plus a floor.

    Args:
        actual: output of the code under test. truth: the same in float64, computed independently.
        plain: the same by plain PyTorch in the dtype of `actual`; without it, the floor alone is the bound.
        floor: in units of the eps of the dtype of `actual`, relative to max(1, |truth|).

    Raises:
        AssertionError: when a shape, a dtype or a value differs.
    """
    bound = floor
    if plain is not None:
        assert plain.dtype == actual.dtype, f"expected the dtype {plain.dtype}, got {actual.dtype}"
        bound += 2 * error_in_eps(plain, truth, actual.dtype)
    error = error_in_eps(actual, truth, actual.dtype)
    assert error <= bound, f"error of {error:.4g} eps of {actual.dtype}, expected at most {bound:.4g}"
