"""Each example runs, in a short form; `make examples` runs them as they stand, with all that they need."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import twohot
from paths import ROOT
from twohot.inference.agent import load_networks

FOLDER = ROOT / "examples"
SHORT = {
    "own_loop": ["--epochs", "2"],
    "dqn": ["--steps", "600"],
    "tdmpc2_loss": ["--episodes", "2", "--updates", "3", "--length", "20"],
    "lightning_loss": ["--epochs", "1", "--rows", "256"],
    "sb3_replay": ["--steps", "560"],
    "offline": ["--epochs", "1", "--updates", "2", "--episodes", "3"],
}
NEEDS = {"lightning_loss": "lightning", "sb3_replay": "stable_baselines3"}
OTHERS = {"cleanrl_replay", "own_environment", "deploy"}


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def as_before():
    """Examples set the number of threads, and a figure may be open."""
    threads = torch.get_num_threads()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    torch.set_num_threads(threads)


def test_each_is_run_and_described() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {*SHORT, *OTHERS}
    page = (FOLDER / "README.md").read_text()
    assert not [
        path.name for path in FOLDER.iterdir() if path.is_file() and f"]({path.name})" not in page + "](README.md)"
    ]


@pytest.mark.parametrize("name", SHORT)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    load(name).main(SHORT[name])
    assert not list(tmp_path.iterdir())


def test_the_recurrent_dqn_runs() -> None:
    example = load("cleanrl_replay")
    args = example.Args(total_timesteps=800, learning_starts=200, batch_size=4, sequence=8)
    assert 5 < example.main(args) < 500


def test_an_environment_of_ones_own_is_learnt_and_its_policy_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played with weights whose choices depend on all that the program is given."""
    run = tmp_path / "run"
    load("own_environment").main(["--epochs", "1", "--updates", "2", "--run", str(run)])
    config, networks = load_networks(run)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    networks.iterate_spectral_norms()
    monkeypatch.setattr(twohot.Agent, "from_checkpoint", lambda path: twohot.Agent(networks, config))
    share = load("deploy").main([str(run), "--steps", "40", "--environments", "3"])
    assert share > 0.9  # two actions may be so close that rounding decides


def test_the_loop_to_fork_updates_what_it_should() -> None:
    """The critics of the actions taken, the actor, the memory and the slow copies move; nothing is NaN."""
    example = load("own_loop")
    shares = example.main(["--epochs", "1"])
    assert all(0 <= share <= 1 and math.isfinite(share) for share in shares)


NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, as a kernel would run them."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTEBOOK_EPOCHS", "1")
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    names: dict = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert len(cells) > 6
