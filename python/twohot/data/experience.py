"""What a run learns from: its own trajectories, recorded data, or a mixture of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space

from twohot.config import ConfigurationError, TrainConfig
from twohot.data.offline import load_offline
from twohot.errors import TwohotError
from twohot.replay import Mixture, Replay

DATA_STREAM = 5
"""Of a run's seed (a spawn key of numpy's SeedSequence), for learners but the first."""


class Experience:
    """A run's own replay beside the datasets of `config.data`.

    Args:
        config: of the run. observation, action: spaces of its agent.
        stream: ends the spawn key of its random numbers; () for those of the first learner.

    Raises:
        ConfigurationError: for a dataset that cannot be read, or that the agent cannot see.
    """

    def __init__(self, config: TrainConfig, observation: Space, action: Space, stream: tuple[int, ...] = ()) -> None:
        self._config = config.data
        seed = config.seed
        if stream:
            seed = int(
                np.random.SeedSequence(seed, spawn_key=(DATA_STREAM, *stream)).generate_state(1, np.uint64)[0] >> 1
            )
        self._datasets: list[Replay] = []
        for source in config.data.sources:
            try:
                data = load_offline(
                    source,
                    observation_space=observation,
                    action_space=action,
                    context_features=config.environment.context_features,
                    seed=seed,
                    threads=config.replay.threads,
                )
            except (TwohotError, OSError, ValueError) as error:
                raise ConfigurationError(f"data.sources: {error}") from error
            self._datasets.append(data.replay)
        weights = config.data.weights or (1.0,) * len(self._datasets)
        self._weights = np.array(weights) / sum(weights) if self._datasets else np.zeros(0)
        self._random: np.random.BitGenerator = np.random.PCG64(seed)
        self._mixture: Mixture | None = None

    def sampler(self, own: Replay) -> Replay | Mixture | None:
        """What to draw batches from now: datasets alone until the run has stored a trajectory; None before any."""
        empty = own.stats().trajectories == 0
        if not self._datasets:
            return None if empty else own
        own_fraction = 0.0 if empty else self._config.own_fraction
        mixture = Mixture([own, *self._datasets], [own_fraction, *((1 - own_fraction) * self._weights)])
        mixture.random_state = dict(self._random.state)
        self._mixture = mixture
        return mixture

    def drawn(self) -> None:
        """Batches that `sampler` was asked for have been drawn."""
        if self._mixture is not None:
            self._random.state = self._mixture.random_state

    def state_dict(self) -> dict[str, Any]:
        """JSON values of all random streams but the one of the run's own replay."""
        states = [[int(word) for word in replay.random_state] for replay in self._datasets]
        return {"datasets": states, "mixture": self._random.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Repeat the draws since `state_dict` returned these values."""
        for replay, words in zip(self._datasets, state["datasets"], strict=True):
            replay.random_state = words
        self._random.state = state["mixture"]
