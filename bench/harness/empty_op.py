"""An operation that does nothing, with the signature of one that does something: what a call costs before any work."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Call = tuple[torch._ops.OpOverload, tuple, dict, tuple[Tensor, ...]]


class _Recorder(TorchDispatchMode):
    """Keeps the calls of twohot's operations: which, with what, and what came."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, op, types, arguments=(), options=None):
        options = options or {}
        outputs = op(*arguments, **options)
        if op.namespace == "twohot":
            kept = outputs if isinstance(outputs, tuple | list) else (outputs,)
            self.calls.append((op, arguments, options, tuple(kept)))
        return outputs


def first_call(work: Callable[[], object]) -> Call:
    """The first operation of the namespace twohot that `work` calls.

    Raises:
        RuntimeError: when it calls none.
    """
    with _Recorder() as recorder:
        work()
    if not recorder.calls:
        raise RuntimeError("no operation of twohot was called; expected a registered one")
    return recorder.calls[0]


@cache
def empty_op(schema: str, number: int) -> tuple[Callable[..., object], list[Tensor], list[Tensor]]:
    """A registered op of this schema, the outputs whose like it returns, and the gradient of its first argument.

    Both lists are for the caller to fill. Its outputs are new, as any op's must be, and not written to.
    """
    outputs: list[Tensor] = []
    gradient: list[Tensor] = []

    def nothing(*arguments, **options):
        fresh = tuple(torch.empty_like(output) for output in outputs)
        return fresh if len(fresh) > 1 else fresh[0]

    def backward(context, *gradients):
        return gradient[0], *(None,) * (schema.split(")", maxsplit=1)[0].count(","))

    op = torch.library.custom_op(f"twohot_bench::empty_{number}", nothing, mutates_args=(), schema=schema)
    op.register_autograd(backward)
    return op, outputs, gradient


def empty_twin(work: Callable[[], object], logits: Tensor) -> Callable[[], Tensor]:
    """A call of an empty op with the arguments that `work` gives to its first op, the first replaced by logits [R, N].

    Returns:
        A function that returns the first output of the empty op, differentiable when `logits` is.
    """
    op, arguments, options, answers = first_call(work)
    schema = re.sub(r"\(\w+!\)", "", str(op._schema))
    schema = schema[schema.index("(") :]
    empty, outputs, gradient = empty_op(schema, empty_op.cache_info().currsize)
    outputs[:] = [answer.detach() for answer in answers]
    gradient[:] = [torch.empty_like(logits)]
    rest = arguments[1:]

    def call() -> Tensor:
        result = empty(logits, *rest, **options)
        return result[0] if isinstance(result, tuple | list) else result

    return call
