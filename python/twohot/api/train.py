"""Training from a program; `twohot train` calls the same function."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from twohot.api.run import Run
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import from_json, load_config, to_json
from twohot.config.options import flat, merged, nested, read_options
from twohot.data.domains import as_begun
from twohot.errors import UsageError
from twohot.presets import PRESETS
from twohot.runs.writers import Writer, make_writers
from twohot.text import did_you_mean
from twohot.training.callbacks import Callback
from twohot.training.interruption import Interrupted
from twohot.training.progress import Progress
from twohot.training.ranks import is_first, learners
from twohot.training.train import FREE_SETTINGS, settings_in_conflict
from twohot.training.train import resume as resume_run
from twohot.training.train import train as train_run


def train(
    preset: str | TrainConfig | None = None,
    /,
    *,
    config: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    run: str | os.PathLike[str] | None = None,
    continue_: bool = False,
    resume: str | os.PathLike[str] | None = None,
    from_: str | os.PathLike[str] | None = None,
    callbacks: Iterable[Callback] = (),
    writers: Iterable[str | Writer] = ("tensorboard",),
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train an agent, or go on with a run, and return the run.

        run = twohot.train("quickstart", seed=1, run="runs/mine", options={"optimizer.learning_rate": 1e-3})

    It shows its progress in a terminal and in a notebook; elsewhere it prints a line for each evaluation. In the main
    thread, Ctrl-C (the button that stops a cell, too) ends it at its next step and saves the run.

    Args:
        preset: the name of one, or a configuration.
        config: a file whose settings change the preset: TOML, JSON, or a run's own `config.json`.
        options: settings that change both, by the names of `config.json`, dotted or nested:
            `{"agent.width": 64, "evaluate": {"trials": 4}}`.
        settings: the same as keywords, which change all of these: `seed=1, epochs=12, agent={"width": 64}`.
        run: the run's directory; None takes the first free of runs/PRESET-1, runs/PRESET-2, ...
        continue_: go on where `run` holds one already, whose settings have to agree with these; more epochs make it
            longer.
        resume: the directory of a run to go on with, instead of a preset. It keeps its settings; only `epochs` (a new
            total), `checkpoint_minutes`, `actors` and those of `ray` may be given.
        from_: the directory of another run, whose weights this one begins with where they fit: the memory whole, all
            else layer by layer, domains by their names. It says what is new and begins anew.
        callbacks: called in turn at the end of each epoch with an `EpochEnd`, which may stop the training; what they
            return is logged.
        writers: where metrics are written beside `metrics.jsonl`: "tensorboard", "wandb", "trackio", or a `Writer`.
        quiet: print nothing.

    Raises:
        UsageError: arguments that do not go together, an unknown preset, or a file that is not there.
        ConfigurationError: a setting is unknown, has a wrong value, or does not go with another; or `run` holds one.
        OwnedRunError: another process works in the directory.
        Interrupted: a KeyboardInterrupt, by a signal; the run is saved, and `resume` goes on with it.
    """
    progress = Progress(Console(markup=False, highlight=False, emoji=False, quiet=quiet or not is_first()))
    if learners() > 1 and run is None and resume is None:
        raise UsageError("run: expected the run's directory, which the learners that torchrun has started share")
    means = tuple(callbacks), make_writers(writers)
    changes = merged(nested(options or {}), nested(settings))
    if resume is not None:
        if preset is not None or config is not None or run is not None or continue_ or from_ is not None:
            raise UsageError("resume: takes the place of a preset, config, run, continue_ and from_; expected it alone")
        unknown = [name for name in flat(changes) if name not in FREE_SETTINGS]
        if unknown:
            raise UsageError(
                f"{unknown[0]}: a run goes on with the settings that it was started with; only actors, "
                "checkpoint_minutes, epochs and those of ray may be given with resume"
            )
        return _resume(Path(resume), progress, changes, means)
    if preset is None:
        raise UsageError("expected the name of a preset, a TrainConfig, or resume=RUN")
    if continue_ and run is None:
        raise UsageError("continue_: expected the directory of the run, run=RUN, too")
    if config is not None:
        changes = merged(nested(read_options(Path(config))), changes)
    asked = configuration(preset, options=changes)
    if continue_ and run is not None and (Path(run) / "config.json").exists():
        return _resume(Path(run), progress, _free_changes(Path(run), asked, changes, progress), means)
    name = preset if isinstance(preset, str) else asked.environment.suite
    with free_directory(Path("runs"), name) if run is None else nullcontext(Path(run)) as directory:
        with _shown(directory, progress):
            train_run(asked, directory, progress, *means, source=None if from_ is None else Path(from_))
        return Run(directory)


def _resume(run: Path, progress: Progress, changes: Mapping[str, Any], means: tuple[Any, Any]) -> Run:
    config = _changed(load_config(run / "config.json"), changes)  # which says what is wrong with them
    free = {name: getattr(config, name) for name in changes}
    epochs, minutes = free.pop("epochs", None), free.pop("checkpoint_minutes", None)
    with _shown(run, progress):
        resume_run(run, progress, epochs, minutes, *means, **free)
    return Run(run)


def _free_changes(run: Path, asked: TrainConfig, changes: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Of the changes that are asked for, those which a run takes whose other settings agree; it gets no shorter."""
    stored = load_config(run / "config.json")
    asked = as_begun(asked, stored)
    for setting, here, there in settings_in_conflict(asked, stored):
        raise ConfigurationError(
            f"{run}: was started with {setting} = {there!r}, and now it is asked for {here!r}: leave the option out to "
            "continue that run, or give another directory to start a new one"
        )
    free = nested({name: value for name, value in flat(changes).items() if name in FREE_SETTINGS})
    epochs = free["epochs"] = max(free.get("epochs", 0), stored.epochs)
    if epochs != asked.epochs:
        progress.say(f"{run}: trains the {epochs} epochs that it was given before, not {asked.epochs}")
    return free


@contextmanager
def _shown(run: Path, progress: Progress) -> Iterator[None]:
    """Around a training: says where the run is and, where a signal ends it, how to go on with it."""
    progress.say(f"Run directory: {run}")
    try:
        yield
    except Interrupted as interrupted:
        if (run / "config.json").exists():
            interrupted.args = (f"{interrupted}; twohot.train(resume={str(run)!r}) goes on with the run",)
        raise


def configuration(
    preset: str | TrainConfig,
    config: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The configuration that `train` makes of a preset, a file and options; see there.

    Raises:
        UsageError: there is no such preset, or no such file.
        ConfigurationError: a setting is unknown, has a wrong value, or does not go with another.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise UsageError(f"no preset {preset!r}: {did_you_mean(preset, PRESETS)}`twohot train --help` lists all")
    base = PRESETS[preset].config if isinstance(preset, str) else preset
    changes = nested(options or {})
    return _changed(base, changes if config is None else merged(nested(read_options(Path(config))), changes))


def _changed(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    return from_json(TrainConfig, merged(to_json(base), changes)) if changes else base


@contextmanager
def free_directory(parent: Path, name: str) -> Iterator[Path]:
    """The first of NAME-1, NAME-2, ... that nobody has: made here, and gone again where nothing comes of it."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = parent / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        break
    try:
        yield path
    finally:
        with suppress(OSError):
            path.rmdir()
