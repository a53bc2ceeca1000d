"""The Triton kernels of attention compile for every target, spill nothing, use tensor cores, and take what
bench/results/kernels.csv says.

Every kernel, and every kind of product on every target that has its own: `python -m bench.aot --check` compiles all.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch

COMPILED = {
    "D=64 bf16 forward of windows": ("sm_90", "gfx942"),
    "D=32 bf16 query of windows with everything": ("sm_80", "sm_100"),
    "D=64 tf32 key of windows": ("sm_90", "gfx942"),
    "D=16 fp32 key of windows": ("sm_80", "gfx942"),
    "D=32 bf16 forward of windows of 16 steps": ("sm_80", "gfx942"),
    "D=32 bf16 step": ("sm_100", "gfx942"),
    "D=32 bf16 step in one part": ("sm_90",),
}
PAIRS = [(configuration, target) for configuration, targets in COMPILED.items() for target in targets]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the development environment has Triton on Linux alone"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]


@pytest.fixture(scope="module")
def aot(tmp_path_factory) -> Iterator[ModuleType]:
    """The module bench.aot, with a compiler's cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield importlib.import_module("bench.aot")


if sys.platform == "linux":
    from twohot.kernels.attention import decode_kernel


@pytest.mark.parametrize(("configuration", "target"), PAIRS)
def test_compiles_without_spills_as_the_results_say(aot, configuration: str, target: str) -> None:
    row = aot.measure(configuration, aot.cases()[configuration], target)
    assert row.spills == 0
    assert row.shared_bytes <= aot.ATTENTION_SHARED_LIMITS[target]
    windows = "of windows" in configuration
    assert (row.tensor_instructions > 0) == (windows and ("fp32" not in configuration or target == "gfx942"))
    (written,) = [old for old in aot.committed() if (old.configuration, old.target) == (configuration, target)]
    if row.triton == written.triton:
        assert row == written, "run: python -m bench.aot"


def test_a_short_window_has_a_block_of_its_own_length(aot) -> None:
    taken = {}
    for steps in (1, 16, 17, 64, 65, 4096):
        with aot.recorded(aot.TARGETS["sm_90"]) as launches:
            aot.window("forward", 32, torch.bfloat16, "ieee", False, steps)
        (launch,) = launches
        taken[steps] = (launch.arguments["BLOCK_M"], launch.arguments["BLOCK_N"], launch.options["num_warps"])
    longest = taken[4096]
    assert taken == {1: (16, 16, 1), 16: (16, 16, 1), 17: (32, 32, 1), 64: (64, 64, 4), 65: longest, 4096: longest}


def test_a_step_in_one_part_is_joined_by_no_other_kernel(aot) -> None:
    for environments, parts in ((16, 8), (127, 1), (256, 1)):
        with aot.recorded(aot.TARGETS["sm_90"]) as launches:
            q, k, ring = (
                torch.empty(environments, *shape, device="meta") for shape in ((8, 16), (2, 16), (2, 1024, 16))
            )
            options = {"out": q, "sinks": 0, "softcap": 0.0, "scale": 1.0}
            position = torch.empty(environments, dtype=torch.int64, device="meta")
            decode_kernel.launch_decode(q, k, k, ring, ring, position, (None, None), **options)
        assert [launch.kernel.__name__ for launch in launches] == ["decode_kernel", "join_kernel"][: 1 + (parts > 1)]
        assert (launches[0].arguments["p_out"] is q) == (parts == 1)


def test_windows_without_tensor_instructions_and_too_much_shared_memory_are_seen(aot) -> None:
    (good,) = [row for row in aot.committed() if (row.configuration, row.target) == PAIRS[1]]
    assert aot.faults([good]) == []
    (idle,) = aot.faults([replace(good, tensor_instructions=0)])
    assert "multiplies no matrices on gfx942" in idle
    (shared,) = aot.faults([replace(good, shared_bytes=65537)])
    assert "takes 65537 bytes of shared memory on gfx942, more than 65536" in shared
