"""Compile every Triton kernel ahead of time, without a GPU, and write what it takes to bench/results/kernels.csv.

    python bench/aot.py            # every kernel, configuration and target; a few minutes on two cores
    python bench/aot.py --check    # compare with the committed file instead of writing it

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
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from twohot.kernels.two_hot import kernel

RESULTS = Path(__file__).resolve().parent / "results" / "kernels.csv"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# With 4 KiB for each 128 threads, shared memory never bounds how many programs a multiprocessor holds.
SHARED_LIMIT = 4096
ROWS = 1 << 16
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.bool: "i1"}
KERNELS = (kernel.cross_entropy_kernel, kernel.expectation_kernel, kernel.scale_kernel)


@dataclass(frozen=True)
class Launch:
    """What a launcher would launch: a kernel, its arguments by name, and the compiler's options."""

    kernel: triton.JITFunction
    arguments: dict
    options: dict


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes of a multiprocessor; registers are those of a thread, shared memory of a program.

    `spills` counts bytes of local memory and stack on NVIDIA, spilled vector and scalar registers on AMD.
    """

    kernel: str
    configuration: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    warps: int
    rows_per_program: int
    triton: str


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def cross_entropy(bins: int, dtype: torch.dtype, *, sigma: float = 0.0, readout: str = "", transform: str = "symlog"):
    """Loss and gradient of masked, weighted rows, four to a target, with a scale; and the readout that is named."""
    kernel.launch_cross_entropy(
        meta(ROWS, bins, dtype=dtype),
        meta(ROWS // 4),
        meta(ROWS // 4, dtype=torch.bool),
        meta(ROWS),
        meta(()),
        low=-10.0,
        high=10.0,
        transform=transform,
        sigma=sigma,
        readout_kind=readout,
        loss=meta(ROWS),
        readout=meta(ROWS) if readout else None,
        gradient=meta(ROWS, bins, dtype=dtype),
    )


def expectation(bins: int, dtype: torch.dtype, *, kind: str, low: float = -10.0, gradient: bool = False) -> None:
    kernel.launch_expectation(
        meta(ROWS, bins, dtype=dtype),
        low=low,
        high=10.0,
        transform="symlog",
        readout_kind=kind,
        readout=None if gradient else meta(ROWS),
        upstream=meta(ROWS) if gradient else None,
        gradient=meta(ROWS, bins, dtype=dtype) if gradient else None,
    )


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
                f"{name} HL-Gauss gradient": lambda b=bins, d=dtype: cross_entropy(b, d, sigma=0.75),
                f"{name} readout={raw}": lambda b=bins, d=dtype, r=raw: expectation(b, d, kind=r),
                f"{name} readout={raw} asymmetric": lambda b=bins, d=dtype, r=raw: expectation(b, d, kind=r, low=-5.0),
                f"{name} gradient of readout={raw}": lambda b=bins, d=dtype, r=raw: expectation(
                    b, d, kind=r, gradient=True
                ),
            }
        found[f"{DTYPES[dtype]} scale"] = lambda d=dtype: kernel.launch_scale(meta(ROWS, 128, dtype=d), meta(()))
    found["N=2 fp32 two-hot gradient readout=transformed symlog"] = lambda: cross_entropy(
        2, torch.float32, readout="transformed"
    )
    found["N=4096 fp32 HL-Gauss of 100 bins gradient"] = lambda: cross_entropy(4096, torch.float32, sigma=100.0)
    return found


@contextmanager
def recorded(target: GPUTarget) -> Iterator[list[Launch]]:
    """Within, launchers launch nothing: they choose for `target`, and what they chose is put into the list."""
    launches: list[Launch] = []

    def recorder(which: triton.JITFunction) -> Callable[..., None]:
        def run(*, grid, warmup, num_warps, enable_fp_fusion, **arguments) -> None:
            options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
            launches.append(Launch(which, arguments, options))

        return run

    with patch.object(kernel, "wave_size", lambda: target.warp_size):
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
        rows_per_program=launch.arguments.get("BLOCK_R", 0),
        triton=triton.__version__,
    )


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
    return found + [
        f"{row.kernel} ({row.configuration}) takes {row.shared_bytes} bytes of shared memory on {row.target}, "
        f"more than {SHARED_LIMIT}"
        for row in rows
        if row.shared_bytes > SHARED_LIMIT
    ]


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
