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

COMPILED = {
    "D=64 bf16 forward of windows": ("sm_90", "gfx942"),
    "D=32 bf16 query of windows with everything": ("sm_80", "sm_100"),
    "D=64 tf32 key of windows": ("sm_90", "gfx942"),
    "D=16 fp32 key of windows": ("sm_80", "gfx942"),
    "D=32 bf16 step": ("sm_100", "gfx942"),
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


@pytest.mark.parametrize(("configuration", "target"), PAIRS)
def test_compiles_without_spills_as_the_results_say(aot, configuration: str, target: str) -> None:
    row = aot.measure(configuration, aot.cases()[configuration], target)
    assert row.spills == 0
    assert row.shared_bytes <= aot.ATTENTION_SHARED_LIMITS[target]
    exact_or_step = "fp32" in configuration or "step" in configuration
    assert (row.tensor_instructions > 0) == (not exact_or_step or (target == "gfx942" and "step" not in configuration))
    (written,) = [old for old in aot.committed() if (old.configuration, old.target) == (configuration, target)]
    if row.triton == written.triton:
        assert row == written, "run: python -m bench.aot"


def test_windows_without_tensor_instructions_and_too_much_shared_memory_are_seen(aot) -> None:
    (good,) = [row for row in aot.committed() if (row.configuration, row.target) == PAIRS[1]]
    assert aot.faults([good]) == []
    (idle,) = aot.faults([replace(good, tensor_instructions=0)])
    assert "multiplies no matrices on gfx942" in idle
    (shared,) = aot.faults([replace(good, shared_bytes=65537)])
    assert "takes 65537 bytes of shared memory on gfx942, more than 65536" in shared
