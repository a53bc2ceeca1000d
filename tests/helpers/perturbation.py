"""Matrix products as they may be on another processor: off by up to an eps of what is added up, at random.

What a product rounds to depends on the order in which it is summed, which is the processor's and the library's own. A
test that holds for one of them alone is seen with `TWOHOT_TEST_PERTURB=SEED`.
"""

from __future__ import annotations

import copy
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

# Whatever multiplies matrices on a CPU ends in one of these, in forward as in backward passes.
PRODUCTS = (
    *("mm", "mm.out", "bmm", "bmm.out", "dot", "convolution", "convolution_backward"),
    *("addmm", "addmm.out", "addmm_", "_addmm_activation", "_addmm_activation.out"),
    *("baddbmm", "baddbmm.out", "baddbmm_", "addmv", "addmv.out", "addmv_"),
)
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_ASKED = ExitStack()  # never left

DEVIATIONS = 6.0
"""Root mean squares of what many independent rounding errors add up to, which they never reach."""


@contextmanager
def perturbed_products(seed: int, dtype: torch.dtype | None = None, eps: float | None = None) -> Iterator[None]:
    """Products of floating-point matrices on the CPU are perturbed until the end of the context.

    An element is off by -eps, 0 or eps times the sum of the sizes of the terms that it adds up; in half precision,
    whose sums are kept in float32, times its own size. Which of the three is drawn from the seed, the operation, and
    the shapes and strides of its operands, not from their numbers: the same call has the same result, bit for bit, and
    no row depends on what other rows hold.

    Args:
        dtype: in which the products would be; None for that in which they are. eps: None for that of their dtype.
    """
    library = torch.library.Library("aten", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            for name in PRODUCTS:
                library.impl(name, _perturbed(name, seed, dtype, eps), "CPU", allow_override=True)
        yield
    finally:
        library._destroy()


def product_sensitivity(
    function: Callable[[], tuple[Tensor, ...]], dtype: torch.dtype = torch.float32, draws: int = 16
) -> list[Tensor]:
    """The sensitivity, as `compare` takes it, of tensors that are computed by many products.

    The root mean square of what each number moves by, in eps, where all products in it are off by one at random
    (Monte Carlo arithmetic, Parker 1997).

    Args:
        function: of nothing, in float64. dtype: of the products in the code that is held against it.
    """
    eps = 2.0**-24  # small enough for the first order, and large beside the rounding of float64
    exact = [x.detach() for x in function()]
    assert all(x.dtype == torch.float64 for x in exact), f"expected float64, got {[x.dtype for x in exact]}"
    squares = [torch.zeros_like(x) for x in exact]
    for seed in range(draws):
        with perturbed_products(seed, dtype, eps):
            for square, x, other in zip(squares, exact, function(), strict=True):
                square.add_(((other.detach() - x) / eps).square())
    return [(square / draws).sqrt() for square in squares]


def in_float64(module: nn.Module, *inputs, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """What a copy of a module in float64 makes of its inputs (tensors, also in dicts), and the sensitivity of that."""
    exact = copy.deepcopy(module).double()
    inputs = tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.dtype.is_floating_point else x, inputs)
    state = torch.get_rng_state()

    def output() -> tuple[Tensor, ...]:
        torch.set_rng_state(state)  # a random shift is the same each time
        return (exact(*inputs).detach(),)

    (sensitivity,) = product_sensitivity(output, dtype)
    return *output(), sensitivity


def perturb_as_asked() -> None:
    """Perturb products from now on, where `TWOHOT_TEST_PERTURB=SEED` asks for it."""
    if seed := os.environ.get("TWOHOT_TEST_PERTURB"):
        _ASKED.enter_context(perturbed_products(int(seed)))


def _perturbed(name: str, seed: int, dtype: torch.dtype | None, eps: float | None):
    """The kernel of an operation, followed by the perturbation of what it returns."""
    kernel = torch.library.get_kernel(f"aten::{name}", "CPU")

    def product(*arguments, **options):
        layouts = tuple((tuple(x.shape), x.stride()) for x in arguments if isinstance(x, Tensor))
        # Before the product, which may be written over an operand.
        sizes = kernel.call_boxed(CPU, *map(_size, arguments), **{key: _size(x) for key, x in options.items()})
        results = kernel.call_boxed(CPU, *arguments, **options)
        for place, (result, size) in enumerate(zip(_tuple(results), _tuple(sizes), strict=True)):
            if isinstance(result, Tensor) and result.dtype.is_floating_point:
                signs = _signs((seed, name, place, layouts), tuple(result.shape)).to(result.dtype)
                terms = size if (dtype or result.dtype).itemsize > 2 else result.clone()
                result.addcmul_(signs, terms, value=torch.finfo(result.dtype).eps if eps is None else eps)
        return results

    return product


def _size(x):
    return x.abs() if isinstance(x, Tensor) and x.dtype.is_floating_point else x


def _tuple(x) -> tuple:
    return x if isinstance(x, tuple) else (x,)


@lru_cache(maxsize=1024)
def _signs(key: tuple, shape: tuple[int, ...]) -> Tensor:
    """-1, 0 and 1 in equal shares, drawn from the hash of a key of numbers and names."""
    generator = np.random.default_rng(zlib.crc32(repr(key).encode()))  # tests replace random functions of torch
    return torch.from_numpy(generator.integers(-1, 2, shape, np.int8))
