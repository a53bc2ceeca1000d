"""A run from its beginning, or from a checkpoint; `session.py` has the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from twohot.config import ConfigurationError, RayConfig, TrainConfig
from twohot.config.files import from_json, load_config, save_config, save_json, to_json
from twohot.data.domains import check_mixed, is_mixed, require_installed, splits_left_out, without_missing
from twohot.info import START_NAME, describe_kernels, describe_run, read_start
from twohot.runs import checkpoint
from twohot.runs.ownership import OWNER_NAME, owned
from twohot.runs.writers import Writer
from twohot.text import printable
from twohot.training.actor_session import ActorSession
from twohot.training.callbacks import Callback
from twohot.training.cluster import cluster
from twohot.training.interruption import Interruption
from twohot.training.mixed_session import MixedSession
from twohot.training.placed_learners import Placed, place_learners
from twohot.training.progress import Progress
from twohot.training.ranks import RankError, Ranks, joined, learners
from twohot.training.session import Session
from twohot.training.transfer import take_weights

__all__ = ["resume", "train"]

FREE_SETTINGS = frozenset(
    {"epochs", "checkpoint_minutes", "actors", *(f"ray.{setting.name}" for setting in fields(RayConfig))}
)
"""Settings in which a resumed run may differ from its checkpoint."""


def usable_device(name: str) -> str:
    """The torch device that `name` means, with "auto" resolved.

    Raises:
        ConfigurationError: when it is no CPU or CUDA device, or torch cannot use it here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("neither cpu nor cuda")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"device: expected auto, cpu or a CUDA device that torch can use here, got {name!r} ({reason})"
        ) from error
    return name


def resolve(config: TrainConfig, progress: Progress) -> TrainConfig:
    """Replace what depends on the machine ("auto", 0 threads) by what was found, so that the saved file says it.

    So are the tasks, where those are to be left out whose suites are not installed.
    """
    config, left_out = without_missing(config)
    if left_out:
        progress.say(left_out)
    require_installed(config)
    for sentence in splits_left_out(config):
        progress.say(sentence)
    return replace(config, device=usable_device(config.device), threads=config.threads or torch.get_num_threads())


def train(
    config: TrainConfig,
    run: Path,
    progress: Progress,
    callbacks: Sequence[Callback] = (),
    writers: Sequence[Writer] | None = None,
    placed: Placed | None = None,
    source: Path | None = None,
) -> None:
    """Run `config` from the beginning in a new directory `run`; `twohot.train` is the function for users.

    In the main thread, SIGINT, SIGTERM and SIGHUP end what is going on between two steps, save the run, and raise
    `Interrupted`; a second signal is handled as it was before the call.

    Args:
        config: what to do. run: the directory. progress: shows it.
        callbacks: called at the end of each epoch. writers: where rows of metrics go beside `metrics.jsonl`; None: to
            TensorBoard.
        placed: where this is a process of Ray's.
        source: another run, whose weights this one begins with where they fit; see `take_weights`.

    Raises:
        ConfigurationError: when the directory already holds a run, or the configuration cannot run.
        OwnedRunError: when another process works in the directory.
        Interrupted: by a signal; the run can be resumed.
    """
    if is_mixed(config):
        check_mixed(config, learners())
    if config.learners > 1 and not (placed and learners() > 1):
        _require_new(run)
        config = replace(config, threads=config.threads or 1)
        means: dict[str, Any] = {"callbacks": callbacks, "writers": writers}
        place_learners(
            config,
            run,
            progress,
            partial(train, config, run, **means, source=source),
            partial(resume, run, **means),
            placed,
        )
        return
    config = resolve(config, progress)
    with (
        cluster(config),  # whose handlers of signals ours take the place of
        joined(config.device) as ranks,
        placed.interruption if placed else Interruption() as interruption,
        _owned(run, ranks, _require_new) as ready,
    ):
        if ranks.is_first:
            _require_new(run)  # nor was it begun while the lock was awaited
        ready()
        ranks.require_alike(config, run, OWNER_NAME)
        with closing(_session(config)(config, run, interruption, ranks)) as session:
            if source is not None:
                _take(session, config, source, progress)
            if ranks.is_first:
                about = {**describe_run(), "kernels": _kernels(config), **(placed.about if placed else {})}
                if ranks.size > 1:
                    about["learners"] = f"{ranks.size}, by {'Ray' if placed else 'torchrun'}"
                if source is not None:
                    about["from"] = str(source.absolute())
                if config.actors:
                    about["actors"] = f"{config.actors}, by Ray; not bit for bit the same when it is run again"
                save_json({label: value for label, value in about.items() if value}, run / START_NAME)
                save_config(config, run / "config.json")
            try:
                with ranks.together("start"):
                    session.start()
            except BaseException:  # nothing has begun: the same line may be given again, with other settings
                session.remove_replay()
                if ranks.is_first:
                    (run / "config.json").unlink(missing_ok=True)
                raise
            session.loop(progress, callbacks, writers)


def _take(session: Session, config: TrainConfig, source: Path, progress: Progress) -> None:
    for sentence in take_weights(session.agent, config, source).sentences():
        progress.say(sentence)


def _take_again(session: Session, config: TrainConfig, run: Path, source: Path, progress: Progress) -> None:
    """Begin anew with the weights that a run began with, of which it has no checkpoint yet."""
    try:
        _take(session, config, source, progress)
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(
            f"{run}: has no checkpoint yet, and would begin anew with the weights of another run: {error}; put that "
            "run back, or begin another one"
        ) from error


def _session(config: TrainConfig) -> type[Session]:
    if is_mixed(config):
        return MixedSession
    return ActorSession if config.actors else Session


@contextmanager
def _owned(run: Path, ranks: Ranks, require: Callable[[Path], None]) -> Iterator[Callable[[], None]]:
    """Own a run that is as `require` wants it, by the first rank for all; the others wait until it is `ready`."""
    with ranks.after_first("begin") as ready:
        if not ranks.is_first:
            yield ready
            return
        require(run)
        with owned(run):
            yield ready


def _kernels(config: TrainConfig) -> str:
    agent = config.agent
    return describe_kernels(config.device, config.optimizer.precision, agent.width // agent.heads, agent.bins.count)


def _require_utf8(run: Path) -> None:
    try:
        str(run).encode()
    except UnicodeEncodeError:  # neither TensorBoard nor the replay's files can be there
        raise ConfigurationError(f"{printable(run)}: expected a directory whose name is UTF-8") from None


def _require_new(run: Path) -> None:
    _require_utf8(run)
    if (run / "config.json").exists():
        raise ConfigurationError(f"{run}: holds a run already; continue it with: {checkpoint.resume_command(run)}")
    # What a process leaves that is killed before it has written its configuration does not count.
    ours = {OWNER_NAME, START_NAME}
    if run.exists() and (
        not run.is_dir() or any(path.name not in ours and path.suffix != ".partial" for path in run.iterdir())
    ):
        raise ConfigurationError(f"{run}: expected a new or an empty directory for the run")


def _require_begun(run: Path) -> None:
    _require_utf8(run)
    if not (run / "config.json").is_file():
        load_config(run / "config.json")  # says what is missing, and makes no directory


def resume(
    run: Path,
    progress: Progress,
    epochs: int | None = None,
    checkpoint_minutes: float | None = None,
    callbacks: Sequence[Callback] = (),
    writers: Sequence[Writer] | None = None,
    *,
    actors: int | None = None,
    ray: RayConfig | None = None,
    placed: Placed | None = None,
) -> None:
    """Continue a run from its newest checkpoint, or from the beginning where it has none.

    With the same number of epochs, the run ends (on a CPU) with the weights of one that was never interrupted, unless
    that checkpoint was an unplanned one: then it is as good a run, but another one. One made longer than it was planned
    equals a run planned that long only where its old end was a multiple of `checkpoint_every`, for the actors restart
    at every checkpoint, and the end of a run is one. A run that has finished is left as it is.

    Args:
        run: the run's directory. epochs: a new total of epochs, at least those begun; None keeps the old one.
        checkpoint_minutes, actors, ray: in the place of the configuration's; None keeps them.
        callbacks, writers, placed: as for `train`.

    Raises:
        ConfigurationError, CheckpointError: as their messages say; the run is as it was.
        OwnedRunError, Interrupted: as for `train`.
    """
    _require_begun(run)
    config = _changed(load_config(run / "config.json"), checkpoint_minutes, actors, ray)
    if is_mixed(config):
        check_mixed(config, learners())
    if config.learners > 1 and not (placed and learners() > 1):
        means = {"epochs": epochs, "checkpoint_minutes": checkpoint_minutes, "callbacks": callbacks, "writers": writers}
        work = partial(resume, run, **means, actors=actors, ray=ray)
        place_learners(config, run, progress, work, work, placed)
        return
    with (
        cluster(config),
        joined(usable_device(config.device)) as ranks,
        placed.interruption if placed else Interruption() as interruption,
        _owned(run, ranks, _require_begun) as ready,
    ):
        ready()
        config = _changed(load_config(run / "config.json"), checkpoint_minutes, actors, ray)
        found = checkpoint.latest(run)
        if (first := ranks.tell("checkpoint", found and found.name)) != (found and found.name):
            seen = found and found.name
            raise RankError(f"{run}: rank {ranks.rank} sees the checkpoint {seen}, the first rank {first}")
        state = checkpoint.read_state(found) if found else None
        done = begun = 0
        if found and state:
            with checkpoint.reading(found):
                saved = to_json(from_json(TrainConfig, state["config"]))
                checkpoint.require_same(saved, to_json(config), FREE_SETTINGS)
                done = checkpoint.count(state, "epoch")
                begun = done + (state["unplanned"] not in (None, [0, 0]))
        if epochs is not None:
            if epochs < begun:
                raise ConfigurationError(f"--epochs: expected at least the {begun} that the run has done, got {epochs}")
            config = replace(config, epochs=epochs)
        if done >= config.epochs:
            progress.finished(run, config)
            return
        ranks.require_alike(config, run, OWNER_NAME)
        with closing(_session(config)(config, run, interruption, ranks)) as session:
            if found and state:
                session.restore(found, state)
            else:
                if source := read_start(run).get("from"):
                    _take_again(session, config, run, Path(source), progress)
                session.start()
            if ranks.is_first:
                _describe_continuations(run, session.continued)
                save_config(config, run / "config.json")
            session.loop(progress, callbacks, writers)


def _changed(
    config: TrainConfig, checkpoint_minutes: float | None, actors: int | None, ray: RayConfig | None
) -> TrainConfig:
    changes = {"checkpoint_minutes": checkpoint_minutes, "actors": actors, "ray": ray}
    return replace(config, **{name: value for name, value in changes.items() if value is not None})


def _describe_continuations(run: Path, continued: list[int]) -> None:
    """Say in the description of a run where it went on from unplanned checkpoints, if it did."""
    before = read_start(run)
    start = {label: value for label, value in before.items() if label != "continued"}
    if continued:
        where = ", ".join(f"{updates:,}" for updates in continued)
        start["continued"] = f"at update {where}, off plan: a valid run, but not bit for bit the one never stopped"
    if start != before:
        save_json(start, run / START_NAME)


def settings_in_conflict(asked: TrainConfig, stored: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """Settings, with both values, of a configuration that was asked for and one that was resolved, which differ.

    Those in which a resumed run is free do not count, nor those that leave the choice to the machine.
    """
    free = {*FREE_SETTINGS, *({"device"} if asked.device == "auto" else ()), *(() if asked.threads else {"threads"})}
    yield from checkpoint.differences(to_json(asked), to_json(stored), frozenset(free))
