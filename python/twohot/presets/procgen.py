"""Procgen: the paper's three sets of games with two attempts at a level, and two games in minutes."""

from __future__ import annotations

from twohot import config
from twohot.envs.suites.procgen import EASY, EASY_RESCALED_MULTIPLIERS, MEMORY_HARD
from twohot.presets.preset import Preset, small_agent, small_objective


def _paper(tasks: tuple[str, ...], multipliers: tuple[float, ...] = ()) -> config.TrainConfig:
    return config.TrainConfig(
        epochs=2000,
        environment=config.EnvironmentConfig(suite="procgen", tasks=tasks, reward_multipliers=multipliers, attempts=2),
        replay=config.ReplayConfig(capacity_steps=2_000_000, storage="disk"),  # 12 KB a step
        evaluate=config.EvaluateConfig(every=25, splits=("train", "test")),
    )


PRESETS: dict[str, Preset] = {
    "procgen-easy": Preset("Five easy Procgen games at once, two attempts at a level (a GPU's work).", _paper(EASY)),
    "procgen-easy-rescaled": Preset(
        "The same with rewards spread over a factor of 1000 (a GPU's work).", _paper(EASY, EASY_RESCALED_MULTIPLIERS)
    ),
    "procgen-memory-hard": Preset(
        "All 16 Procgen games at once, in memory mode where there is one, else hard (a GPU's work).",
        _paper(MEMORY_HARD),
    ),
    "procgen-small": Preset(
        "Two easy Procgen games, two attempts at a level, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=12,
            updates_per_epoch=40,
            warmup_epochs=1,
            batch_size=8,
            window=32,
            threads=2,
            environment=config.EnvironmentConfig(suite="procgen", tasks=("leaper-easy", "maze-easy"), attempts=2),
            agent=small_agent(context=64, discount=0.99, training_discounts=(0.9,), encoder_hidden=512),
            objective=small_objective(),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=50),
            collect=config.CollectConfig(environments=8, steps_per_epoch=250, epsilon_steps=20_000),
            replay=config.ReplayConfig(capacity_steps=50_000),
            evaluate=config.EvaluateConfig(every=6, trials=4, final_trials=16),
        ),
    ),
}
