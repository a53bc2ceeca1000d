"""Configuration: presets, its JSON form, and the settings that it refuses."""

import copy
import dataclasses
import json
import re
import typing

import pytest

from twohot.config import (
    AgentConfig,
    CollectConfig,
    ConfigurationError,
    EnvironmentConfig,
    EvaluateConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ReplayConfig,
    TrainConfig,
)
from twohot.config.files import from_json, load_config, save_config, to_json
from twohot.envs import get_suite, split_name
from twohot.losses import ValueBins
from twohot.presets import PRESETS


def through_text(config):
    return json.loads(json.dumps(to_json(config)))


def refused(message):
    """Expect a ConfigurationError whose message begins with `message`."""
    return pytest.raises(ConfigurationError, match="^" + re.escape(message))


# The JSON form


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    config = PRESETS[name].config
    assert from_json(TrainConfig, through_text(config)) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_tasks_that_exist(name):
    config = PRESETS[name].config.environment
    for task in config.tasks:
        suite, plain = split_name(task, config.suite)
        assert get_suite(suite).open_ended or plain in get_suite(suite).tasks


def test_every_setting_survives_json_with_its_type():
    config = TrainConfig(
        seed=7,
        window=16,
        environment=EnvironmentConfig(tasks=("a", "b"), reward_multipliers=(1.0, 0.5), attempts=3, unscored_attempts=1),
        agent=AgentConfig(training_discounts=(), discount=0.5, bins=ValueBins(-1.0, 2.0, 5, "linear", "raw")),
        objective=ObjectiveConfig(action_samples=0, target_action_samples=0),
        replay=ReplayConfig(by="step"),
        evaluate=EvaluateConfig(greedy=True),
    )
    again = from_json(TrainConfig, through_text(config))
    assert again == config
    assert again != dataclasses.replace(config, seed=8)
    assert isinstance(again.environment.tasks, tuple)
    assert isinstance(again.agent.bins, ValueBins)


def test_whole_numbers_serve_as_floats():
    data = through_text(TrainConfig())
    data["objective"]["reward_multiplier"] = 10
    data["agent"]["training_discounts"] = [0, 0.5]
    config = from_json(TrainConfig, data)
    assert config.objective.reward_multiplier == 10.0
    assert type(config.objective.reward_multiplier) is float
    assert [type(discount) for discount in config.agent.training_discounts] == [float, float]


def test_saving_and_loading(tmp_path):
    path = tmp_path / "config.json"
    save_config(PRESETS["quickstart"].config, path)
    assert load_config(path) == PRESETS["quickstart"].config
    assert path.read_text().startswith('{\n  "seed": 0,')
    assert path.read_text().endswith("}\n")


def test_loading_says_what_is_wrong_with_the_file(tmp_path):
    with refused(f"{tmp_path}: no run here (expected the file config.json)"):
        load_config(tmp_path / "config.json")
    path = tmp_path / "config.json"
    path.write_text("{")
    with refused(f"{path}: not JSON"):
        load_config(path)
    path.write_text("[1]")
    with refused("configuration: expected a JSON object, got [1]"):
        load_config(path)


def changed(path, value):
    """The JSON form of the defaults with one value replaced."""
    data = through_text(TrainConfig())
    *parents, last = path.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("seed", 1.0, "expected int, got 1.0"),
        ("seed", True, "expected int, got True"),
        ("seed", None, "expected int, got None"),
        ("device", 1, "expected str, got 1"),
        ("agent", [], "expected a JSON object, got []"),
        ("agent.width", "256", "expected int, got '256'"),
        ("agent.dropout", "0.1", "expected float, got '0.1'"),
        ("agent.dropout", False, "expected float, got False"),
        ("agent.training_discounts", 0.9, "expected a list, got 0.9"),
        ("agent.training_discounts", [0.9, "x"], "expected float, got 'x'"),
        ("agent.bins", 3, "expected a JSON object, got 3"),
        ("agent.bins.count", "128", "expected int, got '128'"),
        ("agent.bins.transform", "log", "expected "),
        ("environment.tasks", "RepeatFirstEasy", "expected a list, got 'RepeatFirstEasy'"),
        ("environment.context_features", 1, "expected bool, got 1"),
        ("agent.bins.readout", "guessed", "expected "),
        ("replay.by", 3, "expected "),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_path(path, value, expected):
    with refused(f"{path}: {expected}"):
        from_json(TrainConfig, changed(path, value))


@pytest.mark.parametrize("path", ["colour", "agent.colour", "agent.bins.colour", "evaluate.colour"])
def test_an_unknown_setting_is_named_by_its_path(path):
    with refused(f"{path}: unknown setting; known are "):
        from_json(TrainConfig, changed(path, "red"))


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("agent.haeds", "agent.heads"),
        ("agent.bins.cuont", "agent.bins.count"),
        ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("evaluate.seed", "seed"),
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("optimzer", "optimizer"),
        ("agent.bin", "agent.bins"),
    ],
)
def test_an_unknown_setting_names_the_one_that_was_meant(path, meant):
    with refused(f"{path}: unknown setting; did you mean {meant}?"):
        from_json(TrainConfig, changed(path, 1))


@pytest.mark.parametrize("path", ["seed", "environment", "agent.width", "agent.bins.count", "optimizer.learning_rate"])
def test_a_missing_setting_is_named_by_its_path(path):
    data = copy.deepcopy(through_text(TrainConfig()))
    *parents, last = path.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    del inner[last]
    with refused(f"{path}: setting is missing"):
        from_json(TrainConfig, data)


def test_what_cannot_run_is_refused_from_json_too():
    with refused("agent.heads: expected a divisor of the width 256, got 7"):
        from_json(TrainConfig, changed("agent.heads", 7))


def test_bins_that_cannot_be_are_a_configuration_error_that_names_its_path():
    with refused("agent.bins"):
        from_json(TrainConfig, changed("agent.bins.count", 1))


# What is refused

AT_LEAST_ONE = {
    AgentConfig: (
        "agent.",
        [
            *("width", "layers", "heads", "feed_forward", "context"),
            *("encoder_hidden", "encoder_layers", "head_hidden", "head_layers", "critics"),
        ],
    ),
    EnvironmentConfig: ("environment.", ["attempts"]),
    ObjectiveConfig: ("objective.", ["critic_subset"]),
    CollectConfig: ("collect.", ["environments", "steps_per_epoch"]),
    ReplayConfig: ("replay.", ["capacity_steps", "threads"]),
    EvaluateConfig: ("evaluate.", ["every", "trials", "final_trials"]),
    TrainConfig: ("", ["epochs", "batch_size", "window", "checkpoint_every"]),
}


@pytest.mark.parametrize(
    ("kind", "path", "name"),
    [(kind, prefix + name, name) for kind, (prefix, names) in AT_LEAST_ONE.items() for name in names],
)
def test_counts_of_at_least_one(kind, path, name):
    for value in (0, -3):
        with refused(f"{path}: expected at least 1, got {value}"):
            kind(**{name: value})


@pytest.mark.parametrize("name", ["seed", "updates_per_epoch", "warmup_epochs", "threads"])
def test_counts_of_at_least_zero(name):
    TrainConfig(**{name: 0})
    with refused(f"{name}: expected at least 0, got -1"):
        TrainConfig(**{name: -1})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (EnvironmentConfig, {"tasks": ()}, "environment.tasks: expected at least one task, got none"),
        (EnvironmentConfig, {"tasks": ("a", "b", "a")}, "environment.tasks: a task is named twice in"),
        (
            EnvironmentConfig,
            {"tasks": ("a", "b"), "reward_multipliers": (1.0,)},
            "environment.reward_multipliers: expected none or one for each of the 2 tasks, got 1",
        ),
        (
            EnvironmentConfig,
            {"attempts": 2, "unscored_attempts": 2},
            "environment.unscored_attempts: expected fewer than the 2 attempts, got 2",
        ),
        (
            EnvironmentConfig,
            {"unscored_attempts": -1},
            "environment.unscored_attempts: expected fewer than the 1 attempts",
        ),
        (AgentConfig, {"width": 10, "heads": 4}, "agent.heads: expected a divisor of the width 10, got 4"),
        (AgentConfig, {"width": 9, "heads": 3}, "agent.width: expected an even width, got 9"),
        (AgentConfig, {"dropout": 1.0}, "agent.dropout: expected [0, 1), got 1.0"),
        (AgentConfig, {"dropout": -0.1}, "agent.dropout: expected [0, 1), got -0.1"),
        (
            AgentConfig,
            {"width": 18, "heads": 6, "positions": "rotary"},
            "agent.positions: expected an even width / heads for rotary ones, got 18 / 6",
        ),
        (AgentConfig, {"vocabulary": 1}, "agent.vocabulary: expected at least 2, got 1"),
        (AgentConfig, {"random_shift": -1}, "agent.random_shift: expected at least 0, got -1"),
        (AgentConfig, {"learned_positions": -1}, "agent.learned_positions: expected at least 0, got -1"),
        (
            AgentConfig,
            {"random_shift_fraction": 1.1},
            "agent.random_shift_fraction: expected [0, 1], got 1.1",
        ),
        (AgentConfig, {"discount": 1.0}, "agent.discount: expected discounts in [0, 1), got 1.0"),
        (AgentConfig, {"training_discounts": (0.5, -0.1)}, "agent.discount: expected discounts in [0, 1), got -0.1"),
        (AgentConfig, {"probability_floor": 0.995}, "agent.probability_floor: expected 0 < floor < ceiling <= 1"),
        (AgentConfig, {"probability_floor": -0.1}, "agent.probability_floor: expected 0 < floor < ceiling <= 1"),
        (AgentConfig, {"probability_ceiling": 1.1}, "agent.probability_floor: expected 0 < floor < ceiling <= 1"),
        (ObjectiveConfig, {"target_rate": 0.0}, "objective.target_rate: expected (0, 1], got 0.0"),
        (ObjectiveConfig, {"target_rate": 1.5}, "objective.target_rate: expected (0, 1], got 1.5"),
        (OptimizerConfig, {"learning_rate": 0.0}, "optimizer.learning_rate: expected > 0, got 0.0"),
        (OptimizerConfig, {"gradient_clip": -1.0}, "optimizer.gradient_clip: expected > 0, got -1.0"),
        (CollectConfig, {"epsilon_start": 1.5}, "collect.epsilon_start: expected [0, 1], got 1.5"),
        (CollectConfig, {"epsilon_end": -0.5}, "collect.epsilon_end: expected [0, 1], got -0.5"),
        (TrainConfig, {"window": 257}, "window: expected at most the agent's context of 256 steps, got 257"),
        (
            TrainConfig,
            {"replay": ReplayConfig(capacity_steps=255)},
            "agent.context: expected at most replay.capacity_steps = 255, got 256",
        ),
    ],
)
def test_settings_that_cannot_run(kind, settings, message):
    with refused(message):
        kind(**settings)


def test_the_limits_themselves_are_allowed():
    EnvironmentConfig(attempts=2, unscored_attempts=1)
    AgentConfig(dropout=0.0, training_discounts=(0.0,), probability_floor=1e-6, probability_ceiling=1.0)
    ObjectiveConfig(target_rate=1.0)
    CollectConfig(epsilon_start=0.0, epsilon_end=1.0)
    TrainConfig(window=256, replay=ReplayConfig(capacity_steps=256))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"warmup_updates": -1}, "optimizer.warmup_updates"),
        ({"decay_updates": -1}, "optimizer.decay_updates"),
        ({"decay_to": 0.0}, "optimizer.decay_to"),
        ({"weight_decay": -1e-3}, "optimizer.weight_decay"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate"),
        ({"learning_rate": float("inf")}, "optimizer.learning_rate"),
    ],
)
def test_steps_that_would_climb_or_overflow_are_refused(settings, path):
    with refused(f"{path}: expected"):
        OptimizerConfig(**settings)


PARTS = {"": TrainConfig} | {name: type(x) for name, x in vars(TrainConfig()).items() if dataclasses.is_dataclass(x)}
ODD = {bool: ("False", 0, None), int: (1.5, True, "1"), float: ("1", True)}


@pytest.mark.parametrize("part", PARTS)
def test_settings_of_another_kind_are_refused_from_programs_too(part):
    prefix = f"{part}." if part else ""
    for name, hint in typing.get_type_hints(PARTS[part]).items():
        choice = typing.get_origin(hint) is typing.Literal
        for value in ("bogus", None) if choice else ODD.get(hint, ()):
            with refused(f"{prefix}{name}: expected "):
                PARTS[part](**{name: value})


def test_discounts_end_with_the_one_that_acts():
    assert AgentConfig(training_discounts=(0.5, 0.9), discount=0.7).discounts == (0.5, 0.9, 0.7)


def test_defaults_are_those_of_the_method():
    config = TrainConfig()
    assert config.agent.discounts == (0.1, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
    assert (config.agent.width, config.agent.layers, config.agent.heads) == (256, 3, 8)
    assert config.agent.feed_forward == 4 * config.agent.width
    assert (config.agent.dropout, config.agent.critics) == (0.05, 4)
    assert (config.agent.encoder_hidden, config.agent.encoder_layers) == (512, 2)
    assert (config.agent.head_hidden, config.agent.head_layers) == (256, 2)
    assert (config.agent.probability_floor, config.agent.probability_ceiling) == (0.001, 0.99)
    assert config.agent.bins == ValueBins(-100_000.0, 100_000.0, 128, "symlog", "transformed")
    assert (config.objective.reward_multiplier, config.objective.critic_weight) == (10, 10)
    assert (config.objective.critic_subset, config.objective.action_samples) == (2, 3)
    assert config.objective.target_rate == 0.003
    assert dataclasses.astuple(config.optimizer)[:4] == (1e-4, 1e-3, 1.0, 500)
    assert (config.batch_size, config.updates_per_epoch) == (24, 1000)
    assert (config.collect.environments, config.collect.steps_per_epoch) == (12, 1000)
    assert (config.collect.epsilon_start, config.collect.epsilon_end) == (1.0, 0.05)
    assert config.replay.by == "trajectory"
