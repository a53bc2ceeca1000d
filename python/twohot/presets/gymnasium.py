"""Any environment of gymnasium, and four classics at once on their natural scales."""

from __future__ import annotations

from dataclasses import replace

from twohot import config
from twohot.presets.preset import Preset, small_agent, small_objective

_CLASSICS = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCar-v0")
_SMALL = config.TrainConfig(
    epochs=40,
    updates_per_epoch=200,
    warmup_epochs=1,
    batch_size=32,
    window=24,
    threads=1,
    environment=config.EnvironmentConfig(suite="gym", tasks=("CartPole-v1",)),
    agent=small_agent(context=24, discount=0.99),
    objective=small_objective(reward_multiplier=10.0),
    optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=100),
    collect=config.CollectConfig(environments=16, steps_per_epoch=300, epsilon_steps=100_000),
    replay=config.ReplayConfig(capacity_steps=400_000),
    evaluate=config.EvaluateConfig(every=10, trials=8, final_trials=32),
)

PRESETS: dict[str, Preset] = {
    "gym": Preset(
        "Any environments of gymnasium, CartPole if none: --env LunarLander-v3 (several ids: one multi-task agent).",
        config.TrainConfig(
            epochs=100,
            window=128,
            environment=config.EnvironmentConfig(suite="gym", tasks=("CartPole-v1",)),
            agent=config.AgentConfig(width=128, feed_forward=512, context=128, discount=0.99),
            collect=config.CollectConfig(environments=16, epsilon_steps=200_000),
        ),
    ),
    "gym-small": Preset("As gym, a small agent; minutes on two cores.", _SMALL),
    "classic-multitask": Preset(
        "CartPole, Acrobot, LunarLander and MountainCar at once, returns from -500 to 500 as they are; minutes.",
        replace(_SMALL, environment=config.EnvironmentConfig(suite="gym", tasks=_CLASSICS)),
    ),
}
