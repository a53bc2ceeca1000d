"""What a callback of the user's is given at the end of an epoch, and may do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twohot.agent import AgentNetworks
from twohot.config import ConfigurationError, TrainConfig
from twohot.runs.metrics import Kind


@dataclass(frozen=True)
class EpochEnd:
    """An epoch that has ended.

    Attributes:
        epoch: how many have ended, with this one.
        rows: the metrics that it logged, as `metrics.jsonl` has them, by the kind of their row: "collect", "update" and
            "evaluation", each of which is empty where the epoch had none.
        environment_steps, updates: steps of all actors together, and gradient steps, since the run began.
        run: its directory. config: its configuration, as resolved at the start.
    """

    epoch: int
    rows: Mapping[Kind, Mapping[str, float | list[float]]]
    environment_steps: int
    updates: int
    run: Path
    config: TrainConfig
    _networks: AgentNetworks = field(repr=False)
    _stops: list[bool] = field(default_factory=list, repr=False)

    @property
    def networks(self) -> AgentNetworks:
        """A copy of the networks as they are now: `twohot.Agent(end.networks, end.config)` acts with them."""
        return copy.deepcopy(self._networks)

    def stop(self) -> None:
        """End the training here, with a last evaluation and a checkpoint, as if it had been planned this long."""
        self._stops.append(True)

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called."""
        return bool(self._stops)


Callback = Callable[[EpochEnd], Mapping[str, Any] | None]
"""Called at the end of each epoch, before its checkpoint; what it returns is logged, "name" as the metric `own/name`.

Random numbers that it draws from torch's global generators do not change the run.
"""


def own_metrics(callback: Callback, returned: Any) -> dict[str, Any]:
    """Metrics of a row of the kind "own" from what a callback has returned.

    Raises:
        ConfigurationError: it is neither None nor a mapping from names.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
        raise ConfigurationError(
            f"callbacks: expected {getattr(callback, '__name__', callback)} to return None or a mapping from names to "
            f"numbers, got {returned!r:.100}"
        )
    return {f"own/{name}": value for name, value in returned.items()}
