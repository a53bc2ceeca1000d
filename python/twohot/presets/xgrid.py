"""XGrid: tasks with hidden rules of three depths, a small set for two cores, and deep ones."""

from __future__ import annotations

from twohot import config
from twohot.losses import ValueBins
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "xgrid": Preset(
        "XGrid, medium: rules one to three deep in four rooms, five attempts (a GPU's work; not yet run to its end).",
        config.TrainConfig(
            epochs=1000,
            window=512,
            environment=config.EnvironmentConfig(suite="xgrid", tasks=("medium-r4-13x13-steps250",), attempts=5),
            agent=config.AgentConfig(context=1250, bins=ValueBins.amago2(count=64)),
            objective=config.ObjectiveConfig(reward_multiplier=100.0),
            collect=config.CollectConfig(environments=64, epsilon_steps=5_000_000),
            replay=config.ReplayConfig(storage="disk"),
            evaluate=config.EvaluateConfig(every=50, splits=("train", "test")),
        ),
    ),
    "xgrid-small": Preset(
        "XGrid, goals of one object, up to two rules deep, four attempts; two cores (pilots alone were run).",
        config.TrainConfig(
            epochs=60,
            updates_per_epoch=150,
            warmup_epochs=1,
            batch_size=24,
            window=100,
            threads=2,
            environment=config.EnvironmentConfig(
                suite="xgrid",
                tasks=(
                    "simple-r1-6x6-steps25",
                    "simple-r1-6x6-depth1-steps25",
                    "simple-r1-6x6-depth2-steps25",
                ),
                attempts=4,
            ),
            agent=small_agent(context=100, discount=0.95, grids="linear", **FEW_REWARDS),
            objective=small_objective(reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=200, decay_updates=9000),
            collect=config.CollectConfig(environments=64, steps_per_epoch=400, epsilon_steps=200_000),
            replay=config.ReplayConfig(capacity_steps=2_000_000),
            evaluate=config.EvaluateConfig(every=10, trials=32, final_trials=256, splits=("train", "test")),
        ),
    ),
    "xgrid-deep": Preset(
        "XGrid, deep: rules three to five deep in four rooms, ten attempts (a GPU's work; not yet run to its end).",
        config.TrainConfig(
            epochs=2000,
            window=512,
            environment=config.EnvironmentConfig(suite="xgrid", tasks=("deep-r4-13x13-steps300",), attempts=10),
            agent=config.AgentConfig(context=3000, layers=6, bins=ValueBins.amago2(count=64)),
            objective=config.ObjectiveConfig(reward_multiplier=100.0),
            collect=config.CollectConfig(environments=64, steps_per_epoch=3000, epsilon_steps=20_000_000),
            replay=config.ReplayConfig(storage="disk"),
            evaluate=config.EvaluateConfig(every=50, splits=("train", "test")),
        ),
    ),
}
