"""HalfCheetahVel: by the paper's settings, and a small agent in minutes."""

from __future__ import annotations

from twohot import config
from twohot.presets.preset import Preset, small_agent

PRESETS: dict[str, Preset] = {
    "half-cheetah-vel": Preset(
        "HalfCheetahVel: run at a velocity that is not shown, by the paper's settings.",
        config.TrainConfig(
            epochs=300,
            window=32,
            environment=config.EnvironmentConfig(suite="half_cheetah", tasks=("vel",)),
            agent=config.AgentConfig(width=128, feed_forward=512, context=32, discount=0.99),
            objective=config.ObjectiveConfig(reward_multiplier=1.0, target_rate=0.005),
            optimizer=config.OptimizerConfig(learning_rate=3e-4, gradient_clip=2.0),
            collect=config.CollectConfig(environments=24, steps_per_epoch=1000, epsilon_steps=500_000),
            evaluate=config.EvaluateConfig(every=20),
        ),
    ),
    "half-cheetah-vel-small": Preset(
        "HalfCheetahVel with 200 steps an episode, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=30,
            updates_per_epoch=600,
            warmup_epochs=1,
            batch_size=32,
            window=24,
            threads=1,
            environment=config.EnvironmentConfig(suite="half_cheetah", tasks=("vel-200",)),
            agent=small_agent(context=24, discount=0.95, training_discounts=(0.9,), critic="scalar"),
            # Imitation would narrow a density around what few random torques happened to do well.
            objective=config.ObjectiveConfig(
                actor="dependent", imitation_weight=0.0, reward_multiplier=1.0, target_rate=0.01
            ),
            optimizer=config.OptimizerConfig(learning_rate=5e-4, warmup_updates=100),
            collect=config.CollectConfig(
                environments=8, steps_per_epoch=400, epsilon_end=0.2, epsilon_steps=60_000, randomize_epsilon=False
            ),
            replay=config.ReplayConfig(capacity_steps=200_000),
            evaluate=config.EvaluateConfig(every=10, trials=8, final_trials=64),
        ),
    ),
}
