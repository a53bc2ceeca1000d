"""Meta-Frozen-Lake: fifteen attempts by the paper's settings, and five attempts in minutes."""

from __future__ import annotations

from twohot import config
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "frozen-lake": Preset(
        "Meta-Frozen-Lake, 5 x 5, 15 attempts, by the settings of the published curve.",
        config.TrainConfig(
            epochs=680,
            updates_per_epoch=800,
            window=512,
            environment=config.EnvironmentConfig(suite="frozen_lake", tasks=("5x5-long",), attempts=15),
            agent=config.AgentConfig(width=128, feed_forward=512, context=512),
            objective=config.ObjectiveConfig(reward_multiplier=100.0, target_rate=0.004),
            collect=config.CollectConfig(environments=24, steps_per_epoch=350, epsilon_steps=1_000_000),
            replay=config.ReplayConfig(capacity_steps=10_000_000),
            evaluate=config.EvaluateConfig(every=40),
        ),
    ),
    "frozen-lake-small": Preset(
        "Meta-Frozen-Lake, 4 x 4, 5 attempts, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=34,
            updates_per_epoch=200,
            warmup_epochs=1,
            batch_size=24,
            window=48,
            threads=1,
            environment=config.EnvironmentConfig(suite="frozen_lake", tasks=("4x4",), attempts=5),
            agent=small_agent(context=48, **FEW_REWARDS),  # a trial of a good agent has 30 steps
            objective=small_objective(reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=32, steps_per_epoch=320, epsilon_steps=120_000),
            replay=config.ReplayConfig(capacity_steps=400_000),
            evaluate=config.EvaluateConfig(every=10, trials=32, final_trials=128),
        ),
    ),
}
