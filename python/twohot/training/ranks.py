"""The processes of one run: one, or the several learners that torchrun starts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import to_json
from twohot.errors import TwohotError
from twohot.runs import checkpoint

WAIT = timedelta(hours=6)
"""For the others, who may wait for an evaluation. torchrun ends them where one of them dies."""
SEEN_SECONDS = 10.0
"""Until what one process has written is to be seen by another."""


_jobs = count()


class RankError(TwohotError, RuntimeError):
    """Another process of the run has failed, or the processes do not go together."""


class LostLearnerError(RankError):
    """Another learner has ended, or cannot be reached: all can start again."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run.

    Attributes:
        rank, size: its number, from 0, and how many there are. local_rank: its number on this machine.
        group: through which they talk; None where it is alone. job: how many runs these processes have made before.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: distributed.ProcessGroup | None = None
    job: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it is the one that evaluates, writes and saves."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[int, ...]:
        """What is appended to the spawn key of a random stream of this rank's own; nothing for the first."""
        return () if self.is_first else (self.rank,)

    def device(self, name: str) -> torch.device:
        """Its own GPU, where `name` is cuda.

        Raises:
            ConfigurationError: this machine has fewer GPUs than ranks.
        """
        device = torch.device(name)
        if self.group is None or device.type != "cuda":
            return device
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise ConfigurationError(f"device: expected a GPU for each rank of this machine, which has {count}")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def part(self, config: TrainConfig) -> TrainConfig:
        """The configuration with this rank's part of the batch, the actors and the replay.

        Raises:
            ConfigurationError: the batch or the actors cannot be divided equally.
        """
        size = self.size
        shared = {"batch_size": config.batch_size, "collect.environments": config.collect.environments}
        for name, value in {**shared, "actors": config.actors}.items():
            if value % size:
                raise ConfigurationError(f"{name}: expected a multiple of the {size} learners, got {value}")
        batch, steps = config.batch_size // size, config.optimizer.accumulation_steps
        if batch % steps:
            raise ConfigurationError(
                f"optimizer.accumulation_steps: expected a divisor of {batch}, the part of the batch that each of the "
                f"{size} learners has, got {steps}"
            )
        capacity = -(-config.replay.capacity_steps // size)
        if capacity < config.agent.context:
            raise ConfigurationError(
                f"replay.capacity_steps: expected at least the agent's context of {config.agent.context} steps for "
                f"each of the {size} learners, got {config.replay.capacity_steps} for all"
            )
        return replace(
            config,
            batch_size=batch,
            learners=1,
            actors=config.actors // size,
            collect=replace(config.collect, environments=config.collect.environments // size),
            replay=replace(config.replay, capacity_steps=capacity),
        )

    def largest(self, *numbers: int) -> list[int]:
        """Each number, as large as any rank has it."""
        if self.group is None:
            return list(numbers)
        tensor = torch.tensor([int(number) for number in numbers])
        if distributed.get_backend(self.group) == "nccl":
            tensor = tensor.to(torch.device("cuda", self.local_rank))
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX, self.group)
        return tensor.tolist()

    def wait(self) -> None:
        """Until all are here."""
        self.largest(0)

    def tell(self, name: str, value: Any = None) -> Any:
        """JSON values that the first rank gives, on every rank; a `name` is used once."""
        if self.group is None:
            return value
        if self.is_first:
            self.say(name, value)
        return self.hear(name, 0)

    def say(self, name: str, value: Any) -> None:
        """Give JSON values to whoever hears them; a `name` is used once by a rank."""
        _store().set(f"twohot/{self.job}/{name}/{self.rank}", json.dumps(value))

    def hear(self, name: str, rank: int) -> Any:
        """What another rank says by this name, once it has."""
        key = f"twohot/{self.job}/{name}/{rank}"
        _store().wait([key], WAIT)
        return json.loads(_store().get(key))

    @contextmanager
    def after_first(self, name: str) -> Iterator[Callable[[], None]]:
        """A block that the first rank enters first: the others wait until it calls what the block is given.

        Raises:
            RankError: on the others, where the first has raised before.
        """
        if self.group is None:
            yield lambda: None
            return
        if not self.is_first:
            if message := self.tell(name):
                raise RankError(f"the first rank: {message}")
            yield lambda: None
            return
        told = False

        def ready() -> None:
            nonlocal told
            told = True
            self.tell(name, "")

        try:
            yield ready
        except BaseException as error:
            if not told:
                self.tell(name, str(error) or type(error).__name__)
            raise

    def require_alike(self, config: TrainConfig, run: Path, seen: str) -> None:
        """All ranks have this configuration and see this directory, in which the first has written a file `seen`.

        Raises:
            RankError: on all, where one does not.
        """
        if self.group is None:
            return
        with self.together("refused"):
            if message := self._unlike(to_json(config)) or self._unseen(run / seen):
                raise RankError(message)

    @contextmanager
    def together(self, name: str) -> Iterator[None]:
        """A block that all ranks leave, or none; a `name` is used once.

        Raises:
            RankError: where another rank has raised, with what it says.
        """
        if self.group is None:
            yield
            return
        try:
            yield
        except BaseException as error:
            self.say(name, str(error) or type(error).__name__)
            raise
        self.say(name, "")
        for rank in range(self.size):
            if message := self.hear(name, rank):
                raise RankError(message)

    def _unlike(self, mine: dict[str, Any]) -> str:
        first = self.tell("configuration", mine)
        for setting, here, there in checkpoint.differences(mine, first, frozenset()):
            return f"{setting}: rank {self.rank} was started with {here!r}, the first rank with {there!r}"
        return ""

    def _unseen(self, path: Path) -> str:
        until = time.monotonic() + SEEN_SECONDS
        while not path.exists():
            if time.monotonic() > until:
                return (
                    f"{path.parent}: rank {self.rank} does not see what the first rank writes there; expected a "
                    "directory that all machines share"
                )
            time.sleep(0.1)
        return ""


def _store() -> Any:
    return distributed.distributed_c10d._get_default_store()  # torch has no public way to it


def is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or was not started by it."""
    return learners() == 1 or os.environ["RANK"] == "0"


def learners() -> int:
    """How many processes torchrun has started; 1 where it has not started this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among those that torchrun has started (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), or alone.

    A process group that there is already is taken as it is.

    Args:
        device: cpu or cuda, for which they talk through gloo or NCCL.
    """
    if learners() == 1:
        yield Ranks()
        return
    made, job = not distributed.is_initialized(), next(_jobs)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if made:
        if torch.device(device).type == "cuda" and local < torch.cuda.device_count():
            torch.cuda.set_device(local)
        store, rank, size = next(rendezvous("env://", timeout=WAIT))
        # torchrun keeps its store over restarts and runs, in which those before have left what they said.
        store = PrefixStore(f"twohot/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{job}", store)
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT)
    group = distributed.group.WORLD
    try:
        yield Ranks(distributed.get_rank(group), distributed.get_world_size(group), local, group, job)
    except RuntimeError as error:
        talking = isinstance(error, distributed.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
        if isinstance(error, TwohotError) or not talking:
            raise
        raise LostLearnerError(
            f"another learner has ended, or cannot be reached ({str(error).splitlines()[0]:.200})"
        ) from error
    finally:
        if made:
            distributed.destroy_process_group()
