"""What has another name since 0.1 is still understood under the old one, and says so."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from twohot import envs
from twohot.cli import main as cli
from twohot.config import TrainConfig
from twohot.config.files import from_json, to_json
from twohot.config.renamed import RENAMED, current_options
from twohot.envs import Suite
from twohot.envs.suites import dark_key
from twohot.envs.vector import batched, serial
from twohot.envs.vector.batched import EnvBatch
from twohot.rl.exploration import Exploration, Schedule


def changed(value: object) -> object:
    """Another value that a setting may have."""
    if isinstance(value, bool):
        return not value
    return {"float": 0.25, "tuple": ("a",), "int": 1}[type(value).__name__]


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_setting_is_understood_under_its_old_name(old: str, new: str) -> None:
    section, _, name = new.partition(".")
    former = old.partition(".")[2]
    config = TrainConfig(environment=dataclasses.replace(TrainConfig().environment, attempts=3))
    part = getattr(config, section)
    value = changed(getattr(part, name))
    expected = dataclasses.replace(config, **{section: dataclasses.replace(part, **{name: value})})
    with pytest.warns(DeprecationWarning, match=f"the argument {former} is now {name}; 0.3 drops the old name"):
        settings = dataclasses.replace(part, **{former: value})
    assert dataclasses.replace(config, **{section: settings}) == expected
    with pytest.warns(DeprecationWarning, match=rf"{type(part).__name__}.{former} is now {name}"):
        assert getattr(settings, former) == value
    stored = json.loads(json.dumps(to_json(expected)))
    stored[section][former] = stored[section].pop(name)
    assert from_json(TrainConfig, stored) == expected
    with pytest.raises(AttributeError, match=f"{type(part).__name__}.* has no attribute 'nothing'"):
        _ = part.nothing


def test_options_are_understood_under_their_old_names(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    line = [
        "--collect.no-random-multiplier",
        "--collect.flip=0.5",
        "--data.own_share",
        "1",
        "--collect.flip-steps",
        "2",
    ]
    now = ["--collect.no-randomize-epsilon", "--collect.flip-probability=0.5", "--data.own-fraction", "1", *line[4:]]
    arguments, notices = current_options(line)
    assert arguments == now
    assert notices[1] == "--collect.flip is now --collect.flip-probability; 0.3 drops the old name"
    assert len(notices) == 3
    few = ["--epochs", "1", "--collect.environments", "1", "--window", "8", "--collect.flip", "2"]
    assert cli.main(["train", "quickstart", "--run", str(tmp_path / "run"), *few]) == 1
    error = capsys.readouterr().err
    assert "twohot: --collect.flip is now --collect.flip-probability; 0.3 drops the old name\n" in error
    assert "collect.flip_probability: expected [0, 1], got 2.0" in error


def test_arguments_are_understood_under_their_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="free_attempts is now unscored_attempts"):
        vector = envs.make_vector("popgym", ("RepeatFirstEasy",), environments=1, attempts=2, free_attempts=1)
    assert vector.unscored_attempts == 1
    vector.close()
    with pytest.warns(DeprecationWarning, match="random_multiplier is now randomize_epsilon"):
        noise = Exploration(1, vector.single_action_space, Schedule(1, 1, 0), None, random_multiplier=False)
    assert not noise.randomize_epsilon
    with pytest.warns(DeprecationWarning, match="tells_success is now reports_success"):
        suite = Suite("x", "", (), "", (), lambda: None, tells_success=True)
    assert suite.reports_success
    with pytest.warns(DeprecationWarning, match="EnvBatch.tells_success is now reports_success") as caught:

        class Batch(EnvBatch):
            tells_success = True

    assert caught[0].filename == __file__
    assert Batch.reports_success
    with pytest.warns(DeprecationWarning, match="LOST is now INTERRUPTED"):
        assert envs.LOST == envs.INTERRUPTED
    with pytest.warns(DeprecationWarning, match="row_seeds is now env_seeds|twohot.envs.rows is now"):
        assert importlib.import_module("twohot.envs.rows").row_seeds is serial.env_seeds
    with pytest.warns(DeprecationWarning, match="the argument rows is now num_envs"):
        rooms = dark_key.make_batch("5x5", "train", rows=3)
    with pytest.warns(DeprecationWarning, match="DarkKeyBatch.rows is now num_envs"):
        assert rooms.rows == 3
    with pytest.warns(DeprecationWarning, match="rows is now num_envs"):
        rooms.rows = 2
    assert rooms.num_envs == 2
    with pytest.raises(TypeError, match="rows is the old name of num_envs; expected one of them, got both"):
        dark_key.make_batch("5x5", "train", rows=3, num_envs=3)
    with pytest.warns(DeprecationWarning, match="OneRow is now SingleEnv"):
        assert batched.OneRow is batched.SingleEnv
    for module in (envs, batched):
        with pytest.raises(AttributeError, match="'nothing'"):
            _ = module.nothing
