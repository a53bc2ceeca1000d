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
        "XGrid, which of six objects is it, up to two rules deep, six attempts; 40 minutes on a core.",
        config.TrainConfig(
            epochs=70,
            updates_per_epoch=150,
            warmup_epochs=1,
            batch_size=48,
            window=66,
            threads=2,
            environment=config.EnvironmentConfig(
                suite="xgrid",
                tasks=(
                    "simple-r1-7x7-steps10-same-map-reset-step",
                    "simple-r1-7x7-depth1-steps10-same-map-reset-step",
                    "simple-r1-7x7-depth2-steps10-same-map-reset-step",
                ),
                attempts=6,
            ),
            agent=small_agent(context=66, discount=0.9, training_discounts=(0.5,), grids="linear", **FEW_REWARDS),
            objective=small_objective(reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=200, decay_updates=10_500),
            # On one map a policy repeats what it did: a trial would show one attempt again and again. With noise
            # in the first attempts it shows others, and those after them what comes of knowing that.
            collect=config.CollectConfig(
                environments=64,
                steps_per_epoch=400,
                epsilon_end=0.6,
                epsilon_steps=300_000,
                trial_epsilon_start=0.9,
                trial_epsilon_end=0.02,
                trial_epsilon_steps=50,
            ),
            replay=config.ReplayConfig(capacity_steps=2_000_000),
            evaluate=config.EvaluateConfig(every=10, trials=64, final_trials=1000, splits=("train", "test")),
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
