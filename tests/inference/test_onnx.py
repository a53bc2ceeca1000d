"""ONNX Runtime acts as the agent does; where its packages are installed, as `make bench` does."""

import pytest

from bench.cases.onnx_parity import largest_difference
from exported_agents import CASES, make

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", CASES)
def test_its_actions_are_ours_over_cached_steps(name, tmp_path):
    assert largest_difference(make(*CASES[name]), tmp_path / "policy.onnx", steps=200) < 1e-5
