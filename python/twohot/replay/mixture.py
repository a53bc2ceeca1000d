"""Batches from several replays at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from twohot.replay.arguments import MAX_COUNT, instance, integer
from twohot.replay.batch import Batch
from twohot.replay.prefetch import Loadable
from twohot.replay.store import Replay


class Mixture(Loadable):
    """Draws each window of a batch from one of several replays of one schema, in proportion to `weights`.

        mixture = Mixture([demonstrations, online], weights=[1, 1], seed=0)
        mixture.weights = [1 - progress, progress]      # annealed, whenever the user likes

    The number of windows of each replay is drawn for every batch, from a multinomial distribution; the windows of a
    batch stand in the order of the replays. A weight of 0 draws nothing from a replay, which may then be empty. Weights
    that are set while a loader runs apply to the batches that are not yet drawn.

    Args:
        replays: at least one, in memory or in directories. weights: as many numbers >= 0, not all 0. seed: of the draws
            of replays, at least 0.

    Raises:
        ValueError: for schemas that differ, and for other weights. TypeError: for what is no replay.
    """

    def __init__(self, replays: Sequence[Replay], weights: Sequence[float], *, seed: int = 0) -> None:
        self.replays = [instance("replays", replay, Replay, "each of them") for replay in replays]
        if not self.replays or any(replay.schema != self.replays[0].schema for replay in self.replays):
            raise ValueError("replays: expected at least one, all with the same schema")
        self.weights = weights
        self._random = np.random.Generator(np.random.PCG64(integer("seed", seed, 0)))

    def __repr__(self) -> str:
        return f"Mixture({self.replays}, weights={self._weights.tolist()})"

    @property
    def weights(self) -> np.ndarray:
        """float64 [replays], summing to 1. May be set at any time."""
        return self._weights.copy()

    @weights.setter
    def weights(self, weights: Sequence[float]) -> None:
        try:
            values = np.asarray(weights, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if (
            values.shape != (len(self.replays),)
            or not np.isfinite(values).all()
            or (values < 0).any()
            or not values.any()
        ):
            raise ValueError(f"weights: expected {len(self.replays)} numbers >= 0, not all 0, got {weights!r:.60}")
        self._weights = values / values.sum()

    @property
    def random_state(self) -> dict[str, Any]:
        """Of the draws of replays, as plain values; each replay has its own beside it. Setting it repeats them."""
        return dict(self._random.bit_generator.state)

    @random_state.setter
    def random_state(self, state: dict[str, Any]) -> None:
        try:
            self._random.bit_generator.state = state
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"random_state: expected a state that it had before, got {state!r:.60}") from error

    def batch(self, batch_size: int, length: int, lookahead: int = 0, **options: bool) -> Batch:
        """As `Replay.batch`."""
        return self.replays[0].batch(batch_size, length, lookahead, **options)

    def sample(self, batch_size: int, length: int, *, out: Batch | None = None, **options: Any) -> Batch:
        """As `Replay.sample`, with its options."""
        batch_size = integer("batch_size", batch_size, 1, MAX_COUNT)
        batch = self.batch(batch_size, length, options.get("lookahead", 0)) if out is None else out
        if len(instance("out", batch, Batch, "as batch() makes it").start) != batch_size:
            raise ValueError(f"out: expected a Batch of {batch_size} windows, as batch() makes it")
        first = 0
        for replay, count in zip(self.replays, self._random.multinomial(batch_size, self._weights), strict=True):
            if count:
                replay.sample(int(count), length, out=batch.rows(first, int(count)), **options)
            first += int(count)
        return batch
