"""Atari: the paper's ten games with unclipped scores, and two games in minutes."""

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
from twohot.envs.suites.atari import MULTI_GAME
from twohot.presets.preset import Preset, small_agent

PRESETS: dict[str, Preset] = {
    "atari": Preset(
        "Ten Atari games at once, scores unclipped (a GPU's work).",
        TrainConfig(
            epochs=2000,
            window=80,
            environment=EnvironmentConfig(suite="atari", tasks=MULTI_GAME),
            agent=AgentConfig(context=80),
            objective=ObjectiveConfig(reward_multiplier=0.25),
            collect=CollectConfig(environments=20),
            replay=ReplayConfig(capacity_steps=1_000_000, storage="disk"),  # 21 KB a step
            evaluate=EvaluateConfig(every=50, trials=2, final_trials=10),
        ),
    ),
    "atari-small": Preset(
        "Pong and Boxing, a small agent; minutes on two cores.",
        TrainConfig(
            epochs=8,
            updates_per_epoch=30,
            warmup_epochs=1,
            batch_size=8,
            window=16,
            threads=2,
            environment=EnvironmentConfig(suite="atari", tasks=("Boxing", "Pong")),
            agent=small_agent(context=16, discount=0.99, training_discounts=(0.9,), encoder_hidden=512),
            objective=ObjectiveConfig(action_samples=0, target_action_samples=0, target_rate=0.01),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_updates=50),
            collect=CollectConfig(environments=4, steps_per_epoch=250, epsilon_steps=8_000),
            replay=ReplayConfig(capacity_steps=20_000),
            evaluate=EvaluateConfig(every=8, trials=1, final_trials=2),
        ),
    ),
}
