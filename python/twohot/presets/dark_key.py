"""Dark-Key-To-Door: by the paper's settings, and a smaller room in minutes."""

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
from twohot.presets.preset import Preset, small_agent

PRESETS: dict[str, Preset] = {
    "dark-key": Preset(
        "Dark-Key-To-Door, 8 x 8, 500 steps a trial, by the paper's settings.",
        TrainConfig(
            epochs=400,
            updates_per_epoch=500,
            window=500,
            environment=EnvironmentConfig(suite="dark_key", tasks=("8x8",)),
            agent=AgentConfig(width=128, feed_forward=512, context=500),
            objective=ObjectiveConfig(reward_multiplier=100.0),
            collect=CollectConfig(environments=24, steps_per_epoch=500, epsilon_steps=500_000, trial_epsilon_steps=500),
            replay=ReplayConfig(capacity_steps=10_000_000),
            evaluate=EvaluateConfig(every=25),
        ),
    ),
    "dark-key-small": Preset(
        "Dark-Key-To-Door, 5 x 5, a small agent that looks back 128 steps; minutes on two cores.",
        TrainConfig(
            epochs=40,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=16,
            window=128,
            threads=1,
            environment=EnvironmentConfig(suite="dark_key", tasks=("5x5",)),
            agent=small_agent(context=128, discount=0.93, training_discounts=(0.5, 0.8)),
            objective=ObjectiveConfig(
                reward_multiplier=100.0, action_samples=0, target_action_samples=1, target_rate=0.01
            ),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=CollectConfig(
                environments=32,
                steps_per_epoch=500,
                epsilon_end=0.3,
                epsilon_steps=200_000,
                trial_epsilon_steps=500,
                random_multiplier=False,
            ),
            replay=ReplayConfig(capacity_steps=400_000),
            evaluate=EvaluateConfig(every=10, trials=8, final_trials=32),
        ),
    ),
}
