"""MazeRunner: three goals by the paper's settings, and one goal in minutes; both with hindsight relabelling."""

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
from twohot.presets.preset import FEW_REWARDS, Preset, small_agent

PRESETS: dict[str, Preset] = {
    "maze-runner": Preset(
        "MazeRunner, 11 x 11, three goals, with relabelling, by the paper's settings.",
        TrainConfig(
            epochs=400,
            window=250,
            environment=EnvironmentConfig(suite="maze_runner", tasks=("11x11-k3",)),
            agent=AgentConfig(width=128, feed_forward=512, context=250),
            objective=ObjectiveConfig(reward_multiplier=100.0),
            collect=CollectConfig(environments=24, epsilon_steps=500_000),
            replay=ReplayConfig(relabel=True),
            evaluate=EvaluateConfig(every=25),
        ),
    ),
    "maze-runner-small": Preset(
        "MazeRunner, 11 x 11, one goal, a small agent, with relabelling; minutes on two cores.",
        TrainConfig(
            epochs=30,
            updates_per_epoch=120,
            warmup_epochs=1,
            batch_size=16,
            window=128,
            threads=1,
            environment=EnvironmentConfig(suite="maze_runner", tasks=("11x11-k1",)),
            agent=small_agent(context=128, discount=0.98, **FEW_REWARDS),
            objective=ObjectiveConfig(
                reward_multiplier=1.0, action_samples=0, target_action_samples=0, target_rate=0.01
            ),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=CollectConfig(environments=16, steps_per_epoch=500, epsilon_steps=120_000),
            replay=ReplayConfig(capacity_steps=400_000, relabel=True),
            evaluate=EvaluateConfig(every=10, trials=16, final_trials=64),
        ),
    ),
}
