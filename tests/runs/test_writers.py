"""Writers of metrics: what TensorBoard, W&B and trackio (stand-ins here) are told, and those of users."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import twohot
from small import CONFIG, with_epochs
from tracker import Tracker
from twohot.config.files import save_config
from twohot.extras import MissingExtraError
from twohot.runs.metrics import MetricsWriter, Row, read_metrics
from twohot.runs.writers import Trackio, WandB


class Notes:
    """A writer that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def open(self, run: Path, first_step: int | None) -> None:
        assert (run / "config.json").exists()
        assert (run / "run.json").exists()
        self.said.append(("open", first_step))

    def write(self, row: Row) -> None:
        self.said.append(row)

    def close(self, failed: bool) -> None:
        self.said.append(("close", failed))


@pytest.fixture
def tracker(monkeypatch) -> Tracker:
    """In the place of both modules."""
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    return tracker


def test_a_writer_of_ones_own_is_given_every_row(tmp_path: Path) -> None:
    notes = Notes()
    run = twohot.train(with_epochs(2), run=tmp_path / "run", writers=[notes], quiet=True)
    rows = run.rows
    assert notes.said == [("open", 0), *rows, ("close", False)]
    assert not (run.path / "tensorboard").exists()
    more = Notes()
    longer = twohot.train(resume=run.path, epochs=3, writers=[more], quiet=True)
    assert more.said == [("open", rows[-1].environment_steps + 1), *longer.rows[len(rows) :], ("close", False)]


def test_a_writer_is_told_that_a_training_failed(tmp_path: Path) -> None:
    def fail(end: object) -> None:
        raise RuntimeError("of the user's")

    notes, broken = Notes(), Notes()
    with pytest.raises(RuntimeError, match="of the user's"):
        twohot.train(CONFIG, run=tmp_path / "run", writers=[notes], callbacks=[fail], quiet=True)
    assert notes.said[-1] == ("close", True)
    broken.open = fail  # of two writers the second cannot be opened: the first is closed
    with pytest.raises(TypeError):
        MetricsWriter(tmp_path / "run", writers=[notes, broken])
    assert notes.said[-1] == ("close", True)
    assert len([each for each in notes.said if each == ("close", True)]) == 2


def test_a_writer_that_cannot_be_closed_hides_neither_the_error_nor_the_others(tmp_path: Path) -> None:
    class Broken(Notes):
        def close(self, failed: bool) -> None:
            raise OSError("no network")

    def fail(end: object) -> None:
        raise KeyError("mine")

    first, last = Notes(), Notes()
    with pytest.raises(KeyError, match="mine"):
        twohot.train(CONFIG, run=tmp_path / "run", writers=[first, Broken(), last], callbacks=[fail], quiet=True)
    assert first.said[-1] == last.said[-1] == ("close", True)
    with pytest.raises(OSError, match="no network"):
        twohot.train(with_epochs(1), run=tmp_path / "other", writers=[first, Broken(), last], quiet=True)
    assert first.said[-1] == last.said[-1] == ("close", False)


@pytest.mark.parametrize("writer", ["wandb", "trackio"])
def test_a_tracker_is_told_the_configuration_and_every_number(writer: str, tracker: Tracker, tmp_path: Path) -> None:
    run = twohot.train(with_epochs(2), run=tmp_path / "run", writers=[writer], quiet=True)
    (init,) = tracker.inits
    assert init["project"] == "twohot"
    assert init["config"] == json.loads((run.path / "config.json").read_text())
    assert init["resume"] == "allow"
    expected = []
    for row in run.rows:
        scalars = {name: value for name, value in row.metrics.items() if not isinstance(value, list)}
        axes = {"environment_steps": row.environment_steps, "updates": row.updates, "seconds": row.seconds}
        expected.append(({**axes, **scalars}, {"step": row.environment_steps} if writer == "trackio" else {}))
    assert tracker.logged == expected
    assert tracker.finished == [{"exit_code": 0} if writer == "wandb" else {}]
    (tmp_path / "moved").mkdir()
    elsewhere = run.path.rename(tmp_path / "moved" / "run")
    twohot.train(resume=elsewhere, epochs=3, writers=[writer], quiet=True)
    again = tracker.inits[1]
    identity = "id" if writer == "wandb" else "name"
    assert again[identity] == init[identity]
    other = twohot.train(with_epochs(1), run=tmp_path / "other" / "run", writers=[writer], quiet=True)
    assert tracker.inits[2][identity] != init[identity]
    assert other.path.name == run.path.name


def test_a_tracker_takes_what_its_module_takes(tracker: Tracker, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    save_config(CONFIG, tmp_path / "config.json")
    for writer in (WandB(), WandB("mine", mode="offline", name="that"), Trackio("mine", group="those")):
        writer.open(tmp_path, None)
        writer.close(failed=True)
    theirs, mine, trackio = tracker.inits
    assert (theirs["project"], theirs["name"]) == ("theirs", tmp_path.name)
    assert (mine["project"], mine["mode"], mine["name"]) == ("mine", "offline", "that")
    assert (trackio["project"], trackio["group"]) == ("mine", "those")
    assert tracker.finished == [{"exit_code": 1}, {"exit_code": 1}, {}]
    assert ("*", {"step_metric": "environment_steps"}) in tracker.metrics


@pytest.mark.parametrize("writer", ["wandb", "trackio"])
def test_a_tracker_that_is_missing(writer: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, writer, None)
    with pytest.raises(MissingExtraError, match=rf"{writer} need its package.*: pip install .*\[{writer}\]"):
        twohot.train(CONFIG, run=tmp_path / "run", writers=[writer], quiet=True)


def test_tensorboard_shows_hyper_parameters(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    save_config(CONFIG, tmp_path / "config.json")
    with MetricsWriter(tmp_path) as writer:
        writer.write("evaluation", 640, 3, 0.0, {"evaluation/return/RepeatFirstEasy": 2.0})
    assert len(read_metrics(tmp_path)) == 1
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    content = events.summary_metadata
    experiment, start = (
        HParamsPluginData.FromString(content[f"_hparams_/{tag}"].plugin_data.content)
        for tag in ("experiment", "session_start_info")
    )
    hparams = start.session_start_info.hparams
    assert hparams["optimizer.learning_rate"].number_value == CONFIG.optimizer.learning_rate
    assert hparams["agent.bins.count"].number_value == 16
    assert hparams["agent.memory"].string_value == "transformer"
    assert hparams["agent.normalize"].number_value == 1
    assert hparams["environment.tasks"].string_value == "RepeatFirstEasy, PositionOnlyCartPoleEasy"
    shown = {info.name.tag for info in experiment.experiment.metric_infos}
    assert shown == {"evaluation/return/RepeatFirstEasy", "evaluation/return/PositionOnlyCartPoleEasy"}
    assert events.Tags()["scalars"] == ["evaluation/return/RepeatFirstEasy"]
