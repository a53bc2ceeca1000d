"""Atari: the paper's ten games with unclipped scores, and two games in minutes."""

from __future__ import annotations

from twohot import config
from twohot.envs.suites.atari import MULTI_GAME
from twohot.presets.preset import Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "atari": Preset(
        "Ten Atari games at once, scores unclipped (a GPU's work).",
        config.TrainConfig(
            epochs=2000,
            window=80,
            environment=config.EnvironmentConfig(suite="atari", tasks=MULTI_GAME),
            agent=config.AgentConfig(context=80),
            objective=config.ObjectiveConfig(reward_multiplier=0.25),
            collect=config.CollectConfig(environments=20),
            replay=config.ReplayConfig(capacity_steps=1_000_000, storage="disk"),  # 21 KB a step
            evaluate=config.EvaluateConfig(every=50, trials=2, final_trials=10),
        ),
    ),
    "atari-small": Preset(
        "Pong and Boxing, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=8,
            updates_per_epoch=30,
            warmup_epochs=1,
            batch_size=8,
            window=16,
            threads=2,
            environment=config.EnvironmentConfig(suite="atari", tasks=("Boxing", "Pong")),
            agent=small_agent(context=16, discount=0.99, training_discounts=(0.9,), encoder_hidden=512),
            objective=small_objective(),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=50),
            collect=config.CollectConfig(environments=4, steps_per_epoch=250, epsilon_steps=8_000),
            replay=config.ReplayConfig(capacity_steps=20_000),
            evaluate=config.EvaluateConfig(every=8, trials=1, final_trials=2),
        ),
    ),
}
