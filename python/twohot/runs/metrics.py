"""Every quantity that a run logs, defined once, and the file that holds its values.

A run directory holds `metrics.jsonl`: one JSON object a line, with `kind`, `environment_steps`, `updates`, `seconds`
and `metrics`, which maps names of the table `METRICS` to a number or, for the histogram over value bins, to a list.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from twohot.errors import CorruptRunError, NoRunError
from twohot.files import parse_json
from twohot.runs.writers import TensorBoard, Writer

FILE_NAME = "metrics.jsonl"
logger = logging.getLogger("twohot")

Kind = Literal["collect", "update", "evaluation", "random", "own"]
Plot = Literal["over environment steps", "over updates", "reference", "histogram", "histogram axis"]
Section = Literal[
    "results",
    "success",
    "held out",
    "attempts",
    "filter",
    "bins",
    "losses",
    "values",
    "network",
    "schedules",
    "time",
    "actors",
    "own",
]
"""Where the report shows a metric."""


@dataclass(frozen=True)
class Metric:
    """What a metric means.

    Attributes:
        unit: unit of the value; empty for a pure number.
        definition: one sentence.
        plot: how the report shows it: a line over environment steps or over updates, a constant reference line, a
            histogram, or the axis of that histogram.
        section: the section of the report that shows it. All but "results", "filter", "bins" and "time", which are
            drawn by hand, draw whatever names them.
    """

    unit: str
    definition: str
    plot: Plot
    section: Section


def _group(section: Section, plot: Plot, definitions: dict[str, tuple[str, str]]) -> dict[str, Metric]:
    return {pattern: Metric(unit, definition, plot, section) for pattern, (unit, definition) in definitions.items()}


def _returns(prefix: str, plot: Plot, policy: str, section: Section | None = None) -> dict[str, Metric]:
    """What is measured alike for the agent and for the uniformly random policy."""
    returns = {
        "return/{task}": ("return", "Mean, over evaluation trials, of the raw return of the counted attempts"),
        "return/{task}/attempt_{attempt}": ("return", "Mean, over evaluation trials, of the raw return of one attempt"),
        "return_std_error/{task}": (
            "return",
            "Standard error, over evaluation trials, of the mean return of the counted attempts",
        ),
        "length/{task}": ("steps", "Mean number of environment steps in an evaluation trial"),
    }
    successes = {
        "success/{task}": ("share", "Share, over evaluation trials, of the counted attempts that were successes"),
        "success/{task}/attempt_{attempt}": (
            "share",
            "Share of the evaluation trials in which one attempt was a success",
        ),
        "normalised/{task}": (
            "",
            "Mean, over evaluation trials and counted attempts, of (return - random) / (human - random) by the suite's "
            "reference scores",
        ),
        "mean_success": ("share", "Mean over tasks of their success"),
        "mean_normalised": ("", "Mean over tasks of their normalised return"),
        "bottom_quintile": (
            "",
            "Mean of the lowest fifth of the tasks (rounded up) in normalised return or, without one, in success",
        ),
    }
    found = {}
    sections: tuple[tuple[Section, dict[str, tuple[str, str]]], ...] = (("results", returns), ("success", successes))
    for default, measured in sections:
        named = {f"{prefix}/{name}": (unit, f"{what}, {policy}.") for name, (unit, what) in measured.items()}
        found |= _group(section or default, plot, named)
    return found


METRICS: dict[str, Metric] = {
    **_returns("evaluation", "over environment steps", "without exploration noise"),
    **_returns(
        "held_out",
        "over environment steps",
        "without exploration noise, on tasks or levels that are never trained on",
        "held out",
    ),
    **_returns("random", "reference", "acting uniformly at random"),
    **_group(
        "results",
        "over environment steps",
        {
            "collect/return/{task}": (
                "return",
                "Mean, over trials finished since the last row, of the counted attempts' raw return, with exploration.",
            ),
        },
    ),
    **_group(
        "attempts",
        "over environment steps",
        {
            "collect/return/{task}/attempt_{attempt}": (
                "return",
                "Mean, over trials finished since the last row, of one attempt's raw return, with exploration.",
            ),
        },
    ),
    **_group(
        "success",
        "over environment steps",
        {
            "collect/success/{task}": (
                "share",
                "Share of the counted attempts, in trials finished since the last row, that were successes.",
            ),
        },
    ),
    **_group(
        "schedules",
        "over environment steps",
        {
            "collect/trials": ("trials", "Trials that finished since the last row."),
            "collect/epsilon": (
                "",
                "Size of the exploration noise: chance of a random action, or scale of added noise.",
            ),
            "collect/steps_per_second": ("steps/s", "Environment steps, over all actors, per second of collecting."),
        },
    ),
    **_group(
        "losses",
        "over updates",
        {
            "loss/total": ("", "The loss that is minimised: the weighted sum of all others."),
            "loss/actor": ("", "The actor's loss, a mean over real steps and discounts."),
            "loss/imitation": (
                "",
                "The actor's loss of imitating the accepted actions, before its weight, a mean over real steps and "
                "discounts.",
            ),
            "loss/policy_gradient": (
                "",
                "The actor's policy gradient loss, before its weight: less the critics' normalised value, a mean over "
                "real steps and discounts.",
            ),
            "loss/critic": ("", "The critic's loss before its weight, a mean over real steps, discounts and critics."),
            "loss/{part}/{loss}": (
                "",
                "A loss that one part of the agent adds, before its weight, a mean over real steps: "
                "prediction/reward and prediction/observation of the next step, trajectory_encoder/kl of the set "
                "memory's belief, and those of custom networks.",
            ),
            "gradient/norm": ("", "Euclidean norm of the gradient of all parameters, before clipping."),
            "update/norm": ("", "Euclidean norm of the change of all parameters in one update."),
        },
    ),
    **_group(
        "network",
        "over updates",
        {
            "gradient/norm/{part}": (
                "",
                "Euclidean norm of the gradient of one part of the agent, after the clipping of the whole.",
            ),
            "update/norm/{part}": ("", "Euclidean norm of the change of one part's parameters in one update."),
            "units/dormant_{part}": (
                "share",
                "Share of the units of the last hidden layer whose mean absolute activation over real steps is at most "
                "2.5 % of their layer's.",
            ),
        },
    ),
    **_group(
        "values",
        "over updates",
        {
            "value/mean": ("scaled return", "Mean value of the actions taken, over real steps, discounts and critics."),
            "value/mean/discount_{discount}": (
                "scaled return",
                "Mean value of the actions taken at one discount, over real steps and critics.",
            ),
            "value/target_mean": ("scaled return", "Mean of the critics' targets over real steps and discounts."),
            "value/target_min": ("scaled return", "Least of the critics' targets in the batch."),
            "value/target_max": ("scaled return", "Greatest of the critics' targets in the batch."),
            "value/ensemble_spread": (
                "scaled return",
                "Standard deviation over the critics of the ensemble, a mean over real steps and discounts.",
            ),
            "policy/entropy": ("nats", "Entropy of the policy that acts, a mean over real steps."),
            "advantage/mean": (
                "scaled return",
                "Mean, over real steps and discounts, of the taken action's value less that of the policy's actions.",
            ),
        },
    ),
    **_group(
        "filter",
        "over updates",
        {
            "filter/pass_rate": (
                "share",
                "Share of the real (step, discount) pairs of a batch whose advantage passes the actor's filter.",
            ),
            "filter/pass_rate/{task}": (
                "share",
                "Share of one task's real steps whose advantage, at the acting discount, passes the actor's filter.",
            ),
        },
    ),
    **_group(
        "schedules",
        "over updates",
        {
            "learning_rate": ("", "Step size of the optimiser."),
            "updates_per_second": ("updates/s", "Gradient steps per second of updating."),
            "replay/trajectories": ("trajectories", "Trajectories in the replay store."),
            "replay/steps": ("steps", "Environment steps in the replay store."),
        },
    ),
    **_group(
        "time",
        "over updates",
        {
            "time/collect_share": ("share", "Share of the wall clock since the last row spent acting and stepping."),
            "time/sample_share": ("share", "Share of the wall clock since the last row spent waiting for batches."),
            "time/update_share": ("share", "Share of the wall clock since the last row spent on gradient steps."),
            "time/evaluate_share": ("share", "Share of the wall clock since the last row spent on evaluation."),
        },
    ),
    **_group(
        "actors",
        "over environment steps",
        {
            "actors/steps_per_second/{actor}": ("steps/s", "Environment steps per second that one actor has brought."),
            "actors/updates_per_step": ("", "Gradient steps for each environment step, since the run began."),
            "actors/lag": (
                "versions",
                "Publications of the policy since the one that a call's steps began with, a mean.",
            ),
            "actors/max_lag": ("versions", "The most of these."),
            "actors/wait_share": ("share", "Share of their time that actors did not play: nothing was asked of them."),
            "actors/learner_wait_share": (
                "share",
                "Share of its time that the learner waited for steps of the actors.",
            ),
            "actors/received_per_second": ("bytes/s", "Trajectories that came from the actors."),
            "actors/sent_per_second": ("bytes/s", "Weights of policies that went to the actors, each counted."),
            "actors/dropped_steps": ("steps", "Steps that came with too old a policy, and were dropped."),
            "actors/restarts": ("actors", "Actors that died or were stuck, in whose place others began."),
        },
    ),
    "own/{name}": Metric("", "What a callback of the user's gave by this name.", "over environment steps", "own"),
    "value/bin_histogram": Metric(
        "share", "Share of the mass of the critics' two-hot targets that lies in each value bin.", "histogram", "bins"
    ),
    "value/bin_centers": Metric(
        "scaled return", "The value, on the scale of the targets, that each bin stands for.", "histogram axis", "bins"
    ),
}

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MEANS = {"task": ".+", "attempt": r"\d+", "name": ".+"}


def _compile(pattern: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(pattern)  # literal, placeholder, literal, ...
    for index, part in enumerate(parts):
        parts[index] = f"(?P<{part}>{_MEANS.get(part, '[^/]+')})" if index % 2 else re.escape(part)
    return re.compile("".join(parts), re.DOTALL)


# Most literal text first: `collect/return/{task}/attempt_{attempt}` is asked before `collect/return/{task}`.
_PATTERNS = sorted(
    ((pattern, _compile(pattern)) for pattern in METRICS), key=lambda item: -len(_PLACEHOLDER.sub("", item[0]))
)


@functools.lru_cache(maxsize=65536)
def _match(name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    for pattern, expression in _PATTERNS:
        if found := expression.fullmatch(name):
            return pattern, tuple(found.groupdict().items())
    raise KeyError(f"metric {name!r} is not defined: add its unit and its definition to twohot.runs.metrics.METRICS")


def parse_name(name: str) -> tuple[str, dict[str, str]]:
    """The pattern of a concrete metric name and what its placeholders stand for.

    Args:
        name: a concrete name, such as `evaluation/return/maze/attempt_2`.

    Returns:
        The key of `METRICS` and the text of each placeholder, here `{"task": "maze", "attempt": "2"}`.

    Raises:
        KeyError: no pattern fits the name.
    """
    pattern, placeholders = _match(name)
    return pattern, dict(placeholders)


def describe(name: str) -> Metric:
    """The definition of a concrete metric name.

    Args:
        name: a concrete name, such as `evaluation/return/maze`.

    Raises:
        KeyError: the metric is not defined.
    """
    return METRICS[_match(name)[0]]


@dataclass(frozen=True)
class Row:
    """One line of `metrics.jsonl`.

    Attributes:
        kind: `collect`, `update`, `evaluation`, `random` or `own`.
        environment_steps: environment steps taken so far, over all actors.
        updates: gradient steps taken so far.
        seconds: wall-clock seconds of training so far.
        metrics: name to number or list of numbers.
    """

    kind: str
    environment_steps: int
    updates: int
    seconds: float
    metrics: dict[str, float | list[float]]


class MetricsWriter:
    """Appends rows to `metrics.jsonl`, and hands them to other writers.

    One writer a run directory. A row is on its way to the disk when `write` returns.

    Args:
        directory: the run directory, made where it is missing.
        resume_offset: what `offset()` gave when the checkpoint was written. Rows after it are dropped, because they
            will be computed again; other writers are told from which environment step on. Without it rows are appended.
        writers: where else rows go; None: to TensorBoard.

    Raises:
        ValueError: `resume_offset` is no end of a row of the file.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        resume_offset: int | None = None,
        writers: Sequence[Writer] | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / FILE_NAME
        if path.exists() or resume_offset:
            _truncate(path, resume_offset)
        first_step = None
        if resume_offset is not None:
            rows = read_metrics(self._directory) if path.exists() else []
            first_step = rows[-1].environment_steps + 1 if rows else 0
        self._file = path.open("a", encoding="utf-8", buffering=1, newline="\n")
        self._opened: list[Writer] = []
        try:
            for writer in [TensorBoard()] if writers is None else writers:
                writer.open(self._directory, first_step)
                self._opened.append(writer)
        except BaseException:
            self.close(failed=True)
            raise

    def write(
        self, kind: Kind, environment_steps: int, updates: int, seconds: float, metrics: Mapping[str, Any]
    ) -> Row:
        """Append one row, and return it; where anything is refused, nothing is written.

        Args:
            kind: `collect`, `update`, `evaluation`, `random` or `own`.
            environment_steps: environment steps taken so far, over all actors.
            updates: gradient steps taken so far.
            seconds: wall-clock seconds of training so far.
            metrics: name to a number, or to a list of numbers for a histogram and its axis; scalars and 1-d arrays of
                numpy and torch, on any device, are converted.

        Raises:
            KeyError: a metric is not defined in `METRICS`.
            ValueError: the kind is unknown, a value is not finite, or a list stands where a number belongs or the
                reverse.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind of a metrics row must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        row = Row(kind, int(environment_steps), int(updates), float(seconds), convert(metrics))
        self._file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
        self._file.flush()
        for writer in self._opened:
            writer.write(row)
        return row

    def offset(self) -> int:
        """Size of `metrics.jsonl` in bytes, all of them on the disk, for a checkpoint to remember."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self, failed: bool = False) -> None:
        """Close the file and the other writers. failed: the training did not come to its end."""
        with ExitStack() as stack:  # all are closed, whichever cannot be
            stack.callback(self._file.close)
            while self._opened:
                stack.callback(self._opened.pop().close, failed)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            self.close(failed=kind is not None)
        except Exception:
            if kind is None:
                raise
            logger.exception("a writer of metrics could not be closed")  # what ended the training is the error


def read_metrics(directory: str | os.PathLike[str]) -> list[Row]:
    """The rows of a run directory's `metrics.jsonl`, in order.

    A last line without its end, because its writer was killed or writes it now, is left out where it is not whole.

    Args:
        directory: the run directory.

    Raises:
        FileNotFoundError: there is no `metrics.jsonl`.
        ValueError: another line is not a row; the message names the file and the line.
    """
    path = Path(directory) / FILE_NAME
    if not path.is_file():
        raise NoRunError(f"no {FILE_NAME} in {path.parent}: give the directory of a run that has been started")
    lines = path.read_bytes().split(b"\n")
    torn = len(lines)
    if not lines[-1]:
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_parse_row(line))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            if number == torn:
                break
            raise CorruptRunError(
                f"{path}, line {number}, is not a metrics row ({error}): fix or delete that line, then try again"
            ) from error
    return rows


def _parse_row(line: bytes) -> Row:
    fields = parse_json(line)
    kind, seconds, metrics = fields["kind"], fields["seconds"], fields["metrics"]
    if kind not in get_args(Kind):
        raise ValueError(f"its kind is {kind!r}")
    environment_steps, updates = counts = [fields[name] for name in ("environment_steps", "updates")]
    if any(type(count) is not int or not 0 <= count < 2**63 for count in counts):
        raise ValueError(f"its counts are {counts}")
    if type(seconds) not in (int, float) or not isinstance(metrics, dict):
        raise TypeError("`seconds` is no number, or `metrics` no object")
    return Row(kind, environment_steps, updates, float(seconds), convert(metrics))


def _truncate(path: Path, resume_offset: int | None) -> None:
    """Cut the file at the end of a row: at `resume_offset`, or where None, after its last whole line."""
    if not path.exists():
        raise CorruptRunError(f"cannot resume at byte {resume_offset}: {path} does not exist")
    content = path.read_bytes()
    if resume_offset is None:
        resume_offset = content.rfind(b"\n") + 1
    if not 0 <= resume_offset <= len(content) or content[:resume_offset][-1:] not in (b"", b"\n"):
        raise CorruptRunError(
            f"cannot resume at byte {resume_offset}: no row of {path} ends there (it has {len(content)} bytes); "
            "the checkpoint belongs to another run, or the file was edited"
        )
    if resume_offset < len(content):
        os.truncate(path, resume_offset)


def convert(metrics: Mapping[str, Any]) -> dict[str, float | list[float]]:
    """Metrics as a row holds them. Raises KeyError and ValueError as `MetricsWriter.write` does."""
    return {name: _convert(name, value) for name, value in metrics.items()}


def _convert(name: str, value: Any) -> float | list[float]:
    metric = describe(name)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        value = value.tolist()
    if metric.plot.startswith("histogram"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"metric {name!r} must be a list of numbers, got {value!r}")
        return [_number(name, entry) for entry in value]
    return _number(name, value)


def _number(name: str, value: Any) -> float:
    if hasattr(value, "item"):  # scalars in a plain list
        value = value.item()
    if not isinstance(value, (int, float)):
        raise ValueError(f"metric {name!r} must hold numbers, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(
            f"metric {name!r} is {value}: a metric must be finite, so look for the cause where it was computed"
        )
    return int(value) if isinstance(value, bool) else value
