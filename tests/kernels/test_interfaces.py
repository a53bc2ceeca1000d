"""No interface of torch or Triton that the sources use is missing of the versions that are installed."""

from __future__ import annotations

import sys

import pytest

from bench import api_check
from bench.api_check import Installation, Use

if sys.platform != "linux":
    pytest.skip("the development environment has Triton on Linux alone", allow_module_level=True)


@pytest.fixture(scope="module")
def installation() -> Installation:
    return api_check.installed()


def test_nothing_that_is_used_is_missing(installation) -> None:
    assert api_check.missing(installation) == {}


def test_what_is_missing_is_named(installation) -> None:
    for name, keywords, lacking in (
        ("torch.float33", (), "torch.float33"),
        ("torch.nn.functional.padd", (), "torch.nn.functional.padd"),
        ("torch.optim.Adam.step", (), ""),
        ("torch.Tensor.scatterr_", (), "torch.Tensor.scatterr_"),
        ("torch.nn.utils.parameters_to_vector", ("parameters",), ""),
        ("torch.nn.utils.parameters_to_vector", ("things",), "torch.nn.utils.parameters_to_vector(things=)"),
        ("triton.language.dott", (), "triton.language.dott"),
        ("triton.language.dot", ("input_precision",), ""),
        ("triton.compiler.ASTSources", (), "triton.compiler.ASTSources"),
    ):
        assert installation.lacks(Use(name, keywords, "here")) == lacking


def test_names_are_followed_through_imports_and_methods(tmp_path) -> None:
    path = tmp_path / "ours.py"
    path.write_text(
        "import torch.nn as nn, triton\nfrom torch import Tensor, float32 as f\nfrom triton import language as tl\n"
        "nn.Linear(1, bias=True).eval()\ntl.dot(a)\ntriton.cdiv(a.b)\nf.itemsize\n"
    )
    found = {(use.name, use.keywords) for use in api_check.uses(path)}
    assert found == {
        ("torch.nn", ()),
        ("triton", ()),
        ("torch.Tensor", ()),
        ("torch.float32", ()),
        ("triton.language", ()),
        ("torch.nn.Linear", ("bias",)),
        ("torch.Tensor.eval", ()),
        ("triton.language.dot", ()),
        ("triton.cdiv", ()),
        ("torch.float32.itemsize", ()),
    }


def test_folders_without_either_are_no_answer(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["api_check.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        api_check.main()
    assert ended.value.code == 2
    assert f"no torch or triton in {tmp_path}" in capsys.readouterr().err
