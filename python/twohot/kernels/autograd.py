"""Derivatives of registered operations, at the price of a plain call where nothing traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from twohot.kernels.backend import is_eager_tensor
from twohot.kernels.memory import empty_from_pool
from twohot.kernels.torch_private import functorch_transforms_active, graph_is_kept, operation_body


def differentiable(
    op: Any,
    setup_context: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
    inputs: int | None = 1,
    visible: int | None = None,
) -> Callable[..., Any]:
    """Register the derivative of `op` for its first `inputs` arguments (None: all), and give a form of it to call.

    An operation's own autograd rule costs more than a small loss, and does not serve torch.func. So where nothing
    traces, the form to call runs the body of the operation in an autograd Function, and under torch.func the operation.
    It returns the first `visible` outputs (None: all).
    """
    op.register_autograd(backward, setup_context=setup_context)

    body = operation_body(op)

    # Each argument of a Function costs time: those without a gradient are one.
    class EagerFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            arguments = (*arguments[:-1], *arguments[-1])
            output = body(*arguments)
            setup_context(ctx, arguments, output)
            return output if visible is None else output[:visible]

        @staticmethod
        def backward(ctx, *grad_output):
            return *backward(ctx, *grad_output)[:inputs], None

    class FunctorchFunction(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*arguments):
            return op(*arguments)

    FunctorchFunction.setup_context = staticmethod(setup_context)
    FunctorchFunction.backward = staticmethod(backward)

    def call(*arguments):
        if is_eager_tensor(arguments[0]):
            leading = arguments[:inputs]
            wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in leading)
            if wanted:
                return EagerFunction.apply(*leading, arguments[len(leading) :])
            if torch.is_grad_enabled():  # for others of the arguments
                with torch.no_grad():
                    output = body(*arguments)
            else:
                output = body(*arguments)
        else:
            output = (FunctorchFunction.apply if functorch_transforms_active() else op)(*arguments)
        return output if visible is None else output[:visible]

    return call


def raise_second_derivative(ctx: Any, *_: Any) -> NoReturn:
    """The derivative of what has none."""
    raise RuntimeError(
        "twohot: the fused operations can be differentiated once. For second derivatives use the plain PyTorch form, "
        "TWOHOT_BACKEND=reference"
    )


def require_one_derivative(ctx: Any) -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated itself (create_graph=True)."""
    if torch.is_grad_enabled():
        raise_second_derivative(ctx)


def differentiated_once(op: Any) -> Callable[..., Any]:
    """`op`, which computes gradients, with a derivative that raises."""
    return differentiable(op, lambda ctx, inputs, output: None, raise_second_derivative, inputs=None)


def scaled(ctx: Any, saved: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """The gradients that were `saved` x factor []: themselves where a look at it is free and finds 1.

    A caller that keeps the graph gets copies, so that what was given out can be changed. Saved tensors come as an
    argument because activation checkpointing hands them out once.
    """
    if torch.compiler.is_compiling() or not is_eager_tensor(factor) or not factor.is_cpu:
        return [(gradient * factor).to(gradient.dtype) for gradient in saved]
    require_one_derivative(ctx)
    number = factor.item()
    if number == 1 and not graph_is_kept():
        return list(saved)
    return [_scaled(gradient, number) for gradient in saved]


def _scaled(gradient: Tensor, factor: float) -> Tensor:
    if not gradient.is_contiguous():
        return gradient * factor  # keeps the order of its dimensions
    return torch.mul(gradient, factor, out=empty_from_pool(gradient.shape, gradient))
