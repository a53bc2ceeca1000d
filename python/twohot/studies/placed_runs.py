"""The runs of a study on the nodes of a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import from_json, to_json
from twohot.errors import TwohotError
from twohot.extras import package
from twohot.studies.rows import StudyRow, add_rows, rows_of_run
from twohot.studies.runner import log_of, train_run
from twohot.studies.study import RunKey, Study
from twohot.text import printable
from twohot.training.interruption import Interrupted, Interruption
from twohot.training.placed_learners import Placed, about_driver, wants_gpu
from twohot.training.progress import Progress

MAX_RESTARTS = 3
"""Of a run whose process has died."""


class StudyRun:
    """The process of a run. One thread of it trains, another hears the driver (`max_concurrency`)."""

    def __init__(self) -> None:
        self._interruption = Interruption()

    def work(
        self, config: dict[str, Any], key: RunKey, digest: str, folder: str, runs: str, about: dict[str, str]
    ) -> int | list[StudyRow]:
        """Begin or go on with a run; returns its rows, or an exit code.

        Args:
            config: of the run, as JSON values. key, digest: of the run and its setting, for the rows.
            folder: the working directory of the driver. runs: the folder of the study's runs. about: see `Placed`.
        """
        with suppress(OSError):
            os.chdir(folder)
        if not Path(folder, runs).is_dir():
            raise ConfigurationError(
                f"{runs}: {socket.gethostname()} does not see this folder; expected one that all nodes share (--runs)"
            )
        trained, run = from_json(TrainConfig, config), Path(runs, str(key))
        with log_of(key, Path(runs)).open("a", encoding="utf-8") as log:
            print(f"On {socket.gethostname()}, by Ray.", file=log)
            progress = Progress(Console(file=log, markup=False, highlight=False, emoji=False))
            try:
                train_run(trained, run, progress, Placed(self._interruption, about))
                return rows_of_run(run, trained, key, digest)
            except Interrupted as interrupted:
                return interrupted.exit_code
            except TwohotError as error:
                print(f"twohot: {printable(error)}", file=log)
            except Exception:
                traceback.print_exc(file=log)
            return 1

    def interrupt(self, number: int) -> None:
        """End as by this signal: after this update, and saved."""
        self._interruption.hear(number)


class PlacedRun:
    """A run on a node, as `run_missing` sees it. It begins again, elsewhere if need be, where its process dies."""

    def __init__(self, study: Study, key: RunKey, runs: Path) -> None:
        self._ray = package("ray", "ray", "--ray-address")
        self._study, self._key, self._runs, self._deaths, self._heard = study, key, runs, 0, 0
        self._begin()

    def _begin(self) -> None:
        config = self._study.config(self._key)
        alone = config.learners == 1  # else they have processes of their own
        cpus, gpus = alone * _cpus(config), int(alone and wants_gpu(config, self._ray.cluster_resources()))
        remote = self._ray.remote(StudyRun).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=3, scheduling_strategy="SPREAD"
        )
        self._handle = remote.remote()
        digest = self._study.settings[self._key.setting].digest
        arguments = to_json(config), self._key, digest, str(Path.cwd()), str(self._runs), about_driver()
        self._call = self._handle.work.remote(*arguments)

    def poll(self) -> int | None:
        """See `Child`; the rows come home to this process, which writes them."""
        if not self._ray.wait([self._call], timeout=0)[0]:
            return None
        try:
            found = self._ray.get(self._call)
        except self._ray.exceptions.RayTaskError as error:
            found = self._failed(str(error.cause or error).strip().splitlines()[-1])
        except self._ray.exceptions.RayError as error:
            self._deaths += 1
            self._ray.kill(self._handle)  # one that cannot be reached may live
            if not self._heard and self._deaths <= MAX_RESTARTS:
                self._begin()
                return None
            found = self._failed(
                f"its process has died {self._deaths} times ({(str(error).strip() or repr(error)).splitlines()[0]})"
            )
        self._ray.kill(self._handle)
        if isinstance(found, int):
            return found
        add_rows(self._study, found, self._runs / "rows.lock")
        return 0

    def pass_on(self, number: int) -> None:
        """See `Child`."""
        self._heard = number
        if number == signal.SIGKILL:
            self._ray.kill(self._handle)
        else:
            self._handle.interrupt.remote(number)

    def _failed(self, why: str) -> int:
        with log_of(self._key, self._runs).open("a", encoding="utf-8") as log:
            print(printable(f"twohot: {why}"), file=log)
        return 1


def _cpus(config: TrainConfig) -> int:
    """CPUs that the learners of a run take."""
    return config.learners * max(1, config.threads)


def room_for(study: Study) -> int:
    """How many runs of a study the cluster has room for at a time.

    Raises:
        ConfigurationError: not for one.
    """
    found = package("ray", "ray", "--ray-address").cluster_resources()
    configs = [setting.config for setting in study.settings.values()]
    cpus = max(_cpus(config) + config.actors * config.ray.cpus_per_actor for config in configs)
    gpus = max(config.learners if wants_gpu(config, found) else 0 for config in configs)
    rooms = [found.get("CPU", 0) // cpus, *([found.get("GPU", 0) // gpus] if gpus else [])]
    if min(rooms) < 1:
        raise ConfigurationError(
            f"{study.path}: a run needs {cpus:g} CPUs and {gpus} GPUs, the cluster has {found.get('CPU', 0):g} and "
            f"{found.get('GPU', 0):g}"
        )
    return int(min(rooms))
