"""bsuite: one game with rewards of five scales, by an agent that learns while it is scored."""

from __future__ import annotations

from twohot import config
from twohot.losses import ValueBins
from twohot.presets.preset import Preset, small_agent

PRESETS: dict[str, Preset] = {
    "bsuite-small": Preset(
        "bsuite's catch with rewards of five scales, .001 to 1000, at once; minutes on two cores.",
        config.TrainConfig(
            epochs=100,
            updates_per_epoch=80,
            batch_size=48,
            window=10,
            threads=1,
            # 20 actors have 25 episodes of 9 steps in an epoch: 10 000 of each scale in all, which its score counts.
            environment=config.EnvironmentConfig(
                suite="bsuite", tasks=tuple(f"catch_scale/{setting}" for setting in (0, 4, 8, 12, 16))
            ),
            # Values of rewards of .001 need a factor to be spread over bins; those of 1000 then are a million.
            agent=small_agent(context=10, discount=0.97, bins=ValueBins(-1e8, 1e8, 128, "symlog")),
            objective=config.ObjectiveConfig(
                reward_multiplier=1000.0, action_samples=0, target_action_samples=0, target_rate=0.01
            ),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=config.CollectConfig(
                environments=20, steps_per_epoch=225, assignment="fixed", epsilon_end=0.02, epsilon_steps=40_000
            ),
            replay=config.ReplayConfig(capacity_steps=2_000_000),
            evaluate=config.EvaluateConfig(every=10, trials=16, final_trials=128),
        ),
    ),
}
