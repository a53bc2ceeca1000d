"""BabyAI: the multi-task set by the paper's settings, and three tasks in minutes."""

from __future__ import annotations

from twohot import config
from twohot.envs.suites.babyai import TRAIN_50
from twohot.losses import ValueBins
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "babyai": Preset(
        "BabyAI: fifty tasks with missions in words, two attempts at one level (a GPU's work).",
        config.TrainConfig(
            epochs=1000,
            window=512,
            environment=config.EnvironmentConfig(suite="babyai", tasks=TRAIN_50, attempts=2),
            agent=config.AgentConfig(width=300, heads=10, context=512, bins=ValueBins.amago2(count=32)),
            objective=config.ObjectiveConfig(reward_multiplier=1000.0),
            collect=config.CollectConfig(environments=24, epsilon_steps=2_000_000),
            replay=config.ReplayConfig(storage="disk"),
            evaluate=config.EvaluateConfig(every=50, splits=("train", "test")),
        ),
    ),
    "babyai-small": Preset(
        "Three BabyAI tasks, two attempts, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=30,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=16,
            window=64,
            threads=1,
            environment=config.EnvironmentConfig(
                suite="babyai", tasks=("GoToRedBall", "GoToLocal", "PickupLoc"), attempts=2
            ),
            agent=small_agent(context=64, **FEW_REWARDS),
            objective=small_objective(reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=16, steps_per_epoch=260, epsilon_steps=80_000),
            replay=config.ReplayConfig(capacity_steps=200_000),
            evaluate=config.EvaluateConfig(every=10, trials=16, final_trials=32),
        ),
    ),
}
