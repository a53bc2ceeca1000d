"""RL^2's bandits and tabular MDPs, seven at once: by a larger agent, and by a small one on one core."""

from __future__ import annotations

from typing import Any

from twohot import config
from twohot.envs.suites.rl2 import CORE
from twohot.losses import ValueBins
from twohot.presets.preset import Preset, small_agent

_ENVIRONMENT = config.EnvironmentConfig(suite="rl2", tasks=CORE)
# Around discounted returns of -20 to 100. With coarse ones critics told arms apart sooner
# (docs/benchmarks/rl2.md).
_BINS = ValueBins(-20.0, 100.0, 14, "symlog")
# One of fifty actions that is never wanted must not be played one time in a thousand, nor the best one 99 of 100.
_PROBABILITIES: dict[str, Any] = {"probability_floor": 1e-5, "probability_ceiling": 1.0}

PRESETS: dict[str, Preset] = {
    "rl2": Preset(
        "Five bandits and two tabular MDPs of the RL^2 tables at once, rewards as they are (a GPU's work).",
        config.TrainConfig(
            epochs=1000,
            updates_per_epoch=200,
            batch_size=32,
            window=250,
            environment=_ENVIRONMENT,
            agent=config.AgentConfig(
                width=128,
                feed_forward=512,
                context=250,
                discount=0.99,
                training_discounts=(0.7, 0.9, 0.97),
                bins=ValueBins(-50.0, 500.0, 64, "symlog"),
                **_PROBABILITIES,
            ),
            objective=config.ObjectiveConfig(reward_multiplier=1.0, action_samples=0, target_action_samples=1),
            optimizer=config.OptimizerConfig(learning_rate=3e-4, decay_updates=200_000),
            collect=config.CollectConfig(environments=64, steps_per_epoch=250, epsilon_steps=4_000_000),
            replay=config.ReplayConfig(capacity_steps=2_000_000, by="task"),
            evaluate=config.EvaluateConfig(every=50, trials=128, final_trials=1000),
        ),
    ),
    "rl2-small": Preset(
        "Seven bandits and MDPs of the RL^2 tables, at once; some 90 minutes on one core.",
        config.TrainConfig(
            epochs=400,
            updates_per_epoch=100,
            warmup_epochs=1,
            batch_size=16,
            window=250,
            threads=1,
            environment=_ENVIRONMENT,
            agent=small_agent(
                context=250,
                discount=0.95,
                training_discounts=(0.7,),
                bins=_BINS,
                logit_scale=10.0,
                **_PROBABILITIES,
            ),
            objective=config.ObjectiveConfig(
                imitation_weight=0.1,
                reward_multiplier=1.0,
                action_samples=0,
                target_action_samples=1,
                target_rate=0.02,
            ),
            optimizer=config.OptimizerConfig(
                learning_rate=1e-3, warmup_updates=200, decay_updates=40_000, group_by_length=True
            ),
            collect=config.CollectConfig(environments=64, steps_per_epoch=200, epsilon_steps=1_500_000),
            replay=config.ReplayConfig(capacity_steps=1_000_000, by="task", threads=1),
            evaluate=config.EvaluateConfig(every=40, trials=128, final_trials=1000),
        ),
    ),
}
