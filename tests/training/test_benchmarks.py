"""Every preset starts, collects, updates and evaluates: a few steps of it, with its own environments and networks."""

import math
from dataclasses import replace

import pytest

from small import quiet
from twohot.config import TrainConfig
from twohot.data.domains import domains_of, is_mixed
from twohot.envs import common_layout, get_suite
from twohot.envs.suites.retro import MissingRomError
from twohot.presets import PRESETS
from twohot.runs.metrics import read_metrics
from twohot.training.train import train

pytestmark = pytest.mark.benchmark
STEPS = 12
TASKS = 2
MIXED_TASKS = 4
"""Of a run with several domains, so that there are several."""
PLAYED = [name for name in PRESETS if name != "retro-mario"]


def workers(config: TrainConfig) -> str:
    """Processes where one can hold a single environment."""
    return "processes" if get_suite(config.environment.suite).one_per_process else "in-process"


def few_steps(config: TrainConfig) -> TrainConfig:
    """Two epochs of some steps of a few tasks, of which the second learns from what the first collected."""
    whole = config.environment
    every = len(whole.tasks) // MIXED_TASKS if is_mixed(config) else 1
    count = MIXED_TASKS if is_mixed(config) else TASKS
    tasks, multipliers = whole.tasks[::every][:count], whole.reward_multipliers[::every][:count]
    environment = replace(whole, tasks=tasks, reward_multipliers=multipliers)
    held_out = config.evaluate.held_out_tasks[:1]
    trials = {"trials": 1, "final_trials": 1, "step_limit": STEPS}
    return replace(
        config,
        epochs=2,
        updates_per_epoch=1,
        warmup_epochs=1,
        batch_size=4,
        window=min(config.window, STEPS),
        checkpoint_every=1,
        threads=1,
        device="cpu",
        environment=environment,
        collect=replace(config.collect, environments=4, steps_per_epoch=STEPS, workers=workers(config)),
        replay=replace(config.replay, threads=1),
        evaluate=replace(config.evaluate, every=2, held_out_tasks=held_out, **trials),
    )


@pytest.mark.parametrize("name", PLAYED)
def test_the_tasks_of_a_preset_are_known_and_of_one_layout(name):
    config = PRESETS[name].config
    environment, evaluate = config.environment, config.evaluate
    if is_mixed(config):
        assert len({domain.name for domain in domains_of(config)}) > 1
    else:
        common_layout(environment.suite, (*environment.tasks, *evaluate.held_out_tasks), environment.observation_size)


@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.usefixtures("preloaded_workers")
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
