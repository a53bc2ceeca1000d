"""Compile every Triton kernel ahead of time, without a GPU, and write what it takes to bench/results/kernels.csv.

    python -m bench.aot            # every kernel, configuration and target; a few minutes on two cores
    python -m bench.aot --check    # compare with the committed file instead of writing it

A kernel is compiled in the very configuration that its launcher chooses: the launcher is called with tensors that have
shapes and no memory, and what it would launch is recorded. The exit code is 1 where a kernel spills registers, takes
more than SHARED_LIMIT bytes of shared memory, or where --check finds a difference.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from twohot.kernels.attention import decode_kernel, tiles
from twohot.kernels.attention import kernel as attention_kernel
from twohot.kernels.backend import TRITON_FLOAT32_HEAD_SIZE
from twohot.kernels.two_hot import kernel, launchers

RESULTS = Path(__file__).resolve().parent / "results" / "kernels.csv"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# With 4 KiB for each 128 threads, shared memory never bounds how many programs a multiprocessor holds.
SHARED_LIMIT = 4096
# Attention lives in shared memory: one program has what a multiprocessor gives to one.
ATTENTION_SHARED_LIMITS = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
TENSOR_INSTRUCTIONS = {"cuda": r"\b(HMMA|HGMMA|QGMMA|UTCHMMA|UTCQMMA)\b", "hip": r"\bv_mfma_"}
ROWS = 1 << 16
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.bool: "i1", torch.int64: "i64"}
ATTENTION = (
    attention_kernel.forward_kernel,
    attention_kernel.query_gradient_kernel,
    attention_kernel.key_gradient_kernel,
    decode_kernel.decode_kernel,
    decode_kernel.join_kernel,
)
WINDOW_KERNELS = ("forward", "query", "key")
KERNELS = (kernel.cross_entropy_kernel, kernel.expectation_kernel, kernel.scale_kernel, *ATTENTION)


@dataclass(frozen=True)
class Launch:
    """What a launcher would launch: a kernel, its arguments by name, and the compiler's options."""

    kernel: triton.JITFunction
    arguments: dict
    options: dict


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes of a multiprocessor; registers are those of a thread, shared memory of a program.

    `spills` counts bytes of local memory and stack on NVIDIA, spilled vector and scalar registers on AMD;
    `tensor_instructions` those that multiply matrices.
    """

    kernel: str
    configuration: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    warps: int
    rows_per_program: int
    tensor_instructions: int
    triton: str


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def cross_entropy(
    bins: int,
    dtype: torch.dtype,
    *,
    labels: str = "two_hot",
    sigma: float = 0.0,
    readout: str = "",
    transform: str = "symlog",
):
    """Loss and gradient of masked, weighted rows, four to a target, with a scale; and the readout that is named."""
    launchers.launch_cross_entropy(
        meta(ROWS, bins, dtype=dtype),
        meta(ROWS // 4),
        meta(ROWS // 4, dtype=torch.bool),
        meta(ROWS),
        meta(()),
        low=-10.0,
        high=10.0,
        transform=transform,
        labels=labels,
        sigma=sigma,
        readout_kind=readout,
        loss=meta(ROWS),
        readout=meta(ROWS) if readout else None,
        gradient=meta(ROWS, bins, dtype=dtype),
    )


def expectation(bins: int, dtype: torch.dtype, *, kind: str, low: float = -10.0, gradient: bool = False) -> None:
    launchers.launch_expectation(
        meta(ROWS, bins, dtype=dtype),
        low=low,
        high=10.0,
        transform="symlog",
        readout_kind=kind,
        readout=None if gradient else meta(ROWS),
        grad_output=meta(ROWS) if gradient else None,
        gradient=meta(ROWS, bins, dtype=dtype) if gradient else None,
    )


def window(which: str, size: int, dtype: torch.dtype, precision: str, rich: bool, steps: int = 256) -> None:
    """One kernel of attention over windows; `rich`: lengths, a window with sinks, softcap and rotation."""
    q, k = meta(4, steps, 8, size, dtype=dtype), meta(4, steps, 2, size, dtype=dtype)
    lse, angle = meta(4, 8, steps), meta(steps, size // 2)
    inputs = (q, k, k, meta(4, dtype=torch.int64) if rich else None, (angle, angle) if rich else (None, None))
    options = {"precision": precision, "scale": 0.125, "lse": lse, "softcap": 5.0 if rich else 0.0}
    options |= {"window": 100 if rich else 0, "sinks": 4 if rich else 0}
    if which == "forward":
        attention_kernel.launch_forward(*inputs, out=q, **options)
    elif which == "query":
        attention_kernel.launch_query_gradient(*inputs, out=q, grad_output=q, delta=lse, dq=q, **options)
    else:
        attention_kernel.launch_key_gradient(*inputs, grad_output=q, delta=lse, dk=k, dv=k, **options)


def decode(size: int, dtype: torch.dtype, environments: int = 16) -> None:
    q, k = meta(environments, 8, size), meta(environments, 2, size)
    ring = meta(environments, 2, 1024, size, dtype=dtype)
    angle, cache_position = meta(environments, size // 2), meta(environments, dtype=torch.int64)
    options = {"out": q, "sinks": 4, "softcap": 5.0, "scale": 0.125}
    with patch.object(decode_kernel, "launch_join"):
        decode_kernel.launch_decode(q, k, k, ring, ring, cache_position, (angle, angle), **options)


def attention_cases() -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {}
    kinds = {"bf16": (torch.bfloat16, "ieee"), "fp32": (torch.float32, "ieee"), "tf32": (torch.float32, "tf32")}
    for (size, steps), which in product(((32, 16), (64, 64)), WINDOW_KERNELS):
        name = f"D={size} bf16 {which} of windows of {steps} steps"
        found[name] = partial(window, which, size, *kinds["bf16"], False, steps)
    for size in (16, 32, 64, 128, 256):
        for kind, (dtype, precision) in kinds.items():
            if size > TRITON_FLOAT32_HEAD_SIZE and dtype == torch.float32:
                continue
            for which in WINDOW_KERNELS:
                for rich in (False, True):
                    name = f"D={size} {kind} {which} of windows" + " with everything" * rich
                    found[name] = partial(window, which, size, dtype, precision, rich)
        for dtype in (torch.float32, torch.bfloat16):
            found[f"D={size} {DTYPES[dtype]} step"] = partial(decode, size, dtype)
            found[f"D={size} {DTYPES[dtype]} step in one part"] = partial(decode, size, dtype, 256)
        parts = meta(128, 8, size), meta(128, 8), meta(128, 8), meta(16, 8, size)
        found[f"D={size} fp32 join of a step's parts"] = partial(decode_kernel.launch_join, *parts)
    return found


def cases() -> dict[str, Callable[[], None]]:
    """Calls of launchers by the name of their configuration."""
    found: dict[str, Callable[[], None]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for bins in (101, 128, 255, 601, 4096):
            name = f"N={bins} {DTYPES[dtype]}"
            raw = "raw" if bins in (255, 4096) else "transformed"
            space = "signed_sqrt" if bins == 601 else "symlog"
            found |= {
                f"{name} two-hot gradient readout={raw} {space}": lambda b=bins, d=dtype, r=raw, s=space: cross_entropy(
                    b, d, readout=r, transform=s
                ),
                f"{name} HL-Gauss gradient": lambda b=bins, d=dtype: cross_entropy(b, d, labels="hl_gauss", sigma=0.75),
                f"{name} readout={raw}": lambda b=bins, d=dtype, r=raw: expectation(b, d, kind=r),
                f"{name} readout={raw} asymmetric": lambda b=bins, d=dtype, r=raw: expectation(b, d, kind=r, low=-5.0),
                f"{name} gradient of readout={raw}": lambda b=bins, d=dtype, r=raw: expectation(
                    b, d, kind=r, gradient=True
                ),
            }
        found[f"{DTYPES[dtype]} scale"] = lambda d=dtype: launchers.launch_scale(meta(ROWS, 128, dtype=d), meta(()))
    found["N=2 fp32 two-hot gradient readout=transformed symlog"] = lambda: cross_entropy(
        2, torch.float32, readout="transformed"
    )
    found["N=4096 fp32 HL-Gauss of 100 bins gradient"] = lambda: cross_entropy(
        4096, torch.float32, labels="hl_gauss", sigma=100.0
    )
    return found | attention_cases()


@contextmanager
def recorded(target: GPUTarget) -> Iterator[list[Launch]]:
    """Within, launchers launch nothing: they choose for `target`, and what they chose is put into the list."""
    launches: list[Launch] = []

    def recorder(which: triton.JITFunction) -> Callable[..., None]:
        def run(*, grid, warmup, **arguments) -> None:
            names = [name for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in arguments]
            options = {name: arguments.pop(name) for name in names}
            launches.append(Launch(which, arguments, options))

        return run

    with ExitStack() as stack:
        for module in (launchers, tiles):
            stack.enter_context(patch.object(module, "wave_size", lambda: target.warp_size))
        patches = [patch.object(which, "run", recorder(which)) for which in KERNELS]
        for each in patches:
            each.start()
        try:
            yield launches
        finally:
            for each in patches:
                each.stop()


def compile_launch(launch: Launch, target: GPUTarget) -> triton.compiler.CompiledKernel:
    """A launch compiled for a target, as it would be at run time with memory that torch allocated."""
    signature, values, hints = {}, {}, {}
    for index, param in enumerate(launch.kernel.params):
        name, value = param.name, launch.arguments[param.name]
        if param.is_constexpr or value is None:
            signature[name], values[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = f"*{DTYPES[value.dtype]}"
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0 and not param.do_not_specialize):
            hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, values, hints)
    return triton.compile(source, target=target, options=launch.options)


def measure(configuration: str, call: Callable[[], None], target_name: str) -> Resources:
    """Compile what a launcher launches for a target, and read what it takes out of the compiled object."""
    target = TARGETS[target_name]
    with recorded(target) as launches:
        call()
    (launch,) = launches
    compiled = compile_launch(launch, target)
    registers, spills, shared = (cuda_resources if target.backend == "cuda" else amd_resources)(compiled)
    return Resources(
        kernel=launch.kernel.__name__,
        configuration=configuration,
        target=target_name,
        registers=registers,
        spills=spills,
        shared_bytes=max(shared, compiled.metadata.shared),
        warps=launch.options["num_warps"],
        rows_per_program=launch.arguments.get("BLOCK_R", launch.arguments.get("BLOCK_M", 0)),
        tensor_instructions=tensor_instructions(compiled, target.backend),
        triton=triton.__version__,
    )


def tensor_instructions(compiled: triton.compiler.CompiledKernel, backend: str) -> int:
    """How many instructions of the machine code multiply matrices."""
    text = compiled.asm["amdgcn"] if backend == "hip" else disassembled(compiled)
    return len(re.findall(TENSOR_INSTRUCTIONS[backend], text))


def disassembled(compiled: triton.compiler.CompiledKernel) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cuda_resources(compiled: triton.compiler.CompiledKernel) -> tuple[int, int, int]:
    """Registers, bytes of stack and local memory, and of shared memory that the kernel asks for, out of its cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text).groups())
    return registers, stack + local, compiled.metadata.shared


def amd_resources(compiled: triton.compiler.CompiledKernel) -> tuple[int, int, int]:
    """Vector registers, spilled registers and bytes of scratch, and of shared memory, out of the object's notes."""
    notes = dict(re.findall(r"\.(\w+):\s+(\d+)\n", compiled.asm["amdgcn"]))
    spills = sum(int(notes[name]) for name in ("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"))
    return int(notes["vgpr_count"]), spills, int(notes["group_segment_fixed_size"])


def faults(rows: list[Resources]) -> list[str]:
    """What is wrong with some kernels, a sentence each."""
    found = [f"{row.kernel} ({row.configuration}) spills {row.spills} on {row.target}" for row in rows if row.spills]
    found += [
        f"{row.kernel} ({row.configuration}) takes {row.shared_bytes} bytes of shared memory on {row.target}, "
        f"more than {shared_limit(row)}"
        for row in rows
        if row.shared_bytes > shared_limit(row)
    ]
    return found + [
        f"{row.kernel} ({row.configuration}) multiplies no matrices on {row.target}"
        for row in rows
        if multiplies_matrices(row) and not row.tensor_instructions
    ]


def shared_limit(row: Resources) -> int:
    """Bytes that a program may take."""
    windows = any(row.kernel == each.__name__ for each in ATTENTION)
    return ATTENTION_SHARED_LIMITS[row.target] if windows else SHARED_LIMIT


def multiplies_matrices(row: Resources) -> bool:
    """Whether tensor cores should work: on windows, but for float32 in its own precision on NVIDIA."""
    return "of windows" in row.configuration and (" fp32 " not in row.configuration or row.target == "gfx942")


def committed() -> list[Resources]:
    """The rows of bench/results/kernels.csv."""
    kinds = {field.name: int if field.type == "int" else str for field in fields(Resources)}
    with RESULTS.open(newline="") as file:
        return [Resources(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, TRITON_CACHE_DIR=cache):
        for configuration, call in cases().items():
            for target in TARGETS:
                rows.append(measure(configuration, call, target))
                print(f"  {rows[-1]}", flush=True)
    found = faults(rows)
    if options.check:
        found += [f"differs from {RESULTS.name}: {row}" for row in rows if row not in committed()]
    else:
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Resources)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    print("\n".join(found) or f"no spills; at most {max(row.shared_bytes for row in rows)} bytes of shared memory")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
