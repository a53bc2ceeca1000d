"""Training from recorded data: offline, then online, and resumed."""

import dataclasses
import json

import numpy as np
import pytest

from small import agent_bytes, quiet, with_epochs
from tests.training.test_train import on_disk
from twohot.config import CollectConfig, ConfigurationError, DataConfig, TrainConfig
from twohot.data.experience import Experience
from twohot.inference.agent import load_networks
from twohot.replay import Replay
from twohot.runs import checkpoint
from twohot.runs.metrics import read_metrics
from twohot.training.train import resume, train


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The replay of a short run."""
    run = tmp_path_factory.mktemp("runs") / "recorded"
    train(on_disk(with_epochs(2)), run, quiet())
    return run / "replay"


def from_data(recorded, epochs, first_epoch, **changes) -> TrainConfig:
    config = with_epochs(epochs)
    collect = dataclasses.replace(config.collect, first_epoch=first_epoch)
    return dataclasses.replace(config, collect=collect, data=DataConfig(sources=(str(recorded),), **changes))


def test_an_offline_run_steps_no_environment_and_learns(recorded, tmp_path):
    run = tmp_path / "offline"
    train(from_data(recorded, 4, first_epoch=4), run, quiet())
    updates = [row for row in read_metrics(run) if row.kind == "update"]
    assert [row.updates for row in updates] == [3, 6, 9, 12]
    assert all(row.environment_steps == 0 for row in updates)
    assert not [row for row in read_metrics(run) if row.kind == "collect"]
    assert [row for row in read_metrics(run) if row.kind == "evaluation"]


def test_a_run_that_goes_online_mixes_both_and_resumes_exactly(recorded, tmp_path):
    config = from_data(recorded, 6, first_epoch=2)
    train(config, tmp_path / "whole", quiet())
    train(dataclasses.replace(config, epochs=2), tmp_path / "parts", quiet())
    assert checkpoint.read_state(checkpoint.latest(tmp_path / "parts"))["environment_steps"] == 0
    for epochs in (4, 6):
        resume(tmp_path / "parts", quiet(), epochs)
    assert agent_bytes(tmp_path / "parts") == agent_bytes(tmp_path / "whole")
    collected = [row for row in read_metrics(tmp_path / "whole") if row.kind == "collect"]
    assert [row.environment_steps for row in collected] == [180, 360, 540, 720]


def test_shares_of_a_batch(recorded, tmp_path):
    config = from_data(recorded, 1, 1, own_fraction=0.25)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, sources=config.data.sources * 2, weights=(1.0, 2.0))
    )
    _, networks = load_networks(recorded.parent)
    experience = Experience(config, networks.observation_space, networks.action_space)
    with Replay.open(recorded) as data:
        own = Replay.create(data.schema, capacity_steps=1000)
        assert experience.sampler(own).weights.tolist() == pytest.approx([0, 1 / 3, 2 / 3])
        trajectory = data.get(0)
        own.add(*(trajectory[name] for name in ("observation", "action", "reward", "terminated", "truncated")), 0)
    assert experience.sampler(own).weights.tolist() == pytest.approx([0.25, 0.25, 0.5])
    state = json.loads(json.dumps(experience.state_dict()))
    first = experience.sampler(own).sample(64, 8)
    experience.drawn()
    second = experience.sampler(own).sample(64, 8)
    assert not np.array_equal(first.trajectory, second.trajectory)
    experience.load_state_dict(state)
    own.random_state = Replay.create(own.schema, capacity_steps=1000).random_state
    again = experience.sampler(own).sample(64, 8)
    np.testing.assert_array_equal(again.trajectory[20:], first.trajectory[20:])


def test_data_that_cannot_be_used_is_said(recorded, tmp_path):
    with pytest.raises(ConfigurationError, match=r"collect\.first_epoch: expected data\.sources"):
        dataclasses.replace(with_epochs(2), collect=CollectConfig(first_epoch=1))
    with pytest.raises(ConfigurationError, match=r"data\.weights: expected none or one for each of the 1 sources"):
        DataConfig(sources=("a",), weights=(1.0, 2.0))
    with pytest.raises(ConfigurationError, match=r"data\.sources: .*nowhere"):
        train(from_data(tmp_path / "nowhere", 2, 2), tmp_path / "run", quiet())
    assert not (tmp_path / "run" / "config.json").exists()
