"""Replay of whole trajectories: many environments write steps, a learner samples windows of fixed shape.

    schema = Schema(observation={"image": Field("uint8", (64, 64, 3))}, action=Field("int64"))
    replay = Replay.create(schema, capacity_steps=1_000_000, seed=0)
    writer = replay.writer(environments=64)
    writer.begin({"image": first})
    writer.append(action, reward, terminated, truncated, {"image": image})
    batch = replay.sample(batch_size=32, length=128)

Arrays enter as they are declared: another dtype or shape, or memory that is not C-contiguous, is an error and never
converted. `B` is the batch size, `L` the length of a window in steps, `E` the number of environments, `T` the number of
steps of a trajectory. Needs numpy alone; torch is imported when torch batches are asked for.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from twohot import _native
from twohot.files import replacing

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "float16", "float32", "float64")
FORMAT = "twohot.replay/1"

Law = Literal["trajectory", "step"]


@dataclass(frozen=True)
class Field:
    """The dtype (one of `DTYPES`) and shape of one row of a column. Raises ValueError for any other."""

    dtype: str
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}; got {self.dtype!r}")
        object.__setattr__(self, "shape", tuple(int(extent) for extent in self.shape))
        if any(extent < 1 for extent in self.shape):
            raise ValueError(f"shape: expected extents of at least 1, got {self.shape}")


@dataclass(frozen=True)
class Schema:
    """The columns of a trajectory: named observations (T + 1 rows) and an action (T rows).

    Every trajectory also has `reward` float32, `terminated` and `truncated` bool (T rows each) and an int32 `task`, a
    label for logging. Raises ValueError without observations or for a name that is no non-empty string.
    """

    observation: Mapping[str, Field]
    action: Field

    def __post_init__(self) -> None:
        object.__setattr__(self, "observation", MappingProxyType(dict(self.observation)))
        if not self.observation:
            raise ValueError("observation: expected at least one field, got none")
        for name in self.observation:
            if not isinstance(name, str) or not name:
                raise ValueError(f"observation: expected non-empty strings as names, got {name!r}")


@dataclass(frozen=True)
class ReplayStats:
    """Counts of a replay: what it holds now, what has left it for its capacity, and what writers have open."""

    trajectories: int
    steps: int
    bytes: int
    evicted_trajectories: int
    evicted_steps: int
    open_trajectories: int


@dataclass(eq=False)
class Batch:
    """`B` windows of `L` steps, as numpy arrays or torch tensors. Rows behind the end of a window are zero.

    With n <= L real steps from step `start` of a trajectory on, rows 0 .. n of the [B, L + 1] arrays and rows
    0 .. n - 1 of the [B, L] ones are real.
    """

    observation: dict[str, Any]
    """Each [B, L + 1, *shape]: what was seen before each step, and after the last."""
    previous_action: Any
    """[B, L + 1, *action shape]: the action of the step before, zeros at the beginning of a trajectory."""
    previous_reward: Any
    """float32 [B, L + 1]: the reward of the step before, 0 at the beginning of a trajectory."""
    time: Any
    """int32 [B, L + 1]: index of each row in its trajectory."""
    action: Any
    """[B, L, *action shape]"""
    reward: Any
    """float32 [B, L]"""
    terminated: Any
    """bool [B, L]: no value follows the step."""
    truncated: Any
    """bool [B, L]: the trajectory was cut behind the step, though values follow it."""
    mask: Any
    """bool [B, L]: True where a step is real."""
    task: Any
    """int32 [B]"""
    trajectory: Any
    """int64 [B]: id of the trajectory each window comes from."""
    start: Any
    """int64 [B]: its first step."""

    @cached_property
    def _views(self) -> dict[str, Any]:
        return {field.name: _view(getattr(self, field.name)) for field in fields(self)}

    def to(self, device: Any) -> Batch:
        """The batch on a torch device: itself where it lives there already, else a copy.

        From page-locked memory the copy is under way when this returns. Do not give a batch of a `loader` back, by
        asking for the next one, before the device has caught up: synchronise, or read what depends on the copy.
        """
        if self.reward.device == device:
            return self
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        observation = columns.pop("observation")
        return Batch(
            observation={name: value.to(device, non_blocking=True) for name, value in observation.items()},
            **{name: value.to(device, non_blocking=True) for name, value in columns.items()},
        )


def _view(value: Any) -> Any:
    """The numpy arrays through which native code writes into arrays or torch tensors, without a copy."""
    if isinstance(value, dict):
        return {name: _view(item) for name, item in value.items()}
    return value if isinstance(value, np.ndarray) else value.numpy()


class Writer:
    """Collects the steps of `E` environments; made by `Replay.writer`. Serves one thread at a time.

    Every array argument has `E` rows. `mask` (bool [E]) says which environments take part in a call; rows of the others
    are ignored. `begin`, `append` and `cut` do all of their work or, when they raise, none of it. They raise ValueError
    for arrays other than the schema's, and TypeError for what is no array.
    """

    __slots__ = ("_native",)

    def __init__(self, native: _native.ReplayWriter) -> None:
        self._native = native

    def begin(
        self, observation: dict[str, np.ndarray], mask: np.ndarray | None = None, task: np.ndarray | None = None
    ) -> None:
        """Opens a trajectory in each environment with its first observation and `task` (int32 [E], default 0).

        Raises RuntimeError where a trajectory is open already and ValueError for a NaN in a float field.
        """
        self._native.begin(observation, mask, task)

    def append(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        observation: dict[str, np.ndarray],
        mask: np.ndarray | None = None,
    ) -> None:
        """Adds one step to each environment: (a_t, r_{t+1}, terminated, truncated, o_{t+1}).

        `observation` is what the step led to, never the first observation of the next trajectory. Where `terminated`
        or `truncated` (bool [E]), the trajectory is finished: samples may hold it, and the environment waits for
        `begin`. `reward` is float32 [E].

        Raises RuntimeError where no trajectory is open, and ValueError for a NaN in a float field, for a reward that is
        not finite, and where one trajectory would exceed the whole capacity.
        """
        self._native.append(action, reward, terminated, truncated, observation, mask)

    def cut(self) -> None:
        """Finishes every open trajectory as truncated after its last step, and drops those without a step."""
        self._native.cut()

    def discard(self) -> None:
        """Drops all open trajectories."""
        self._native.discard()


class Replay:
    """A store of finished trajectories, the oldest of which leave when its capacity is reached.

    Thread-safe, except that each writer serves one thread at a time and a batch is filled by one call at a time.
    Made by `create` or `load`.
    """

    def __init__(self, schema: Schema, native: _native.ReplayStore, capacity: Mapping[str, int | None]) -> None:
        self.schema = schema
        self._native = native
        self._capacity = capacity

    @classmethod
    def create(
        cls,
        schema: Schema,
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        seed: int = 0,
        threads: int = 2,
    ) -> Replay:
        """An empty replay in memory that holds at most `capacity_steps` steps and `capacity_bytes` bytes.

        At least one capacity is given; bytes count the columns of finished trajectories, each column rounded up to 64.
        `seed` (0 .. 2^64 - 1) fixes the samples, whatever `threads` is: the number of threads that fill large batches,
        the caller's among them. Raises ValueError for a capacity below one step or threads below 1.
        """
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: expected 0 .. 2^64 - 1, got {seed}")
        native = _native.ReplayStore(
            [(name, field.dtype, list(field.shape)) for name, field in schema.observation.items()],
            ("action", schema.action.dtype, list(schema.action.shape)),
            capacity_steps=capacity_steps,
            capacity_bytes=capacity_bytes,
            seed=seed,
            threads=threads,
        )
        return cls(schema, native, {"capacity_steps": capacity_steps, "capacity_bytes": capacity_bytes})

    def writer(self, environments: int) -> Writer:
        """A writer for `environments` environments; a replay may have several. Raises ValueError below 1."""
        return Writer(_native.ReplayWriter(self._native, environments))

    def add(
        self,
        observation: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        task: int = 0,
    ) -> int:
        """Adds a whole trajectory, such as a demonstration, and returns its id.

        Observations have T + 1 rows, all else T >= 1. The last step, and no other, is terminated or truncated. Raises
        ValueError where the arrays or their values are not as `Writer.append` demands; the replay is then unchanged.
        """
        return self._native.insert(observation, action, reward, terminated, truncated, task)

    def batch(self, batch_size: int, length: int, *, torch: bool = False, pin_memory: bool = False) -> Batch:
        """Memory of zeros for `sample(batch_size, length, out=...)`, to be used again and again.

        `torch` asks for tensors on the CPU instead of numpy arrays, and `pin_memory` for page-locked ones. Raises
        ValueError for sizes below 1 and for pinned memory without torch.
        """
        _check_sizes(batch_size, length)
        if pin_memory and not torch:
            raise ValueError("pin_memory: expected torch=True, for numpy arrays cannot be pinned")
        make = _torch_zeros(pin_memory) if torch else np.zeros
        rows, steps = (batch_size, length + 1), (batch_size, length)
        action = self.schema.action
        return Batch(
            observation={
                name: make((*rows, *field.shape), dtype=field.dtype) for name, field in self.schema.observation.items()
            },
            previous_action=make((*rows, *action.shape), dtype=action.dtype),
            previous_reward=make(rows, dtype="float32"),
            time=make(rows, dtype="int32"),
            action=make((*steps, *action.shape), dtype=action.dtype),
            reward=make(steps, dtype="float32"),
            terminated=make(steps, dtype="bool"),
            truncated=make(steps, dtype="bool"),
            mask=make(steps, dtype="bool"),
            task=make((batch_size,), dtype="int32"),
            trajectory=make((batch_size,), dtype="int64"),
            start=make((batch_size,), dtype="int64"),
        )

    def sample(self, batch_size: int, length: int, *, by: Law = "trajectory", out: Batch | None = None) -> Batch:
        """Draws `batch_size` windows of `length` steps into `out`, or into fresh memory, and returns it.

        A trajectory is drawn uniformly (`by="trajectory"`) or in proportion to its steps (`by="step"`), then the first
        step of the window uniformly over 0 .. max(0, T - length). Raises RuntimeError for an empty replay, and
        ValueError for sizes below 1, for an unknown law and for `out` of other sizes.
        """
        _check_sizes(batch_size, length)
        batch = self.batch(batch_size, length) if out is None else out
        self._native.sample(batch_size, length, by, batch._views)
        return batch

    def loader(
        self,
        batch_size: int,
        length: int,
        *,
        batches: int,
        by: Law = "trajectory",
        ahead: int = 2,
        torch: bool = False,
        pin_memory: bool = False,
    ) -> Iterator[Batch]:
        """Yields `batches` batches that a background thread samples up to `ahead` batches ahead.

        A batch is valid until the next one is asked for: `ahead + 1` memories serve all. The batches are those that
        `sample` would return, in order. The thread starts with the first `next()` and has ended when the iterator is
        exhausted, closed or raises; an iterator closed early may have drawn up to `ahead` batches that nobody saw. What
        the thread raises is raised by `next()`, behind the batches before it. Raises ValueError for sizes below 1.
        """
        _check_sizes(batch_size, length)
        if batches < 0 or ahead < 1:
            raise ValueError(f"expected batches >= 0 and ahead >= 1, got batches={batches} and ahead={ahead}")
        memories = [
            self.batch(batch_size, length, torch=torch, pin_memory=pin_memory) for _ in range(min(ahead + 1, batches))
        ]
        return self._prefetch(memories, batch_size, length, by, batches)

    def _prefetch(self, memories: list[Batch], batch_size: int, length: int, by: Law, batches: int) -> Iterator[Batch]:
        free: SimpleQueue[Batch | None] = SimpleQueue()
        filled: SimpleQueue[Batch | BaseException] = SimpleQueue()
        closing = threading.Event()
        for memory in memories:
            free.put(memory)

        def fill() -> None:
            try:
                for _ in range(batches):
                    out = free.get()
                    if out is None or closing.is_set():
                        return
                    filled.put(self.sample(batch_size, length, by=by, out=out))
            except BaseException as error:  # raised again by the consumer
                filled.put(error)

        thread = threading.Thread(target=fill, name="twohot-replay-loader", daemon=True)
        thread.start()
        try:
            for _ in range(batches):
                item = filled.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                free.put(item)
        finally:
            closing.set()
            free.put(None)
            thread.join()

    @property
    def random_state(self) -> np.ndarray:
        """The state of the random stream, uint64 [4]. Setting it repeats the draws that followed it."""
        return np.array(self._native.random_state, dtype=np.uint64)

    @random_state.setter
    def random_state(self, state: np.ndarray) -> None:
        self._native.random_state = [int(word) for word in state]

    def stats(self) -> ReplayStats:
        """Counts at this moment."""
        return ReplayStats(**self._native.stats())

    def lengths(self) -> np.ndarray:
        """Steps of each stored trajectory, oldest first, int64 [trajectories]."""
        return self._native.lengths()

    def tasks(self) -> np.ndarray:
        """Task of each stored trajectory, oldest first, int32 [trajectories]."""
        return self._native.tasks()

    def returns(self) -> np.ndarray:
        """Undiscounted sum of the rewards of each stored trajectory, oldest first, float64 [trajectories]."""
        return self._native.returns()

    def get(self, trajectory: int) -> dict[str, Any]:
        """Copies of the columns of the trajectory with this id, as the arguments of `add`.

        Raises KeyError where it is not stored (any more).
        """
        return self._native.get(trajectory)

    def clear(self) -> None:
        """Forgets all stored trajectories. Open ones, ids and the random state go on."""
        self._native.clear()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what is stored, the random state, the schema and the capacity into one safetensors file.

        The file takes the place of an earlier one at once, when all of it is on disk. Open trajectories are not saved.
        Raises OSError.
        """
        from safetensors.numpy import save_file

        snapshot = self._native.snapshot()
        tensors = {f"observation/{name}": array for name, array in snapshot["observation"].items()}
        tensors |= {name: snapshot[name] for name in ("action", "reward", "terminated", "truncated")}
        tensors |= {name: snapshot[name] for name in ("length", "task", "id")}
        tensors["random_state"] = np.array(snapshot["random_state"], dtype=np.uint64)
        description = {
            "schema": {
                "observation": {name: asdict(field) for name, field in self.schema.observation.items()},
                "action": asdict(self.schema.action),
            },
            "capacity": dict(self._capacity),
            "counters": list(snapshot["counters"]),
        }
        with replacing(Path(path)) as partial:
            save_file(tensors, partial, metadata={"format": FORMAT, "replay": json.dumps(description)})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        threads: int = 2,
    ) -> Replay:
        """The replay that `save` wrote: the same trajectories, ids and counts, and the same samples from here on.

        A capacity replaces the saved one; where it is smaller, the oldest trajectories are evicted. Raises OSError
        where the file cannot be read and ValueError, naming it, where it is truncated, no saved replay, or holds a
        trajectory larger than the capacity.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        path.open("rb").close()
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"expected the format {FORMAT}, got {metadata.get('format')}")
                description = json.loads(metadata["replay"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            capacity = description["capacity"]
            if capacity_steps is not None:
                capacity["capacity_steps"] = capacity_steps
            if capacity_bytes is not None:
                capacity["capacity_bytes"] = capacity_bytes
            fields = {name: Field(**field) for name, field in description["schema"]["observation"].items()}
            replay = cls.create(Schema(fields, Field(**description["schema"]["action"])), **capacity, threads=threads)
            replay._restore(tensors, description["counters"])
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be loaded as a replay: {error}") from error
        return replay

    def _restore(self, tensors: dict[str, np.ndarray], counters: list[int]) -> None:
        """Fills an empty replay from the tensors of `save`."""
        lengths, ids = tensors["length"], tensors["id"]
        next_id, evicted_trajectories, evicted_steps = counters
        if lengths.dtype != np.int64 or ids.shape != lengths.shape or (lengths < 1).any():
            raise ValueError("its lengths and ids do not belong together")
        if not np.array_equal(ids, np.arange(next_id - len(ids), next_id)):
            raise ValueError("its ids are not consecutive")
        extra = {name: len(lengths) for name in tensors if name.startswith("observation/")}
        for name in ("action", "reward", "terminated", "truncated", *extra):
            rows = int(lengths.sum()) + extra.get(name, 0)
            if len(tensors[name]) != rows:
                raise ValueError(f"expected {rows} rows of {name}, got {len(tensors[name])}")
        self._native.resume(next_id - len(ids), evicted_trajectories, evicted_steps)
        ends = np.cumsum(lengths)
        for index, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True)):
            steps = slice(end - length, end)
            rows_of = slice(end - length + index, end + index + 1)
            self.add(
                {name: tensors[f"observation/{name}"][rows_of] for name in self.schema.observation},
                *(tensors[name][steps] for name in ("action", "reward", "terminated", "truncated")),
                task=int(tensors["task"][index]),
            )
        self.random_state = tensors["random_state"]


def _check_sizes(batch_size: int, length: int) -> None:
    if batch_size < 1 or length < 1:
        raise ValueError(f"expected batch_size >= 1 and length >= 1, got {batch_size} and {length}")


def _torch_zeros(pin_memory: bool) -> Any:
    import torch

    return lambda shape, dtype: torch.zeros(shape, dtype=getattr(torch, dtype), pin_memory=pin_memory)
