"""Meta-World: ML45 and ML10 by the paper's settings, one class, MT10, and one class in minutes."""

from __future__ import annotations

from twohot import config
from twohot.envs.suites.metaworld import ML10_TEST, ML10_TRAIN, ML45_TEST, ML45_TRAIN, MT10
from twohot.presets.preset import Preset, small_agent


def _paper(tasks: tuple[str, ...], epochs: int, held_out: tuple[str, ...] = ()) -> config.TrainConfig:
    """Three attempts of 500 steps, 40 actors; an epoch is 40 000 steps, and epsilon falls within a trial too."""
    return config.TrainConfig(
        epochs=epochs,
        environment=config.EnvironmentConfig(suite="metaworld", tasks=tasks, attempts=3),
        agent=config.AgentConfig(width=320),
        objective=config.ObjectiveConfig(reward_multiplier=1.0),
        optimizer=config.OptimizerConfig(learning_rate=5e-4, gradient_clip=2.0),
        collect=config.CollectConfig(environments=40, epsilon_steps=2_000_000, trial_epsilon_steps=1500),
        replay=config.ReplayConfig(capacity_steps=25_000_000, storage="disk"),
        evaluate=config.EvaluateConfig(every=25, held_out_tasks=held_out, splits=("train", "test")),
    )


PRESETS: dict[str, Preset] = {
    "metaworld-ml45": Preset(
        "Meta-World ML45: 45 classes of one robot arm with hidden goals, three attempts (a GPU's work).",
        _paper(ML45_TRAIN, 2500, ML45_TEST),
    ),
    "metaworld-ml10": Preset(
        "Meta-World ML10: ten classes, as ML45 (a GPU's work).", _paper(ML10_TRAIN, 1000, ML10_TEST)
    ),
    "metaworld-mt10": Preset(
        "Meta-World MT10: ten classes whose goals are shown, as ML45 (a GPU's work).", _paper(MT10, 1000)
    ),
    "metaworld-ml1": Preset(
        "One class of Meta-World with hidden goals; name it with --environment.tasks.", _paper(("reach-v3",), 250)
    ),
    "metaworld-ml1-small": Preset(
        "Meta-World's reach with a hidden goal, a small agent; minutes on two cores.",
        config.TrainConfig(
            epochs=20,
            updates_per_epoch=150,
            warmup_epochs=1,
            batch_size=16,
            window=64,
            threads=1,
            environment=config.EnvironmentConfig(suite="metaworld", tasks=("reach-v3",), attempts=3),
            agent=small_agent(context=64, discount=0.99, training_discounts=(0.9,)),
            objective=config.ObjectiveConfig(reward_multiplier=1.0, target_rate=0.01),
            optimizer=config.OptimizerConfig(learning_rate=1e-3, warmup_updates=100),
            collect=config.CollectConfig(environments=8, steps_per_epoch=500, epsilon_steps=60_000),
            replay=config.ReplayConfig(capacity_steps=200_000),
            evaluate=config.EvaluateConfig(every=10, trials=4, final_trials=16),
        ),
    ),
}
