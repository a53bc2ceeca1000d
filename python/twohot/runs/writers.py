"""Where else than to `metrics.jsonl` rows of metrics go while a run trains: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twohot.config.options import flat
from twohot.errors import UsageError
from twohot.extras import MissingExtraError, here
from twohot.files import read_object
from twohot.info import START_NAME
from twohot.text import printable

if TYPE_CHECKING:
    from twohot.runs.metrics import Row

__all__ = ["WRITERS", "TensorBoard", "Trackio", "WandB", "Writer", "make_writers"]

PROJECT = "twohot"
"""What runs belong to in W&B and trackio where nothing else is said."""


class Writer(Protocol):
    """Takes each row of metrics of a run, beside `metrics.jsonl`.

    What it raises ends the training, which goes on from its newest checkpoint when it is resumed.
    """

    def open(self, run: Path, first_step: int | None) -> None:
        """Before the first row.

        Args:
            run: the directory, with `config.json` and `run.json`.
            first_step: environment steps from which on former points are void, because their rows will be computed
                again; None where there are none such.
        """
        ...

    def write(self, row: Row) -> None:
        """Take a row, which is in `metrics.jsonl` already."""
        ...

    def close(self, failed: bool) -> None:
        """After the last row. failed: an exception, or a signal, ends the training."""
        ...


class TensorBoard:
    """Writes scalars and the configuration (as hyper-parameters) to `RUN/tensorboard`, over environment steps."""

    def __init__(self) -> None:
        self._run, self._purge_step, self._board = Path(), None, None

    def open(self, run: Path, first_step: int | None) -> None:
        """See `Writer`. Files are made with the first row."""
        self._run, self._purge_step, self._board = run, first_step, None

    def write(self, row: Row) -> None:
        """See `Writer`."""
        if self._board is None:
            self._board = self._make_board()
        for name, value in _scalars(row).items():
            self._board.add_scalar(printable(name), value, global_step=row.environment_steps)

    def close(self, failed: bool) -> None:
        """See `Writer`."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _make_board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        board = SummaryWriter(str(self._run / "tensorboard"), purge_step=self._purge_step)
        config = _config(self._run)
        if config:
            tasks = config.get("environment", {}).get("tasks", ())
            settings = {name: _setting(value) for name, value in flat(config).items()}
            shown = {printable(f"evaluation/return/{task}"): 0.0 for task in tasks}
            assert board.file_writer is not None
            for part in hparams(settings, shown)[:2]:  # without the last, which says that the run is over
                board.file_writer.add_summary(part)
        return board


class WandB:
    """Writes to Weights & Biases: scalars over environment steps, and the configuration. Needs `twohot[wandb]`.

    A run that is resumed goes on there as well; rows that are computed again stand there twice, equal on a CPU.

    Args:
        project: where the run appears; by default what WANDB_PROJECT says, else "twohot".
        settings: other arguments of `wandb.init`, such as `entity`, `group`, `tags` or `mode="offline"`.
    """

    def __init__(self, project: str | None = None, **settings: Any) -> None:
        self._settings = {"project": project or os.environ.get("WANDB_PROJECT") or PROJECT, **settings}
        self._run: Any = None

    def open(self, run: Path, first_step: int | None) -> None:
        """See `Writer`."""
        about = {"name": run.resolve().name, "dir": str(run), "id": _identity(run), "resume": "allow"}
        self._run = _module("wandb").init(**{**about, "config": _config(run), **self._settings})
        for axis in ("environment_steps", "updates", "seconds"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="environment_steps")

    def write(self, row: Row) -> None:
        """See `Writer`."""
        self._run.log({**_axes(row), **_scalars(row)})

    def close(self, failed: bool) -> None:
        """See `Writer`."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


class Trackio:
    """Writes to trackio, a tracker whose database and dashboard are local. Needs `twohot[trackio]`.

    A run that is resumed goes on there as well; rows that are computed again stand there twice, equal on a CPU.

    Args:
        project: where the run appears. settings: other arguments of `trackio.init`, such as `group` or `space_id`.
    """

    def __init__(self, project: str = PROJECT, **settings: Any) -> None:
        self._settings = {"project": project, **settings}
        self._run: Any = None

    def open(self, run: Path, first_step: int | None) -> None:
        """See `Writer`."""
        about = {"name": f"{run.resolve().name}-{_identity(run)}", "resume": "allow", "embed": False}
        self._run = _module("trackio").init(**{**about, "config": _config(run), **self._settings})

    def write(self, row: Row) -> None:
        """See `Writer`."""
        self._run.log({**_axes(row), **_scalars(row)}, step=row.environment_steps)

    def close(self, failed: bool) -> None:
        """See `Writer`."""
        if self._run is not None:
            self._run.finish()


WRITERS = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
"""Those that have a name."""


def make_writers(writers: Iterable[str | Writer]) -> list[Writer]:
    """Writers, of which some are given by their name. Raises UsageError for a name that is none."""
    found: list[Writer] = []
    for writer in [writers] if isinstance(writers, str) else writers:
        if isinstance(writer, str):
            if writer not in WRITERS:
                raise UsageError(f"writers: expected {', '.join(WRITERS)} or a Writer, got {writer!r}")
            if writer != "tensorboard":
                _module(writer)  # said now, not when the run's directory is there
            found.append(WRITERS[writer]())
        else:
            found.append(writer)
    return found


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        install = here(f"pip install 'twohot[{name}]'")
        raise MissingExtraError(f"metrics in {name} need its package, which is not installed: {install}") from error


def _config(run: Path) -> dict[str, Any]:
    return read_object(run / "config.json", "restore it from a checkpoint", finite=False)


def _identity(run: Path) -> str:
    """Letters and digits that stay with a run when it is resumed or moved, and that another run does not have."""
    start = read_object(run / START_NAME, "delete it")
    old = [start.get("started"), start.get("host"), str(run.resolve()), _config(run).get("seed")]  # before it had one
    return start.get("identity") or hashlib.sha256(repr(old).encode()).hexdigest()[:12]


def _scalars(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.metrics.items() if not isinstance(value, list)}


def _axes(row: Row) -> dict[str, float]:
    return {"environment_steps": row.environment_steps, "updates": row.updates, "seconds": row.seconds}


def _setting(value: Any) -> bool | int | float | str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return value if isinstance(value, (bool, int, float, str)) else "none" if value is None else str(value)
