"""BabyAI: the multi-task set by the paper's settings, and three tasks in minutes."""

from __future__ import annotations

from twohot.config import (
    AgentConfig,
    CollectConfig,
    EnvironmentConfig,
    EvaluateConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ReplayConfig,
    TrainConfig,
)
from twohot.envs.suites.babyai import TRAIN_50
from twohot.losses import ValueBins
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent

PRESETS: dict[str, Preset] = {
    "babyai": Preset(
        "BabyAI: fifty tasks with missions in words, two attempts at one level (a GPU's work).",
        TrainConfig(
            epochs=1000,
            window=512,
            environment=EnvironmentConfig(suite="babyai", tasks=TRAIN_50, attempts=2),
            agent=AgentConfig(width=300, heads=10, context=512, bins=ValueBins.amago2(count=32)),
            objective=ObjectiveConfig(reward_multiplier=1000.0),
            collect=CollectConfig(environments=24, epsilon_steps=2_000_000),
            replay=ReplayConfig(storage="disk"),
            evaluate=EvaluateConfig(every=50, splits=("train", "test")),
        ),
    ),
    "babyai-small": Preset(
        "Three BabyAI tasks, two attempts, a small agent; minutes on two cores.",
        TrainConfig(
            epochs=30,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=16,
            window=64,
            threads=1,
            environment=EnvironmentConfig(suite="babyai", tasks=("GoToRedBall", "GoToLocal", "PickupLoc"), attempts=2),
            agent=small_agent(context=64, **FEW_REWARDS),
            objective=ObjectiveConfig(
                reward_multiplier=1.0, action_samples=0, target_action_samples=0, target_rate=0.01
            ),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_updates=100),
            collect=CollectConfig(environments=16, steps_per_epoch=260, epsilon_steps=80_000),
            replay=ReplayConfig(capacity_steps=200_000),
            evaluate=EvaluateConfig(every=10, trials=16, final_trials=32),
        ),
    ),
}
