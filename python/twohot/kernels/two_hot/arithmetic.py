"""Functions of single numbers in Triton: exponentials, logarithms, and the transforms of value bins."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exponential(b_x):
    """exp(x) = 2^(x log2 e) for x <= 0; what is below the smallest normal number may become 0."""
    return tl.exp2(b_x * 1.4426950408889634)


@triton.jit
def is_nan(b_x):
    """Whether x is NaN, the one number that differs from itself."""
    return b_x != b_x  # noqa: PLR0124


@triton.jit
def log1p(b_x):
    """log(1 + x) = log(u) + c / u for x >= 0, with u = fl(1 + x) and the rounding error c = 1 + x - u, exact itself."""
    b_u = b_x + 1.0
    b_c = tl.where(b_x < 1.0, b_x - (b_u - 1.0), 1.0 - (b_u - b_x))
    return tl.log(b_u) + b_c / b_u


@triton.jit
def expm1(b_x):
    """exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1) for x >= 0, with x = n log 2 + r and |r| <= log(2) / 2.

    exp(r) - 1 is its Taylor polynomial, whose remainder is below 2^-24 r. Half of the result is built first, so that
    2^n stays finite up to the largest float.
    """
    b_n = tl.floor(tl.where(b_x < 89.0, b_x, 89.0) * 1.4426950408889634 + 0.5)
    b_r = tl.fma(b_n, -0.693145751953125, b_x)
    b_r = tl.fma(b_n, -1.42860677e-06, b_r)
    b_p = tl.fma(b_r, 1 / 5040, 1 / 720)
    b_p = tl.fma(b_r, b_p, 1 / 120)
    b_p = tl.fma(b_r, b_p, 1 / 24)
    b_p = tl.fma(b_r, b_p, 1 / 6)
    b_p = tl.fma(b_r, b_p, 0.5)
    b_p = tl.fma(b_r * b_r, b_p, b_r)
    b_half = ((b_n.to(tl.int32) + 126) << 23).to(tl.float32, bitcast=True)
    return 2.0 * tl.fma(b_half, b_p, b_half - 0.5)


@triton.jit
def transform(b_y, TRANSFORM: tl.constexpr):
    """f(y): symlog, sign(y) (sqrt(|y| + 1) - 1) + 0.001 y, or y; sqrt(a + 1) - 1 = a / (sqrt(a + 1) + 1)."""
    b_size = tl.abs(b_y)
    if TRANSFORM == "symlog":
        b_x = log1p(b_size)
    elif TRANSFORM == "signed_sqrt":
        b_x = b_size / (tl.sqrt(b_size + 1.0) + 1.0) + 1e-3 * b_size
    else:
        b_x = b_size
    return tl.where(b_y < 0.0, -b_x, b_x)


@triton.jit
def inverse_transform(b_x, TRANSFORM: tl.constexpr):
    """f^-1(x): symexp, the inverse of the signed square root, or x.

    For the signed square root let e = 0.001, s = sqrt(1 + 4 e (|x| + 1 + e)) and d = 2 |x| / (s + 1 + 2 e). Then
    sqrt(|y| + 1) = 1 + d and |y| = d (d + 2), where nothing cancels.
    """
    b_size = tl.abs(b_x)
    if TRANSFORM == "symlog":
        b_y = expm1(b_size)
    elif TRANSFORM == "signed_sqrt":
        b_d = 2.0 * b_size / (tl.sqrt(4e-3 * b_size + 1.004004) + 1.002)
        b_y = b_d * (b_d + 2.0)
    else:
        b_y = b_size
    return tl.where(b_x < 0.0, -b_y, b_y)


@triton.jit
def inverse_slope(b_x, TRANSFORM: tl.constexpr):
    """d f^-1(x) / dx: exp(|x|); 2 (1 + d) / s in the names of `inverse_transform`; or 1."""
    b_size = tl.abs(b_x)
    if TRANSFORM == "symlog":
        b_slope = expm1(b_size) + 1.0
    elif TRANSFORM == "signed_sqrt":
        b_s = tl.sqrt(4e-3 * b_size + 1.004004)
        b_slope = (2.0 + 4.0 * b_size / (b_s + 1.002)) / b_s
    else:
        b_slope = tl.full(b_x.shape, 1.0, tl.float32)
    return b_slope
