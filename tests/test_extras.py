"""What the package needs: torch and numpy, and an extra for each of the rest, which is declared and named in errors."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bare import BarePython
from paths import ROOT
from twohot import extras

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = ROOT / "python/twohot"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "ale-py": "ale_py",
    "stable-retro": "stable_retro",
    "imageio-ffmpeg": "imageio_ffmpeg",
}
"""Distribution -> module, where the names differ."""
CORE = ("__init__", "losses", "attention", "replay", "replay.formats", "rl", "kernels", "extras", "cli.main")
OTHERS = ("agent", "data", "envs", "inference", "learning", "nets", "reports", "training")
WITHOUT_EXTRA = {"torch", "numpy", "triton"}
"""Triton comes with torch, where there is one; its kernels are imported where it is."""


def modules(requirements: list[str]) -> set[str]:
    """What requirements bring, as it is imported; extras of the package are followed."""
    found = set()
    for requirement in requirements:
        name, own = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        if name == "twohot":
            found |= {each for extra in own.split(",") for each in extra_modules(extra)}
        else:
            found.add(IMPORTED_AS.get(name.lower(), name))
    return found


def extra_modules(extra: str) -> set[str]:
    return modules(PROJECT["optional-dependencies"][extra])


def imports(tree: ast.AST, everywhere: bool) -> Iterator[str]:
    """Absolute names of the modules that a source imports, when it is imported itself or ever; never those of types."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names if module.startswith("twohot"))
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                pass
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not everywhere:
                pass
            case ast.Call(func=ast.Name("import_module" | "_import_module"), args=[ast.Constant(str(name))]):
                yield name
            case _:
                yield from imports(node, everywhere)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)


def others(names: Iterator[str] | set[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {"twohot", "tomli"}  # tomli: the standard library's, before 3.11


def closure(module: str) -> set[str]:
    """All that is imported, at once, with a module of the package."""
    seen, names = set(), {module}
    while names:
        name = names.pop()
        seen.add(name)
        path = source(name) if name.startswith("twohot") else None
        found = set() if path is None else set(imports(parsed(path), everywhere=False))
        if name.startswith("twohot."):
            found.add(name.rpartition(".")[0])
        names |= found - seen
    return seen


def test_the_package_needs_torch_and_numpy() -> None:
    assert modules(PROJECT["dependencies"]) == {"torch", "numpy"}


@pytest.mark.parametrize("module", CORE)
def test_the_parts_alone_import_torch_and_numpy(module: str) -> None:
    allowed = {"numpy"} if module.startswith(("replay", "__init__", "extras", "cli")) else {"torch", "numpy"}
    assert others(closure(f"twohot.{module}" if module != "__init__" else "twohot")) <= allowed


def test_every_import_is_declared() -> None:
    """In an extra: train, or one that the same file names to its users."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named = {extra for found in re.findall(r"twohot\[([a-z\d,]+)\]", text) for extra in found.split(",")}
        declared = WITHOUT_EXTRA.union(*map(extra_modules, {"train", *named}))
        assert others(imports(parsed(path), everywhere=True)) <= declared, path
        assert others(imports(parsed(path), everywhere=False)) <= WITHOUT_EXTRA | extra_modules("train"), path


def test_what_train_brings_is_what_errors_ask_for() -> None:
    assert set(extras.TRAIN) == extra_modules("train") - {"tomli"}


def test_an_extra_of_a_suite_brings_all_that_training_needs() -> None:
    suites = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "envs/suites").rglob("*.py"))
    named = {extra for found in re.findall(r"pip install 'twohot\[([\w,-]+)\]'", suites) for extra in found.split(",")}
    assert len(named) > 5
    for extra in (*named, "all", "bench", "dev"):
        assert extra_modules(extra) >= set(extras.TRAIN), extra


# Where little is installed


@pytest.fixture(scope="module")
def with_numpy(tmp_path_factory) -> BarePython:
    return BarePython(tmp_path_factory.mktemp("bare"), "numpy")


def test_the_replay_works_where_torch_is_not_installed(with_numpy: BarePython) -> None:
    program = """
import importlib.util
import numpy as np
assert importlib.util.find_spec("torch") is None
from twohot.replay import Field, Mixture, Replay, Schema
from twohot.replay.formats import read_npz, write_npz
schema = Schema({"state": Field("float32", (3,))}, Field("int64"))
with Replay.create(schema, capacity_steps=100, directory="replay") as replay:
    writer = replay.writer(environments=2)
    writer.begin({"state": np.zeros((2, 3), np.float32)})
    for step in range(5):
        ended = np.full(2, step == 4)
        state = {"state": np.full((2, 3), step, np.float32)}
        writer.append(np.zeros(2, np.int64), np.ones(2, np.float32), ended, ~ended & ended, state)
    assert replay.sample(4, 8).mask.sum() == 20
    for batch in replay.loader(4, 8, batches=3):
        assert batch.reward.sum() == 20
    Mixture([replay], [1.0], seed=0).sample(4, 8)
    write_npz("trajectories.npz", [replay.get(0)])
with Replay.open("replay") as replay:
    assert replay.verify() == [] and replay.returns().tolist() == [5, 5]
    try:
        replay.save("replay.safetensors")
    except ImportError as error:
        print(error)
assert next(read_npz("trajectories.npz"))["reward"].sum() == 5
"""
    ended = with_numpy.run("-c", program)
    said = "replays in one file need safetensors, which is not installed: pip install 'twohot[train]'\n"
    assert (ended.stdout, ended.stderr) == (said, "")


@pytest.mark.parametrize("name", [*(f"from twohot import {name}" for name in OTHERS), "import twohot; twohot.Agent"])
def test_what_needs_the_extra_says_so(with_numpy: BarePython, name: str) -> None:
    last = with_numpy.run("-c", name).stderr.splitlines()[-1]
    assert re.fullmatch(
        r"twohot\.extras\.MissingExtraError: training, environments, reports and the command line need [\w, ]*gymnasium"
        r"[\w, ]*, which (is|are) not installed: pip install 'twohot\[train\]'",
        last,
    )


def test_the_command_line_says_so_and_still_helps(with_numpy: BarePython) -> None:
    commands = (
        ["train", "quickstart"],
        ["evaluate", "run"],
        ["train", "--resume", "run"],
        ["info"],
        ["envs"],
        ["report"],
    )
    for arguments in commands:
        ended = with_numpy.run("-m", "twohot", *arguments)
        assert ended.returncode == 1
        assert ended.stderr == (
            "twohot: training, environments, reports and the command line need PIL, cloudpickle, gymnasium, "
            "matplotlib, rich, safetensors, tensorboard, tyro, which are not installed: pip install 'twohot[train]'\n"
        )
    for arguments, shown in (("--help", "train PRESET"), ("train --help", "  quickstart  "), ("--version", "")):
        ended = with_numpy.run("-m", "twohot", *arguments.split())
        assert (ended.returncode, ended.stderr) == (0, "")
        assert shown in ended.stdout


@pytest.mark.parametrize("module", ["losses", "attention", "rl", "ValueBins"])
def test_where_torch_was_left_out_a_sentence_says_so(with_numpy: BarePython, module: str) -> None:
    last = with_numpy.run("-c", f"from twohot import {module}").stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: everything but twohot.replay needs torch, which is not")
    assert "pip install torch" in last


def test_the_losses_work_with_torch_alone(tmp_path: Path) -> None:
    program = """
import importlib.util
assert importlib.util.find_spec("gymnasium") is None
import torch
from twohot import attention, rl
from twohot.losses import ValueBins, two_hot_cross_entropy
logits = torch.zeros(2, 8, requires_grad=True)
two_hot_cross_entropy(logits, torch.zeros(2), ValueBins.amago2(8)).backward()
print(logits.grad.shape)
"""
    ended = BarePython(tmp_path, "torch", "numpy").run("-c", program)
    assert (ended.stdout, ended.stderr) == ("torch.Size([2, 8])\n", "")


# The command that works here


def origin(monkeypatch, **found: object) -> None:
    monkeypatch.setattr(extras, "_origin", lambda: found)


def test_a_checkout_is_installed_from_its_path(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "it's").mkdir()
    for checkout in (tmp_path, tmp_path / "it's"):
        (checkout / "pyproject.toml").touch()
    origin(monkeypatch, url=tmp_path.as_uri(), dir_info={"editable": True})
    assert extras.here("do: pip install 'twohot[gym,mujoco]'") == f"do: pip install -e '{tmp_path}[gym,mujoco]'"
    origin(monkeypatch, url=tmp_path.as_uri(), dir_info={})
    assert extras.here("pip install 'twohot[train]'") == f"pip install '{tmp_path}[train]'"
    monkeypatch.chdir(tmp_path)
    assert extras.here("pip install 'twohot[train]'") == "pip install '.[train]'"
    origin(monkeypatch, url=(tmp_path / "it's").as_uri(), dir_info={})
    assert extras.here("pip install 'twohot[train]'") == f"""pip install '{tmp_path}/it'"'"'s[train]'"""
    (tmp_path / "pyproject.toml").unlink()
    origin(monkeypatch, url=tmp_path.as_uri(), dir_info={})
    assert extras.here("pip install 'twohot[train]'") == "pip install 'twohot[train]'"


def test_what_came_from_elsewhere_is_installed_from_there(monkeypatch) -> None:
    origin(monkeypatch)
    assert extras.here("pip install 'twohot[train]'") == "pip install 'twohot[train]'"
    assert extras.here("pip install my-doors") == "pip install my-doors"
    origin(monkeypatch, url="file:///tmp/twohot.whl", archive_info={})
    assert extras.here("pip install 'twohot[train]'") == "pip install 'twohot[train] @ file:///tmp/twohot.whl'"
    origin(monkeypatch, url="https://forge/twohot", vcs_info={"vcs": "git", "commit_id": "abc"})
    assert extras.here("pip install 'twohot[gym]'") == "pip install 'twohot[gym] @ git+https://forge/twohot@abc'"


def test_this_installation_says_where_it_is_from(monkeypatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(extras.MissingExtraError, match=r"need tyro, which is not installed: pip install .*\[train\]'$"):
        extras.require("tyro")
