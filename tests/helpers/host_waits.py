"""Where code would wait for a GPU, found without one: on tensors of the device "meta", which have no data."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from twohot.kernels import backend
from twohot.kernels.attention import decode_kernel, kernel
from twohot.kernels.two_hot import launchers

PACKAGE = Path(backend.__file__).parents[1]
READ = {"_local_scalar_dense", "equal", "is_nonzero"}
"""Operations whose result the host reads."""
SIZED = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"}
"""Operations whose result has a size that depends on data."""
CHECKED = {"multinomial", "normal"}
"""Operations that look at their arguments."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that wait where an index is a mask."""
MOVED = {"_to_copy", "copy_"}
"""Operations that wait where they move between devices, but from page-locked memory."""
MADE = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
"""What makes tensors out of the host's numbers, which are copied."""


class Waits(TorchDispatchMode):
    """Lists in `found` what the host would wait for: "<operation> in <file of the package>, <function>".

    A bool that is read counts as True, other numbers as 0, and a mask as one that chooses every row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def add(self, operation: str) -> None:
        """List an operation, at the innermost place of the package that calls it."""
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(f"{PACKAGE}/")]
        where = f" in {Path(frames[-1].filename).relative_to(PACKAGE)}, {frames[-1].name}" if frames else ""
        self.found.append(operation + where)

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, function._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        devices = {x.device for x in tensors} | {x for x in (kwargs.get("device"),) if x is not None}
        if name in MOVED and len(devices) > 1:
            self.add(name)
            made = {key: kwargs[key] for key in ("dtype", "device") if kwargs.get(key) is not None}
            return args[0] if name == "copy_" else torch.zeros(args[0].shape, **{"dtype": args[0].dtype, **made})
        if not any(x.is_meta for x in tensors):
            return function(*args, **kwargs)
        mask = next((x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor) and x.dtype == torch.bool), None)
        if name in INDEXED and mask is not None:
            self.add(f"{name} by a mask")
            return args[0].flatten(0, mask.dim() - 1) if name == "index" else args[0]
        if name in READ | SIZED | CHECKED:
            self.add(name)
        if name in READ:
            return name != "_local_scalar_dense" or torch.zeros((), dtype=args[0].dtype).logical_not().item()
        if name == "nonzero":
            return args[0].new_empty(args[0].numel(), args[0].dim(), dtype=torch.int64)
        return function(*args, **kwargs)


class _Made(TorchFunctionMode):
    """Adds tensors made of numbers: the dispatcher does not see these."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = function(*args, **(kwargs or {}))
        numbers = args[-1] if function is Tensor.new_tensor else args[0] if args else None
        if function in MADE and out.is_meta and not isinstance(numbers, Tensor):
            self.waits.add(function.__name__)
        return out


@contextmanager
def waits_on_a_gpu() -> Iterator[list[str]]:
    """Within, "meta" is a GPU: what runs there runs, kernels are launched to no effect, and waits are listed."""
    waits, autocast = Waits(), torch.autocast
    optimizer = importlib.import_module("torch.optim.optimizer")
    reasons = {"meta": ""}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backend, "_triton_unsupported_reason", lambda what, device, _: reasons.get(device, f"on {device}")
        )
        patch.setattr(backend, "dispatch_mode_count", lambda: 0)
        for module in (launchers, kernel, decode_kernel):
            patch.setattr(module, "launch", lambda *_, **__: None)
        patch.setattr(
            torch, "autocast", lambda kind, *_, **__: nullcontext() if kind == "meta" else autocast(kind, *_, **__)
        )
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
        backend._choose.cache_clear()
        try:
            with waits, _Made(waits):
                yield waits.found
        finally:
            backend._choose.cache_clear()
