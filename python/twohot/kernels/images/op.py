"""The pools and residual norms between convolutions: natively in float32 on a CPU, by torch elsewhere.

Shapes: `M` images, `C` channels, `H` and `W` pixels. Images lie in memory as [M, H, W, C], torch's channels-last form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twohot.kernels.addresses import address
from twohot.kernels.autograd import require_one_derivative
from twohot.kernels.backend import images_run_natively, is_eager_tensor, native
from twohot.kernels.images import reference
from twohot.kernels.threads import native_threads


def max_pool(x: Tensor) -> Tensor:
    """Maxima of 3 x 3 pixels, every second one in both directions.

    x [M, C, H, W] to [M, C, (H - 1) // 2, (W - 1) // 2].
    """
    if _fits(x) and min(x.shape[2:]) >= 3:
        return _MaxPool.apply(x)
    return reference.max_pool(x)


def residual_norm(x: Tensor, residual: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """group_norm(x + residual), both [M, C, H, W], with weight and bias [C]."""
    fits = _fits(x) and residual.shape == x.shape and weight.shape == bias.shape == (x.shape[1],)
    same = all(each.dtype == x.dtype and each.device == x.device for each in (residual, weight, bias))
    if fits and same and groups > 0 and x.shape[1] % groups == 0 and epsilon > 0:
        return _ResidualNorm.apply(x, residual, groups, weight, bias, epsilon)
    return reference.residual_norm(x, residual, groups, weight, bias, epsilon)


def _fits(x: Tensor) -> bool:
    return is_eager_tensor(x) and x.dim() == 4 and x.numel() > 0 and images_run_natively(x.device, x.dtype, x.shape[1])


def _shape(x: Tensor) -> tuple[int, ...]:
    images, channels, height, width = x.shape
    return images, height, width, channels


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _address(x: Tensor, what: str, shape: tuple[int, ...]) -> int:
    """Of float32 images in channels-last form."""
    images, channels, height, width = shape
    return address(x.permute(0, 2, 3, 1), what, torch.float32, images, height, width, channels)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = _channels_last(x)
        images, height, width, channels = ctx.shape = _shape(x)
        small = images, (height - 1) // 2, (width - 1) // 2, channels
        out, argmax = x.new_empty(small), x.new_empty(small, dtype=torch.uint8)
        native.max_pool(
            ctx.shape,
            x=_address(x, "x", x.shape),
            out=out.data_ptr(),
            argmax=argmax.data_ptr(),
            threads=native_threads(),
        )
        ctx.save_for_backward(argmax)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        require_one_derivative(ctx)
        (argmax,) = ctx.saved_tensors
        grad_output = _channels_last(grad_output)
        grad_x = grad_output.new_empty(ctx.shape)
        images, height, width, channels = argmax.shape
        native.max_pool_backward(
            ctx.shape,
            grad_output=_address(grad_output, "grad_output", (images, channels, height, width)),
            argmax=address(argmax, "argmax", torch.uint8, *argmax.shape),
            grad_x=grad_x.data_ptr(),
            threads=native_threads(),
        )
        return grad_x.permute(0, 3, 1, 2)


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, residual: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        x, residual = _channels_last(x), _channels_last(residual)
        total, out = torch.empty_like(x), torch.empty_like(x)
        ctx.groups, ctx.epsilon = groups, epsilon
        _call(native.residual_norm, ctx, (weight, bias), x=x, residual=residual, total=total, out=out)
        ctx.save_for_backward(total, weight, bias)
        return out

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        require_one_derivative(ctx)
        total, weight, bias = ctx.saved_tensors
        grad_sum, grad_weight, grad_bias = (torch.empty_like(like) for like in (total, weight, bias))
        gradients = {"grad_sum": grad_sum, "grad_weight": grad_weight, "grad_bias": grad_bias}
        _call(
            native.residual_norm_backward,
            ctx,
            (weight, bias),
            total=total,
            grad_output=_channels_last(grad_output),
            **gradients,
        )
        return grad_sum, grad_sum, None, grad_weight, grad_bias, None


def _call(function, ctx, parameters: tuple[Tensor, Tensor], **arrays: Tensor) -> None:
    weight, bias = (parameter.contiguous() for parameter in parameters)
    shape, found = arrays["total"].shape, {}
    for name, x in arrays.items():
        one = name in ("grad_weight", "grad_bias")
        found[name] = address(x, name, torch.float32, shape[1]) if one else _address(x, name, shape)
    function(
        _shape(arrays["total"]),
        ctx.groups,
        weight=address(weight, "weight", torch.float32, shape[1]),
        bias=address(bias, "bias", torch.float32, shape[1]),
        epsilon=ctx.epsilon,
        threads=native_threads(),
        **found,
    )
