"""The page about training from Python: its code runs, with a preset that trains in a second and a stand-in for W&B."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import twohot
from paths import ROOT
from small import with_epochs
from tracker import Tracker
from twohot.presets import PRESETS, Preset


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quickstart", Preset("Small.", with_epochs(2)))
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    page = (ROOT / "docs" / "python_api.md").read_text()
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    Path("mine.toml").write_text(settings.replace("epochs = 12", "epochs = 1"))
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code.replace("epochs=100", "epochs=3"), names)
    assert names["agent"].config.optimizer.learning_rate == 1e-3
    assert twohot.Run("runs/mine").config.epochs == 3
    repeated = twohot.Run("runs/quickstart-1")
    assert (repeated.config.epochs, repeated.config.agent.width, repeated.config.evaluate.trials) == (1, 64, 4)
    assert any("own/weight_norm" in row.metrics for row in twohot.Run("runs/quickstart-2").rows)
    names["my_world"](twohot.EpochEnd(10, {}, 0, 0, tmp_path, names["agent"].config, names["agent"].networks))
    assert (tracker.inits[0]["project"], tracker.inits[0]["mode"]) == ("mine", "offline")
    assert len(tracker.logged) == len(twohot.Run("runs/quickstart-3").rows)
    assert not (names["run"].path / "tensorboard").exists()
