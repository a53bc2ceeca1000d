"""Dark-Key-To-Door: by the paper's settings, and a smaller room in minutes."""

from __future__ import annotations

from twohot import config
from twohot.presets.preset import Preset, small_agent, small_objective

PRESETS: dict[str, Preset] = {
    "dark-key": Preset(
        "Dark-Key-To-Door, 8 x 8, 500 steps a trial, by the paper's settings.",
        config.TrainConfig(
            epochs=400,
            updates_per_epoch=500,
            window=500,
            environment=config.EnvironmentConfig(suite="dark_key", tasks=("8x8",)),
            agent=config.AgentConfig(width=128, feed_forward=512, context=500),
            objective=config.ObjectiveConfig(reward_multiplier=100.0),
            collect=config.CollectConfig(
                environments=24, steps_per_epoch=500, epsilon_steps=500_000, trial_epsilon_steps=500
            ),
            replay=config.ReplayConfig(capacity_steps=10_000_000),
            evaluate=config.EvaluateConfig(every=25),
        ),
    ),
    "dark-key-small": Preset(
        "Dark-Key-To-Door, 4 x 4, 100 steps a trial, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=83,
            updates_per_epoch=100,
            warmup_epochs=3,
            batch_size=16,
            window=100,
            threads=2,
            environment=config.EnvironmentConfig(suite="dark_key", tasks=("4x4-short",)),
            agent=small_agent(
                context=100,
                discount=0.9,
                training_discounts=(0.5,),
                critic="scalar",
                probability_floor=1e-5,
                probability_ceiling=1.0,
            ),
            # Rewards that are all 1 have no scale to be independent of, and maximising the critics learns faster than
            # imitation alone. The binary filter settles on one action too early.
            objective=small_objective(actor="dependent", filter="exponential", filter_beta=50.0, reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100, decay_updates=8000),
            collect=config.CollectConfig(
                environments=64, steps_per_epoch=100, epsilon_end=0.1, epsilon_steps=150_000, randomize_epsilon=False
            ),
            replay=config.ReplayConfig(capacity_steps=400_000),
            evaluate=config.EvaluateConfig(every=10, trials=32, final_trials=128),
        ),
    ),
    "dark-key-8x8-small": Preset(
        "Dark-Key-To-Door, 8 x 8, resets cost a step; some two hours on one core (not yet run to its end).",
        config.TrainConfig(
            epochs=82,
            updates_per_epoch=1000,
            warmup_epochs=2,
            batch_size=4,
            window=500,
            threads=1,
            # An agent that is told neither the time nor where in its window a step is can act on the last 500 steps for
            # longer than it was trained.
            environment=config.EnvironmentConfig(suite="dark_key", tasks=("8x8-reset-step",), context_features=False),
            agent=small_agent(
                context=500,
                discount=0.95,
                training_discounts=(0.7,),
                critic="scalar",
                critic_actions="outputs",
                positions="rotary",
                probability_floor=1e-5,
                probability_ceiling=1.0,
            ),
            objective=small_objective(actor="dependent", filter="exponential", filter_beta=50.0, reward_multiplier=1.0),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100, decay_updates=80_000),
            collect=config.CollectConfig(
                environments=64, steps_per_epoch=500, epsilon_end=0.1, epsilon_steps=300_000, randomize_epsilon=False
            ),
            replay=config.ReplayConfig(capacity_steps=2_000_000),
            evaluate=config.EvaluateConfig(every=4, trials=32, final_trials=256),
        ),
    ),
}
