"""Every preset starts, collects, updates and evaluates: a few steps of it, with its own environments and networks."""

import math
from dataclasses import replace

import pytest

from small import quiet
from twohot.config import TrainConfig
from twohot.envs import get_suite
from twohot.envs.suites.retro import MissingRomError
from twohot.presets import PRESETS
from twohot.runs.metrics import read_metrics
from twohot.training.train import train

pytestmark = pytest.mark.benchmark
STEPS = 12


def workers(config: TrainConfig) -> str:
    """Processes where one can hold a single environment."""
    return "processes" if get_suite(config.environment.suite).one_per_process else "in-process"


def few_steps(config: TrainConfig) -> TrainConfig:
    """Two epochs of some steps, of which the second learns from what the first collected."""
    return replace(
        config,
        epochs=2,
        updates_per_epoch=1,
        warmup_epochs=1,
        batch_size=2,
        window=min(config.window, STEPS),
        checkpoint_every=1,
        threads=1,
        device="cpu",
        collect=replace(config.collect, environments=2, steps_per_epoch=STEPS, workers=workers(config)),
        replay=replace(config.replay, threads=1),
        evaluate=replace(config.evaluate, every=2, trials=1, final_trials=1, step_limit=STEPS),
    )


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "retro-mario"])
def test_a_preset_collects_updates_and_evaluates(name, tmp_path):
    config = few_steps(PRESETS[name].config)
    train(config, tmp_path / "run", quiet())
    rows = {row.kind: row.metrics for row in read_metrics(tmp_path / "run")}
    assert rows["collect"]
    assert math.isfinite(rows["update"]["loss/total"])
    for task in config.environment.tasks:
        assert f"evaluation/return/{task}" in rows["evaluation"]
        assert f"random/return/{task}" in rows["random"]
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_mario_asks_for_the_roms(tmp_path):
    with pytest.raises(MissingRomError, match="import"):
        train(few_steps(PRESETS["retro-mario"].config), tmp_path / "run", quiet())
