"""Several suites at once: the paper's domains, and four small ones on two cores."""

from __future__ import annotations

from twohot import config
from twohot.envs import MULTITASK_27
from twohot.envs.suites.atari import MULTI_GAME
from twohot.envs.suites.babyai import TRAIN_50
from twohot.envs.suites.metaworld import ML45_TRAIN
from twohot.envs.suites.procgen import EASY
from twohot.losses import ValueBins
from twohot.presets.preset import Preset, small_agent

_OF_SUITES = {
    "metaworld": (ML45_TRAIN, 1.0),
    "procgen": (EASY, 10.0),
    "popgym": (MULTITASK_27, 200.0),
    "atari": (MULTI_GAME, 0.25),
    "babyai": (TRAIN_50, 1000.0),
}
"""Tasks, and the factor on their rewards that the suite's own preset has."""
_SMALL = {
    "gym:Pendulum-v1": 0.01,
    "procgen:coinrun-easy": 1.0,
    "popgym:RepeatFirstEasy": 1000.0,
    # Under symlog the mean of large rewards that are rare reads low (`FEW_REWARDS`); that of small ones does not.
    "babyai:GoToRedBallNoDists": 0.1,
}

PRESETS: dict[str, Preset] = {
    "everything": Preset(
        "Meta-World, Procgen, POPGym, Atari and BabyAI at once, one agent without labels (a GPU's work).",
        config.TrainConfig(
            epochs=3000,
            batch_size=40,
            environment=config.EnvironmentConfig(
                tasks=tuple(f"{suite}:{task}" for suite, (tasks, _) in _OF_SUITES.items() for task in tasks),
                reward_multipliers=tuple(factor for tasks, factor in _OF_SUITES.values() for _ in tasks),
                attempts=2,
            ),
            agent=config.AgentConfig(bins=ValueBins.amago2(count=64)),
            objective=config.ObjectiveConfig(reward_multiplier=1.0),
            collect=config.CollectConfig(environments=60, epsilon_steps=5_000_000),
            replay=config.ReplayConfig(capacity_steps=10_000_000, storage="disk", balance="suite"),
            evaluate=config.EvaluateConfig(every=50, trials=4, splits=("train", "test")),
        ),
    ),
    "everything-small": Preset(
        "Pendulum, CoinRun, RepeatFirst and a BabyAI task at once, rewards times .01 to 1000; two cores.",
        config.TrainConfig(
            epochs=50,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=24,
            window=52,
            threads=2,
            environment=config.EnvironmentConfig(tasks=tuple(_SMALL), reward_multipliers=tuple(_SMALL.values())),
            agent=small_agent(context=52, discount=0.99, training_discounts=(0.9,), images="nature"),
            objective=config.ObjectiveConfig(reward_multiplier=10.0, target_action_samples=1, target_rate=0.01),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=32, steps_per_epoch=250, epsilon_steps=100_000),
            replay=config.ReplayConfig(capacity_steps=160_000),
            evaluate=config.EvaluateConfig(every=10, trials=16, final_trials=128),
        ),
    ),
}
