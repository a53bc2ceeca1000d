"""A stand-in for the modules wandb and trackio, which notes what it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Tracker(SimpleNamespace):
    """What the modules wandb and trackio have in common: `init` gives a run, which logs and finishes."""

    def __init__(self) -> None:
        super().__init__(inits=[], logged=[], finished=[], metrics=[])

    def init(self, **arguments: Any) -> Tracker:
        self.inits.append(arguments)
        return self

    def define_metric(self, name: str, **options: str) -> None:
        self.metrics.append((name, options))

    def log(self, values: dict[str, float], **where: int) -> None:
        self.logged.append((values, where))

    def finish(self, **how: int) -> None:
        self.finished.append(how)
