"""Random calls of every public function that ends in native code, well-formed and not.

    python tests/helpers/native_fuzz.py --seconds 60 --seed 1      # draws until the time is over
    python tests/helpers/native_fuzz.py --seed 1 --only 123        # one draw again

A call gives what plain PyTorch gives, or a sentence: an exception of `SENTENCES` in words of its own. Anything else is
told with the draw, its arguments and what happened: a crash, a sanitizer's report, a hang, a binding's signature,
numbers that differ. Prints a JSON object of how often each function of `twohot._native` was called.

TWOHOT_FUZZ_NATIVE names a folder with another build of the native module, such as one under AddressSanitizer.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import importlib.util
import json
import math
import os
import random
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import Tensor

if "TWOHOT_FUZZ_NATIVE" in os.environ and "twohot._native" not in sys.modules:
    (library,) = Path(os.environ["TWOHOT_FUZZ_NATIVE"]).glob("_native*.so")
    specification = importlib.util.spec_from_file_location("twohot._native", library)
    sys.modules["twohot._native"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(sys.modules["twohot._native"])

from twohot import _native
from twohot.errors import TwohotError

SENTENCES = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    RuntimeError,
    OSError,
    MemoryError,
    OverflowError,
    TwohotError,
)
NO_SENTENCE = ("incompatible function arguments", "incompatible constructor", "std::", "bad_alloc", "got a zero")
FACES = ("twohot.losses", "twohot.attention")
HANG_SECONDS = 60
TURNS = 6
"""Well-formed calls of each case, before any other."""
VARIABLES = ("TWOHOT_BACKEND", "TWOHOT_ATTENTION")
ODD_INTEGERS = (-1, 0, 1, 3, 2**48, 2**62, 2**63, -(2**63), 2**70, True, 1.5, float("nan"), "3", None, b"", [2])
ODD_NUMBERS = (-1.0, 0.0, 1e300, 1e-320, float("inf"), float("-inf"), float("nan"), True, 10**400, "x", None, 1j, [1.0])


class Draw:
    """One draw: its random numbers, and what it calls.

    `call(**arguments)` returns tensors, arrays or None; `plain` says whether the plain implementation must agree.
    """

    def __init__(self, seed: int, number: int, turn: int = 0) -> None:
        self.turn = turn
        self.random = random.Random(seed * 1_000_003 + number)
        self.torch = torch.Generator().manual_seed(self.random.getrandbits(40))

    def size(self, *choices: int) -> int:
        return self.random.choice(choices)

    def choice(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, gradient: bool = False) -> Tensor:
        """A tensor in one of several layouts of memory."""
        x = torch.randn(shape, generator=self.torch).to(dtype)
        if x.dim() > 1 and self.random.random() < 0.2:
            x = x.transpose(0, -1).contiguous().transpose(0, -1)
        if self.random.random() < 0.1:
            x = x.repeat_interleave(2, -1)[..., ::2] if x.dim() else x
        return x.requires_grad_(gradient and self.random.random() < 0.7)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(max(high, 1), shape, generator=self.torch).to(dtype)

    def mask(self, *shape: int) -> Tensor | None:
        return None if self.random.random() < 0.4 else torch.rand(shape, generator=self.torch) < 0.7

    def spoiled(self, value: Any) -> Any:  # noqa: PLR0911
        """The same with one thing that may be wrong."""
        if isinstance(value, Tensor):
            try:
                return self.spoiled_tensor(value.detach())
            except (RuntimeError, NotImplementedError):  # of a tensor without data, or a sparse one
                return value
        if isinstance(value, np.ndarray):
            return self.spoiled_array(value)
        if isinstance(value, dict) and value:
            name = self.random.choice(list(value))
            changed = {key: item for key, item in value.items() if key != name}
            return self.random.choice((changed, {**value, name: self.spoiled(value[name])}, {**value, "more": 1}))
        if isinstance(value, (tuple, list)) and value:
            place = self.random.randrange(len(value))
            return type(value)((*value[:place], self.spoiled(value[place]), *value[place + 1 :]))
        if isinstance(value, float):
            return self.random.choice(ODD_NUMBERS)
        if isinstance(value, str):
            return self.random.choice(("", "x", "\0", None, 3, "é" * 300))
        return self.random.choice(ODD_INTEGERS)

    def spoiled_tensor(self, x: Tensor) -> Any:
        flat = x.reshape(-1)
        odd = flat.clone()
        if odd.numel() and not x.is_complex():
            bad = (-1, 2**30, 2**63 - 1, -(2**63)) if x.dtype == torch.int64 else (-1, 100)
            odd[self.random.randrange(odd.numel())] = 1 if x.dtype == torch.bool else self.random.choice(bad)
        return self.random.choice(
            (
                lambda: x.to(
                    self.random.choice((torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.bool))
                ),
                lambda: x.to(self.random.choice((torch.complex64, torch.int64, torch.uint8, torch.float32))),
                lambda: x.to("meta"),
                lambda: odd.view(x.shape),
                lambda: x[..., :-1] if x.dim() else x[None],
                lambda: x[:-1] if x.dim() else x[None],
                lambda: torch.cat((x, x)) if x.dim() else x[None],
                lambda: x.unsqueeze(self.random.choice((0, -1))),
                lambda: flat,
                lambda: x[:0] if x.dim() else x,
                lambda: x.new_zeros(()),
                lambda: x.transpose(0, -1) if x.dim() else x,
                lambda: torch.stack((x, x), -1)[..., 0],
                lambda: flat[:1].expand(flat.shape).view(x.shape) if flat.numel() else x,
                lambda: torch.cat((flat[:1], flat))[1:].view(x.shape),
                lambda: x.as_strided(x.shape, (1,) * x.dim()) if x.numel() else x,
                lambda: torch._neg_view(x) if x.is_floating_point() else x,
                lambda: x.to_sparse() if x.dim() and not x.is_meta else x,
                lambda: x.to(torch.float32).numpy(force=True) if not x.is_meta and x.layout == torch.strided else x,
                x.tolist,
                lambda: x.clone().requires_grad_(x.is_floating_point()),
                lambda: None,
                lambda: 3,
                lambda: "x",
            )
        )()

    def spoiled_array(self, x: np.ndarray) -> Any:
        kinds = ("float64", "float16", "int32", "int64", "uint8", "bool", ">f4", "complex64", "object", "U3")
        return self.random.choice(
            (
                lambda: _cast(x, self.random.choice(kinds)),
                lambda: x[:-1] if x.ndim else x,
                lambda: np.concatenate((x, x)) if x.ndim else x[None],
                lambda: x[..., None],
                lambda: np.flip(x),
                lambda: x.T,
                lambda: np.asfortranarray(x),
                lambda: np.repeat(x, 2, -1)[..., ::2] if x.ndim else x,
                lambda: np.broadcast_to(x[:1], x.shape) if x.ndim else x,
                lambda: np.frombuffer(b"\0" * (x.nbytes + 1), np.uint8)[1:].view(x.dtype).reshape(x.shape),
                lambda: np.full_like(x, np.nan) if x.dtype.kind == "f" else np.full_like(x, 1),
                lambda: np.array(x[()]) if x.ndim == 0 else np.zeros((), x.dtype),
                lambda: x[:0] if x.ndim else x,
                x.tolist,
                lambda: torch.from_numpy(x.copy()),
                lambda: None,
                lambda: 3,
            )
        )()


def _cast(x: np.ndarray, kind: str) -> np.ndarray:
    """`x` of another dtype; an array of objects may hold what that cannot."""
    try:
        return x.astype(kind)
    except (OverflowError, TypeError, ValueError):
        return x


Case = Callable[[Draw], tuple[Callable[..., Any], dict[str, Any], bool]]
"""From a draw to a call, its arguments, and whether the plain implementation must agree with it."""


def counted(counts: dict[str, int]) -> None:
    """Has every function of the native module count its calls."""

    def wrap(owner: Any, name: str, full: str) -> None:
        function = getattr(owner, name)
        counts[full] = 0

        def call(*arguments: Any, **options: Any) -> Any:
            counts[full] += 1
            return function(*arguments, **options)

        setattr(owner, name, call)

    for name, value in list(vars(_native).items()):
        if isinstance(value, type):
            for member, what in list(vars(value).items()):
                if member == "__init__" or (not member.startswith("_") and not isinstance(what, property)):
                    wrap(value, member, f"{name}.{member}")
        elif isinstance(value, (types.BuiltinFunctionType, types.BuiltinMethodType)):
            wrap(_native, name, name)


def results(call: Callable[..., Any], arguments: dict[str, Any], plain: bool) -> list[Any]:
    """What a call returns, and the gradients of its arguments; by plain PyTorch where `plain`."""
    for name in VARIABLES:
        os.environ.pop(name, None)
        if plain:
            os.environ[name] = "reference"
    given = copy.deepcopy(arguments)
    torch.manual_seed(0)
    found = call(**given)
    found = [x for x in found if x is not None] if isinstance(found, (tuple, list)) else [found]
    wanted = [x for x in found if isinstance(x, Tensor) and x.requires_grad]
    leaves = [x for x in _leaves(given) if isinstance(x, Tensor) and x.requires_grad and x.is_leaf]
    if wanted and leaves:
        sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in wanted).backward()
        found += [x.grad for x in leaves]
    return [x.detach() if isinstance(x, Tensor) else x for x in found]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, torch.nn.Module):
        return list(value.parameters())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, (list, tuple)) else [value]


def require_agreement(found: list[Any], expected: list[Any], arguments: dict[str, Any]) -> None:
    """Raises AssertionError where results differ by more than rounding could, of half precision if any argument is."""
    given = _leaves(arguments)
    factor = max((abs(x) for x in given if isinstance(x, (int, float)) and math.isfinite(x)), default=0.0)
    halved = any(isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) for x in given)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.is_meta:
            continue
        x, y = one.to_dense(), other.to_dense()
        assert x.shape == y.shape, f"shapes {tuple(x.shape)} and, plain, {tuple(y.shape)}"
        half = halved or min(torch.finfo(z.dtype).bits if z.is_floating_point() else 64 for z in (x, y)) < 32
        rounding = max(torch.finfo(z.dtype).eps if z.is_floating_point() else 0.0 for z in (x, y))
        x, y = x.double(), y.double()
        bound = (0.25 if half else 0.01) * (1 + (y.nan_to_num(0, 0, 0).abs().amax().item() if y.numel() else 0.0))
        bound += 100 * rounding * factor
        close = torch.isclose(x, y, rtol=0.0, atol=bound, equal_nan=True)
        assert close.all(), f"results differ from the plain ones: {x[~close][:3].tolist()} and {y[~close][:3].tolist()}"


def run(case: Case, draw: Draw, spoil: bool) -> tuple[dict[str, Any], str]:
    """Makes one call; returns its arguments, and what is wrong with what came of it, or "" where nothing is."""
    for name in VARIABLES:  # what a case makes is not made of plain PyTorch because the call before was
        os.environ.pop(name, None)
    call, arguments, plain = case(draw)
    if spoil and arguments:
        for _ in range(draw.size(1, 1, 1, 2)):
            name = draw.random.choice(list(arguments))
            arguments = {**arguments, name: draw.spoiled(arguments[name])}
    BREADCRUMB(f"{call.__name__} {describe(arguments)}")
    try:
        found = results(call, arguments, plain=False)
    except SENTENCES as error:
        if not spoil or not str(error) or any(words in str(error) for words in NO_SENTENCE):
            return arguments, f"{type(error).__name__}: {error}"
        return arguments, ""
    except Exception as error:
        # Parts that stand behind the faces take no lists or numbers for tensors, and say so in Python's words.
        inside = isinstance(error, AttributeError) and call.__module__ not in FACES
        return arguments, "" if spoil and inside else f"{type(error).__name__}: {error}"
    if plain:
        try:
            require_agreement(found, results(call, arguments, plain=True), arguments)
        except AssertionError as error:
            return arguments, str(error)
        except Exception as error:
            return arguments, f"native code ran where the plain form says {type(error).__name__}: {error}"
    return arguments, ""


def describe(value: Any) -> str:
    """Arguments in words."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {describe(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)) and len(value) < 20:
        return "[" + ", ".join(map(describe, value)) + "]"
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return f"tensor({value.dtype} {tuple(value.shape)} strides {value.stride()} {value.device})"
    if isinstance(value, np.ndarray):
        return f"array({value.dtype} {value.shape} strides {value.strides})"
    return repr(value)[:200]


BREADCRUMB: Callable[[str], None] = lambda text: None  # noqa: E731 - replaced where a file is given


def main() -> None:
    global BREADCRUMB  # noqa: PLW0603
    from native_fuzz_calls import CASES
    from native_fuzz_replay import REPLAY_CASES
    from native_fuzz_xgrid import XGRID_CASES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one draw of this seed")
    parser.add_argument("--case", default="", help="draws of cases whose name holds one of these texts alone, a,b,...")
    parser.add_argument("--now", type=Path, help="a file that always names the draw that runs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    faulthandler.enable()
    torch.set_num_threads(2)
    counts: dict[str, int] = {}
    counted(counts)
    texts = options.case.split(",")
    cases = [case for case in (*CASES, *REPLAY_CASES, *XGRID_CASES) if any(each in case.__name__ for each in texts)]
    started, number, wrong = time.monotonic(), 0, []
    turns = TURNS * len(cases)
    while options.only is not None or number < turns or time.monotonic() < started + options.seconds:
        number = number if options.only is None else options.only
        draw = Draw(options.seed, number, number // len(cases))
        first = number < turns
        case = cases[number % len(cases)]
        where = f"--seed {options.seed} --only {number}: {case.__name__}"
        if options.now:
            BREADCRUMB = lambda text, where=where: options.now.write_text(f"{where}: {text}\n", "utf-8")  # noqa: E731
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        arguments, fault = run(case, draw, spoil=not first and draw.random.random() < 0.7)
        faulthandler.cancel_dump_traceback_later()
        if fault:
            wrong.append(case.__name__)
            print(f"{where}: {describe(arguments)}\n  {fault}", file=sys.stderr)
        number += 1
        if options.only is not None or len(wrong) >= 20:
            break
    print(json.dumps({"draws": number, "calls": counts}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
