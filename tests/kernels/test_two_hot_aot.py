"""The Triton kernels compile for every target, spill nothing, and take what bench/results/kernels.csv says.

Every kernel on every backend and every target with some: `python -m bench.aot --check` compiles all.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest
import torch

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
COMPILED = {
    "N=128 fp32 two-hot gradient readout=transformed symlog": ("sm_80", "gfx942"),
    "N=255 bf16 two-hot gradient readout=raw symlog": ("sm_90",),
    "N=101 fp32 HL-Gauss gradient": ("sm_100", "gfx942"),
    "N=601 bf16 readout=transformed": ("sm_90", "gfx942"),
    "N=4096 fp32 gradient of readout=raw": ("sm_100",),
    "bf16 scale": ("sm_80", "gfx942"),
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


def recorded(aot: ModuleType, configuration: str, target: str):
    """What the launcher of a configuration would launch on a target."""
    with aot.recorded(aot.TARGETS[target]) as launches:
        aot.cases()[configuration]()
    (launch,) = launches
    return launch


@pytest.mark.parametrize(("configuration", "target"), PAIRS)
def test_compiles_without_spills_as_the_results_say(aot, configuration: str, target: str) -> None:
    row = aot.measure(configuration, aot.cases()[configuration], target)
    assert row.spills == 0
    assert row.shared_bytes <= aot.SHARED_LIMIT
    assert 0 < row.registers < 256
    (written,) = [old for old in aot.committed() if (old.configuration, old.target) == (configuration, target)]
    if row.triton == written.triton:
        assert row == written, "run: python -m bench.aot"


@pytest.mark.parametrize(
    ("target", "dtype"), list(zip(TARGETS, 2 * (torch.float32, torch.bfloat16), strict=True)), ids=TARGETS
)
def test_raw_labels_compile_without_spills(aot, target: str, dtype: torch.dtype) -> None:
    """DreamerV3's of 2024."""
    call = partial(aot.cross_entropy, 255, dtype, labels="two_hot_raw", readout="raw")
    with aot.recorded(aot.TARGETS[target]) as launches:
        call()
    assert launches[0].arguments["LABELS"] == "two_hot_raw"
    assert aot.faults([aot.measure(str(dtype), call, target)]) == []


def test_the_results_name_every_kernel_configuration_and_target(aot) -> None:
    rows = aot.committed()
    assert tuple(aot.TARGETS) == TARGETS
    assert sorted((row.configuration, row.target) for row in rows) == sorted(
        (configuration, target) for configuration in aot.cases() for target in TARGETS
    )
    pairs = {(row.kernel, row.target) for row in rows}
    assert pairs == {(kernel.__name__, target) for kernel in aot.KERNELS for target in TARGETS}
    assert aot.faults(rows) == []


def test_spills_and_shared_memory_are_seen(aot) -> None:
    launch = recorded(aot, "N=128 fp32 readout=transformed asymmetric", "sm_90")
    swollen = replace(launch, arguments={**launch.arguments, "BLOCK_R": 8 * launch.arguments["BLOCK_R"]})
    registers, spills, _ = aot.cuda_resources(aot.compile_launch(swollen, aot.TARGETS["sm_90"]))
    assert registers == 255
    assert spills > 0
    notes = "  .vgpr_count:     33\n  .vgpr_spill_count: 2\n  .sgpr_spill_count: 3\n"
    notes += "  .private_segment_fixed_size: 16\n  .group_segment_fixed_size: 640\n"
    assert aot.amd_resources(SimpleNamespace(asm={"amdgcn": notes})) == (33, 21, 640)
    good = aot.committed()[0]
    (spill,) = aot.faults([good, replace(good, spills=4)])
    assert "spills 4 on sm_80" in spill
    (shared,) = aot.faults([good, replace(good, shared_bytes=aot.SHARED_LIMIT + 1)])
    assert "takes 4097 bytes of shared memory" in shared


@pytest.mark.parametrize("configuration", COMPILED)
def test_offsets_have_64_bits_before_any_stride(aot, configuration: str) -> None:
    """More than 2^31 elements: the number of a program is widened before anything else is done with it."""
    target = COMPILED[configuration][0]
    code = aot.compile_launch(recorded(aot, configuration, target), aot.TARGETS[target]).asm["ttir"]
    code = re.sub(r" loc\(.*\)$", "", code, flags=re.MULTILINE)
    numbers = re.findall(r"(%\w+) = tt\.get_program_id", code)
    assert numbers
    for number in numbers:
        uses = [line.strip() for line in code.splitlines() if re.search(re.escape(number) + r"\b", line)][1:]
        assert uses
        assert all(re.fullmatch(rf"%\w+ = arith\.extsi {number} : i32 to i64", use) for use in uses), uses


def test_a_launch_depends_on_the_width_of_a_wave(aot) -> None:
    narrow = recorded(aot, "N=128 fp32 HL-Gauss gradient", "sm_80").arguments["BLOCK_R"]
    assert recorded(aot, "N=128 fp32 HL-Gauss gradient", "gfx942").arguments["BLOCK_R"] == 2 * narrow
