"""T-Maze: a horizon of a thousand steps, one of thirty in minutes, and many of up to 256."""

from __future__ import annotations

from twohot import config
from twohot.presets.preset import Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "tmaze": Preset(
        "A passive T-Maze of 1000 steps, by the paper's settings (a GPU's work).",
        config.TrainConfig(
            epochs=400,
            window=1001,
            environment=config.EnvironmentConfig(suite="tmaze", tasks=("passive-1000",)),
            agent=config.AgentConfig(width=128, layers=2, feed_forward=512, context=1001, discount=0.9999),
            objective=config.ObjectiveConfig(reward_multiplier=100.0),
            collect=config.CollectConfig(
                environments=24, steps_per_epoch=1001, epsilon_end=0.001, epsilon_steps=2_000_000
            ),
            evaluate=config.EvaluateConfig(every=25),
        ),
    ),
    "tmaze-small": Preset(
        "A passive T-Maze of 30 steps, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=30,
            updates_per_epoch=150,
            warmup_epochs=1,
            batch_size=24,
            window=31,
            threads=1,
            environment=config.EnvironmentConfig(suite="tmaze", tasks=("passive-30",)),
            agent=small_agent(context=31, discount=0.99),
            objective=config.ObjectiveConfig(
                reward_multiplier=100.0, action_samples=0, target_action_samples=1, target_rate=0.01
            ),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=16, steps_per_epoch=310, epsilon_end=0.01, epsilon_steps=60_000),
            replay=config.ReplayConfig(capacity_steps=200_000),
            evaluate=config.EvaluateConfig(every=10, trials=32, final_trials=128),
        ),
    ),
    "tmaze-passive-small": Preset(
        "Passive T-Mazes of 32 to 256 steps, tested at 128; some ten minutes on one core (not yet run to its end).",
        config.TrainConfig(
            epochs=30,
            updates_per_epoch=200,
            warmup_epochs=1,
            batch_size=16,
            window=257,
            threads=1,
            environment=config.EnvironmentConfig(suite="tmaze", tasks=("passive-32-256",)),
            # A way of 256 steps right needs a policy that is surer than .99 of each.
            # Two-hot critics of this size had not learnt the cue after 5,800 updates (docs/benchmarks/tmaze.md).
            agent=small_agent(
                context=257,
                discount=0.99,
                critic="hl_gauss",
                hl_gauss_sigma=3.0,
                probability_floor=1e-5,
                probability_ceiling=1.0,
            ),
            objective=small_objective(reward_multiplier=100.0),
            optimizer=config.OptimizerConfig(
                learning_rate=2e-3, warmup_updates=100, decay_updates=5800, group_by_length=True
            ),
            collect=config.CollectConfig(
                environments=16,
                steps_per_epoch=935,
                epsilon_start=0.5,
                epsilon_end=0.1,
                epsilon_steps=300_000,
                randomize_epsilon=False,
                epsilon_where="asked",
            ),
            replay=config.ReplayConfig(capacity_steps=500_000),
            evaluate=config.EvaluateConfig(
                every=3, trials=32, final_trials=256, greedy=True, held_out_tasks=("passive-128",)
            ),
        ),
    ),
}
