"""Runs and configurations of former versions, which lack the settings that came later, are read with the defaults."""

import dataclasses
import json
from pathlib import Path

import pytest

from small import CONFIG, agent_bytes, quiet, with_epochs
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import ADDED, from_json, load_config, save_config, to_json
from twohot.config.renamed import RENAMED
from twohot.inference import agent as acting
from twohot.runs.checkpoint import CheckpointError
from twohot.training import session
from twohot.training import train as training

FORMER = json.loads((Path(__file__).parent / "former_config.json").read_text())
"""The defaults as the version before the first entry of `ADDED` saved them."""


def paths(data, where=""):
    for name, value in data.items():
        yield f"{where}{name}"
        if isinstance(value, dict):
            yield from paths(value, f"{where}{name}.")


def former(data, where=""):
    """The same configuration as a former version saved it."""
    kept = {f"{where}{name}": value for name, value in data.items() if f"{where}{name}" not in ADDED}
    old = {new: old for old, new in RENAMED.items()}
    return {
        old.get(path, path).rpartition(".")[2]: former(value, f"{path}.") if isinstance(value, dict) else value
        for path, value in kept.items()
    }


def test_a_configuration_of_a_former_version_is_that_of_the_defaults():
    assert from_json(TrainConfig, FORMER) == TrainConfig()


def test_what_was_added_is_named_and_nothing_else_may_be_missing():
    now = set(paths(to_json(TrainConfig())))
    assert now >= ADDED
    assert former(json.loads(json.dumps(to_json(TrainConfig())))) == FORMER
    for name in ("seed", "agent"):
        with pytest.raises(ConfigurationError, match=rf"^{name}: setting is missing"):
            from_json(TrainConfig, {key: value for key, value in FORMER.items() if key != name})


def test_a_run_of_a_former_version_resumes_and_acts(tmp_path, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    training.train(with_epochs(4), whole, quiet())
    with monkeypatch.context() as patch:
        patch.setattr(session, "to_json", lambda config: former(to_json(config)))
        # It stops where it is resumed from: the end of a run is a checkpoint, and 2 a multiple of checkpoint_every.
        training.train(with_epochs(2), run, quiet())
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(former(config)))
    assert load_config(run / "config.json") == with_epochs(2)
    assert acting.load_networks(run)[0] == with_epochs(2)
    training.resume(run, quiet(), epochs=4)
    assert agent_bytes(run) == agent_bytes(whole)
    assert "input_projection" in (run / "config.json").read_text()


def test_another_value_than_the_default_of_then_is_refused(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(session, "to_json", lambda config: former(to_json(config)))
        training.train(with_epochs(1), run, quiet())
    agent = dataclasses.replace(CONFIG.agent, critic_action_clip=0.5)
    save_config(dataclasses.replace(with_epochs(2), agent=agent), run / "config.json")
    with pytest.raises(CheckpointError, match=r"agent\.critic_action_clip = 1\.0, this run has 0\.5"):
        training.resume(run, quiet())
