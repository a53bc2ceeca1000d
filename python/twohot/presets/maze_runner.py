"""MazeRunner: three goals by the paper's settings, and one goal in minutes; both with hindsight relabelling."""

from __future__ import annotations

from twohot import config
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "maze-runner": Preset(
        "MazeRunner, 11 x 11, three goals, with relabelling, by the paper's settings.",
        config.TrainConfig(
            epochs=400,
            window=250,
            environment=config.EnvironmentConfig(suite="maze_runner", tasks=("11x11-k3",)),
            agent=config.AgentConfig(width=128, feed_forward=512, context=250),
            objective=config.ObjectiveConfig(reward_multiplier=100.0),
            collect=config.CollectConfig(environments=24, epsilon_steps=500_000),
            replay=config.ReplayConfig(relabel=True),
            evaluate=config.EvaluateConfig(every=25),
        ),
    ),
    "maze-runner-small": Preset(
        "MazeRunner, 11 x 11, one goal, a small agent, with relabelling; minutes on two cores.",
        config.TrainConfig(
            epochs=30,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=16,
            window=128,
            threads=1,
            environment=config.EnvironmentConfig(suite="maze_runner", tasks=("11x11-k1",)),
            agent=small_agent(context=128, discount=0.98, **FEW_REWARDS),
            objective=small_objective(reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=16, steps_per_epoch=500, epsilon_steps=120_000),
            replay=config.ReplayConfig(capacity_steps=400_000, relabel=True),
            evaluate=config.EvaluateConfig(every=10, trials=16, final_trials=64),
        ),
    ),
}
