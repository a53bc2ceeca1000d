"""POPGym: six tasks in minutes, one task, and the paper's 27 at once."""

from __future__ import annotations

from twohot import config
from twohot.envs import MULTITASK_27
from twohot.losses import ValueBins
from twohot.presets.preset import Preset, small_agent

PRESETS: dict[str, Preset] = {
    "quickstart": Preset(
        "One small agent, six POPGym tasks with rewards spread over a factor of 1000; minutes on two cores.",
        config.TrainConfig(
            epochs=40,
            updates_per_epoch=160,
            warmup_epochs=1,
            batch_size=24,
            window=52,
            checkpoint_every=10,
            threads=1,
            environment=config.EnvironmentConfig(
                tasks=(
                    "RepeatFirstEasy",
                    "RepeatPreviousEasy",
                    "HigherLowerEasy",
                    "HigherLowerMedium",
                    "PositionOnlyCartPoleEasy",
                    "VelocityOnlyCartpoleEasy",
                ),
                reward_multipliers=(100.0, 10.0, 0.1, 3.0, 1.0, 0.3),
            ),
            agent=small_agent(context=52),
            objective=config.ObjectiveConfig(
                reward_multiplier=1000.0, action_samples=0, target_action_samples=1, target_rate=0.01
            ),
            optimizer=config.OptimizerConfig(learning_rate=2e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=16, steps_per_epoch=260, epsilon_steps=80_000),
            replay=config.ReplayConfig(capacity_steps=200_000),
            evaluate=config.EvaluateConfig(every=5, trials=8, final_trials=64),
        ),
    ),
    "popgym": Preset(
        "One POPGym task with the paper's settings; name it with --environment.tasks.",
        config.TrainConfig(
            window=2000,
            agent=config.AgentConfig(context=2000),
            objective=config.ObjectiveConfig(reward_multiplier=100.0, target_rate=0.0025),
            optimizer=config.OptimizerConfig(warmup_updates=2000),
            collect=config.CollectConfig(environments=24),
        ),
    ),
    "popgym-multitask-small": Preset(
        "One small agent for eight POPGym tasks; some two hours on one core (not yet run to its end).",
        config.TrainConfig(
            epochs=100,
            updates_per_epoch=500,
            warmup_epochs=1,
            batch_size=16,
            window=416,
            checkpoint_every=10,
            threads=1,
            environment=config.EnvironmentConfig(
                tasks=(
                    "RepeatFirstEasy",
                    "RepeatFirstMedium",
                    "RepeatPreviousEasy",
                    "PositionOnlyCartPoleEasy",
                    "HigherLowerEasy",
                    "HigherLowerMedium",
                    "MultiarmedBanditEasy",
                    "CountRecallEasy",
                ),
            ),
            agent=small_agent(context=416, discount=0.99, training_discounts=(0.7, 0.95)),
            objective=config.ObjectiveConfig(
                reward_multiplier=1000.0, action_samples=0, target_action_samples=1, target_rate=0.01
            ),
            optimizer=config.OptimizerConfig(
                learning_rate=2e-3, warmup_updates=100, decay_updates=50_000, group_by_length=True
            ),
            collect=config.CollectConfig(environments=32, steps_per_epoch=500, epsilon_steps=400_000),
            replay=config.ReplayConfig(capacity_steps=400_000),
            evaluate=config.EvaluateConfig(every=10, trials=16, final_trials=256),
        ),
    ),
    "popgym-multitask": Preset(
        "The paper's 27 POPGym games at once: two attempts, the first unscored (a GPU's work).",
        config.TrainConfig(
            epochs=625,
            window=2000,
            environment=config.EnvironmentConfig(
                tasks=MULTITASK_27, attempts=2, unscored_attempts=1, observation_size=26, actions=26
            ),
            agent=config.AgentConfig(
                context=2000,
                bins=ValueBins.amago2(count=64),
                training_discounts=(
                    *(0.1, 0.7, 0.9, 0.93, 0.95, 0.98, 0.99, 0.992, 0.994, 0.995, 0.997, 0.998),
                    *(0.999, 0.9991, 0.9992, 0.9993, 0.9994, 0.9995),
                ),
                discount=0.999,
            ),
            objective=config.ObjectiveConfig(reward_multiplier=200.0, target_rate=0.0025),
            optimizer=config.OptimizerConfig(warmup_updates=2000),
            collect=config.CollectConfig(environments=24),
            evaluate=config.EvaluateConfig(every=25),
        ),
    ),
}
