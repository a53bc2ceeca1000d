"""The raw results of a study: one row for each evaluation, task and attempt, in a CSV file."""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from twohot.config import TrainConfig
from twohot.errors import CorruptRunError, NoRunError
from twohot.files import atomic_write
from twohot.info import commit, processor, read_start
from twohot.runs.frames import data_frame
from twohot.runs.metrics import Row, parse_name, read_metrics
from twohot.studies.study import RANDOM, RunKey, Study

if TYPE_CHECKING:
    import pandas

KINDS = ("evaluation", "held_out", "random")


@dataclass(frozen=True)
class StudyRow:
    """One line of a study's CSV file.

    Attributes:
        setting: a name from the study's file, or "random" for the uniformly random policy.
        seed: of the run.
        step: environment steps that the run had taken. updates: gradient steps. seconds: of training.
        kind: evaluation, held_out, or random.
        task: name. attempt: its number from 1 on, or None for the counted attempts of a trial together.
        return_: mean raw return over `trials` trials; `std_error` of it, where there were two or more.
        success: share of successes, where the suite tells them.
        digest: of what the study's file said about the setting; empty for the random policy.
        commit: of the code, or its version where it is no checkout. processor: model and vector instructions.
    """

    setting: str
    seed: int
    step: int
    updates: int
    seconds: float
    kind: str
    task: str
    attempt: int | None
    return_: float
    std_error: float | None
    success: float | None
    trials: int
    digest: str
    commit: str
    processor: str


COLUMNS = tuple(field.name.rstrip("_") for field in fields(StudyRow))


def read_rows(path: Path) -> list[StudyRow]:
    """The rows of a study's CSV file; none where there is no such file yet.

    Raises:
        CorruptRunError: it is none, naming the line.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if tuple(next(lines, ())) != COLUMNS:
            raise CorruptRunError(f"{path}: expected the columns {','.join(COLUMNS)}")
        return [_row(path, lines.line_num, line) for line in lines]


def to_frame(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """The rows of a study as a DataFrame, with the columns of its CSV file.

    Args:
        path: of the study's TOML file, or of the CSV file beside it.

    Raises:
        FileNotFoundError: there are no rows yet. CorruptRunError: they are none. MissingExtraError.
    """
    path = Path(path).with_suffix(".csv")
    if not path.is_file():
        raise NoRunError(f"{path}: no rows yet; `twohot study run {path.with_suffix('.toml')}` makes them")
    frame = data_frame([[getattr(row, field.name) for field in fields(row)] for row in read_rows(path)], COLUMNS)
    return frame.astype({"attempt": "Int64", "std_error": float, "success": float})


def _row(path: Path, number: int, line: list[str]) -> StudyRow:
    try:
        named = dict(zip(COLUMNS, line, strict=True))
        if named["kind"] not in KINDS:
            raise ValueError(f"its kind is {named['kind']!r}")
        return StudyRow(
            setting=named["setting"],
            seed=int(named["seed"]),
            step=int(named["step"]),
            updates=int(named["updates"]),
            seconds=float(named["seconds"]),
            kind=named["kind"],
            task=named["task"],
            attempt=int(named["attempt"]) if named["attempt"] else None,
            return_=float(named["return"]),
            std_error=float(named["std_error"]) if named["std_error"] else None,
            success=float(named["success"]) if named["success"] else None,
            trials=int(named["trials"]),
            digest=named["digest"],
            commit=named["commit"],
            processor=named["processor"],
        )
    except ValueError as error:
        raise CorruptRunError(f"{path}, line {number}: not a row of a study ({error})") from error


def rows_of_run(run: Path, config: TrainConfig, key: RunKey, digest: str) -> list[StudyRow]:
    """Every evaluation in a run's directory, and that of the uniformly random policy.

    Raises:
        NoRunError, CorruptRunError: the directory holds no metrics, or damaged ones.
    """
    start = read_start(run)
    here = {"commit": commit(), "processor": ", ".join(processor())}
    about = {  # of both, where a run went on after a change
        name: value if start.get(name, value) == value else f"{start[name]} + {value}" for name, value in here.items()
    }
    metrics = read_metrics(run)
    end = max((row.environment_steps for row in metrics if row.kind == "evaluation"), default=0)
    found = []
    for row in metrics:
        if row.kind not in ("evaluation", "random"):
            continue
        final = row.kind == "random" or row.environment_steps == end
        for name in row.metrics:
            pattern, parts = parse_name(name)
            kind, _, what = pattern.partition("/")
            if kind not in KINDS or not what.startswith("return/"):
                continue
            measured = name.removeprefix(f"{kind}/return/")
            error, success = (_scalar(row, f"{kind}/{what}/{measured}") for what in ("return_std_error", "success"))
            found.append(
                StudyRow(
                    setting=RANDOM if kind == "random" else key.setting,
                    seed=key.seed,
                    step=row.environment_steps,
                    updates=row.updates,
                    seconds=round(row.seconds, 1),
                    kind=kind,
                    task=parts["task"],
                    attempt=int(parts["attempt"]) if "attempt" in parts else None,
                    return_=_scalar(row, name) or 0.0,
                    std_error=error,
                    success=success,
                    trials=config.evaluate.final_trials if final else config.evaluate.trials,
                    digest="" if kind == "random" else digest,
                    **about,
                )
            )
    return found


def _scalar(row: Row, name: str) -> float | None:
    value = row.metrics.get(name)
    return None if isinstance(value, list) else value


def add_rows(study: Study, new: Sequence[StudyRow], lock: Path) -> None:
    """Add a run's rows to the study's file, which has them all or none, whoever else adds some meanwhile.

    Args:
        study: whose file. new: of one run; those of the random policy enter once for each seed and task. lock: a file
            beside the runs, for one process at a time.
    """
    with _locked(lock):
        rows = read_rows(study.rows_path)
        random = {(row.seed, row.task) for row in rows if row.setting == RANDOM}
        rows += [row for row in new if row.setting != RANDOM or (row.seed, row.task) not in random]
        places = {name: place for place, name in enumerate((RANDOM, *study.settings))}
        rows.sort(key=lambda row: (places.get(row.setting, len(places)), row.seed, row.step))
        with atomic_write(study.rows_path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([_text(getattr(row, field.name)) for field in fields(row)] for row in rows)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
