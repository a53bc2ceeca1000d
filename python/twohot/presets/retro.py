"""Retro: four Super Mario Bros games by the paper's settings, and the free game in minutes."""

from __future__ import annotations

from twohot import config
from twohot.envs.suites.retro import MARIO
from twohot.losses import ValueBins
from twohot.presets.preset import Preset, small_agent

_BINS = ValueBins(-10_000.0, 60_000.0, 96)

PRESETS: dict[str, Preset] = {
    "retro-mario": Preset(
        "Four Super Mario Bros games with your own ROMs, tested on held-out levels (a GPU's work).",
        config.TrainConfig(
            epochs=10_000,
            updates_per_epoch=500,
            window=32,
            environment=config.EnvironmentConfig(suite="retro", tasks=MARIO),
            agent=config.AgentConfig(width=384, context=32, bins=_BINS),
            objective=config.ObjectiveConfig(reward_multiplier=0.5),
            optimizer=config.OptimizerConfig(learning_rate=3e-4, gradient_clip=2.0),
            collect=config.CollectConfig(environments=48, epsilon_end=0.1, epsilon_steps=500_000),
            replay=config.ReplayConfig(capacity_steps=1_000_000, storage="disk"),  # 21 KB a step
            evaluate=config.EvaluateConfig(every=100, trials=4, final_trials=20, splits=("train", "test")),
        ),
    ),
    "retro-small": Preset(
        "Airstriker, whose ROM is free, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=6,
            updates_per_epoch=30,
            warmup_epochs=1,
            batch_size=8,
            window=16,
            threads=2,
            environment=config.EnvironmentConfig(suite="retro", tasks=("Airstriker-Genesis-v0",)),
            agent=small_agent(context=16, discount=0.99, training_discounts=(0.9,), encoder_hidden=512, bins=_BINS),
            objective=config.ObjectiveConfig(reward_multiplier=0.5, target_rate=0.01),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=50),
            collect=config.CollectConfig(environments=2, steps_per_epoch=250, epsilon_steps=3_000),
            replay=config.ReplayConfig(capacity_steps=20_000),
            evaluate=config.EvaluateConfig(every=6, trials=2, final_trials=4),
        ),
    ),
}
