"""Batches from several replays at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from twohot.replay.batch import Batch, make_batch
from twohot.replay.prefetch import prefetch
from twohot.replay.store import Replay


class Mixture:
    """Draws each window of a batch from one of several replays of one schema, in proportion to `weights`.

        mixture = Mixture([demonstrations, online], weights=[1, 1], seed=0)
        mixture.weights = [1 - progress, progress]      # annealed, whenever the user likes

    The number of windows of each replay is drawn anew for every batch, from a multinomial law; the windows of a batch
    stand in the order of the replays. A weight of 0 draws nothing from a replay, which may then be empty.

    Args:
        replays: at least one. weights: as many numbers >= 0, not all 0. seed: of the draws of replays.

    Raises:
        ValueError: for schemas that differ, and for other weights.
    """

    def __init__(self, replays: Sequence[Replay], weights: Sequence[float], *, seed: int = 0) -> None:
        self.replays = list(replays)
        if not self.replays or any(replay.schema != self.replays[0].schema for replay in self.replays):
            raise ValueError("replays: expected at least one, all with the same schema")
        self.weights = weights
        self._random = np.random.Generator(np.random.PCG64(seed))

    @property
    def weights(self) -> np.ndarray:
        """float64 [replays], summing to 1. May be set at any time."""
        return self._weights.copy()

    @weights.setter
    def weights(self, weights: Sequence[float]) -> None:
        values = np.asarray(weights, np.float64)
        if (
            values.shape != (len(self.replays),)
            or not np.isfinite(values).all()
            or (values < 0).any()
            or not values.any()
        ):
            raise ValueError(f"weights: expected {len(self.replays)} numbers >= 0, not all 0, got {weights}")
        self._weights = values / values.sum()

    @property
    def random_state(self) -> dict[str, Any]:
        """Of the draws of replays, as plain values; each replay has its own beside it. Setting it repeats them."""
        return self._random.bit_generator.state

    @random_state.setter
    def random_state(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state

    def batch(self, batch_size: int, length: int, lookahead: int = 0, **options: bool) -> Batch:
        """As `Replay.batch`."""
        return self.replays[0].batch(batch_size, length, lookahead, **options)

    def sample(self, batch_size: int, length: int, *, out: Batch | None = None, **options: Any) -> Batch:
        """As `Replay.sample`, with its options."""
        batch = self.batch(batch_size, length, options.get("lookahead", 0)) if out is None else out
        first = 0
        for replay, count in zip(self.replays, self._random.multinomial(batch_size, self._weights), strict=True):
            if count:
                replay.sample(int(count), length, out=batch.rows(first, int(count)), **options)
            first += int(count)
        return batch

    def loader(
        self,
        batch_size: int,
        length: int,
        *,
        batches: int,
        ahead: int = 2,
        torch: bool = False,
        pin_memory: bool = False,
        **options: Any,
    ) -> Iterator[Batch]:
        """As `Replay.loader`. Weights set while it runs count from the batches on that are not yet drawn."""
        sizes = (batch_size, length, options.get("lookahead", 0))
        schema = self.replays[0].schema
        memories = [
            make_batch(schema, *sizes, torch=torch, pin_memory=pin_memory) for _ in range(min(ahead + 1, batches))
        ]
        return prefetch(lambda out: self.sample(batch_size, length, out=out, **options), memories, batches)
