"""The replay itself: made or opened, written, sampled, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from twohot import _native
from twohot._moved import renamed_arguments, renamed_method
from twohot.replay import saved
from twohot.replay.arguments import (
    MAX_COUNT,
    MAX_INTEGER,
    absolute_path,
    boolean,
    choice,
    instance,
    integer,
    real,
    text,
)
from twohot.replay.batch import Batch, make_batch
from twohot.replay.contents import Contents, Problem
from twohot.replay.manifest import exists, read_manifest, write_manifest
from twohot.replay.native import SEGMENT_BYTES, Capacities, DirectoryOptions, Mode, capacities, make_native
from twohot.replay.prefetch import Loadable
from twohot.replay.relabel import Relabel, relabelled
from twohot.replay.schema import Schema
from twohot.replay.writer import Writer

Sampling = Literal["trajectory", "step", "recency", "priority", "task"]
WindowAnchor = Literal["anywhere", "start", "end"]


class Replay(Loadable, Contents):
    """A store of finished trajectories, the oldest of which leave when its capacity is reached.

    In memory, or in a directory of append-only files that other processes may read and add to at the same time: what is
    committed there survives the death of its writer at any moment. Thread-safe, except that each writer serves one
    thread at a time and a batch is filled by one call at a time. After `close`, and in a forked process, every call
    but `close` raises RuntimeError. Made by `create`, `open` or `load`; a context manager that closes itself.

    Pickled or copied, a replay in a directory is opened there again, for what it was opened for, with its options and
    its random state. One in memory raises TypeError. Arguments of another type than is said raise TypeError.
    """

    def __init__(
        self,
        schema: Schema,
        native: _native.ReplayStore,
        capacity: Capacities,
        directory: Path | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.schema = schema
        self.directory = directory
        self._native = native
        self._capacity = capacity
        self._options = options or {}

    def __repr__(self) -> str:
        where = {} if self.directory is None else {"directory": str(self.directory)}
        said = {name: value for name, value in self._capacity.items() if value is not None} | where
        return f"Replay({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.directory is None:
            raise TypeError(
                "a replay in memory cannot be copied or sent to another process: create it with directory=, or save() "
                "it and load() it there"
            )
        return _reopened, (str(self.directory), {**self._capacity, **self._options}, self.random_state)

    @classmethod
    def create(
        cls,
        schema: Schema,
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        capacity_trajectories: int | None = None,
        directory: str | os.PathLike[str] | None = None,
        durable: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        keep_evicted: bool = False,
        seed: int = 0,
        threads: int = 2,
    ) -> Replay:
        """An empty replay, in memory or in a new directory.

        At least one capacity is given, and all that are hold; bytes count the columns of finished trajectories, each
        column rounded up to 64. `seed` (0 .. 2^64 - 1) fixes the samples, whatever `threads` is: the number of threads
        that fill large batches, the caller's among them. Raises ValueError for a capacity below one step or threads
        below 1.

        In a directory, trajectories are committed to files of about `segment_bytes`, which are removed when all that
        they hold has been evicted (`keep_evicted`: when `reclaim` is called). With `durable` a commit waits for the
        disk, and survives the death of the machine too. Raises FileExistsError where the directory holds a replay.
        """
        capacity = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        path = None if directory is None else absolute_path(directory)
        options = DirectoryOptions(durable=durable, segment_bytes=segment_bytes, keep_evicted=keep_evicted)
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            if exists(path):
                raise FileExistsError(f"{path} holds a replay already: open it with Replay.open")
        native = make_native(schema, capacity, path, mode="create", seed=seed, threads=threads, **options)
        if path is not None:
            if native.stats()["trajectories"]:
                raise FileExistsError(f"{path} holds trajectories without a description of their replay: empty it")
            write_manifest(path, schema, capacity)
        return cls(schema, native, capacity, path, {"mode": "append", "threads": threads, **options})

    @classmethod
    @renamed_arguments(damage="corrupt")
    def open(
        cls,
        directory: str | os.PathLike[str],
        mode: Mode = "read",
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        capacity_trajectories: int | None = None,
        corrupt: Literal["raise", "skip"] = "raise",
        position: Mapping[str, int] | None = None,
        evicted: Sequence[str] = (),
        durable: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        keep_evicted: bool = False,
        seed: int = 0,
        threads: int = 2,
    ) -> Replay:
        """The replay in a directory, with everything that was committed to it.

        `mode` is "read" (changes nothing), "append" (also writes, and removes the files of evicted trajectories) or
        "write" (only writes, and neither reads nor removes: for actors whose learner is another process). Any number of
        processes may do any of these at once; what others commit is sampled from within a tenth of a second.

        A capacity given here takes the place of those that the replay was created with, for this opening. Trajectories
        that were evicted are back, as the oldest, where their files were not removed and the capacity has room. Files
        that are torn, changed or foreign raise CorruptReplayError, or are left out with `corrupt="skip"` (`verify`).
        `position` takes back what was committed after `position()` had returned it; nobody may be writing then, and
        those that read lose it at their next `refresh`. RuntimeError says what it needs and is not there any more. Of
        the files that it does not need, those that `evicted_files()` named then, given as `evicted`, stay. A directory
        of the format before becomes one of this format unless it is only read. Raises ValueError for another mode and
        for a position without the right to write, FileNotFoundError where there is no replay, and OSError.
        """
        choice("mode", mode, get_args(Mode))
        if position is not None and mode == "read":
            raise ValueError('position: expected mode "append" or "write", as it takes trajectories back; got "read"')
        path = absolute_path(directory)
        schema, capacity = read_manifest(path, renew=mode != "read")
        given = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        if any(value is not None for value in given.values()):
            capacity = given
        choice("corrupt", corrupt, ("raise", "skip"))
        if position is not None:
            instance("position", position, Mapping, "as position() returns it")
            records = {text("position", name): integer("position", count) for name, count in position.items()}
            _native.roll_back(os.fsencode(path), records, {text("evicted", name) for name in evicted})
        options = DirectoryOptions(durable=durable, segment_bytes=segment_bytes, keep_evicted=keep_evicted)
        native = make_native(
            schema, capacity, path, mode=mode, seed=seed, threads=threads, skip_corrupt=corrupt == "skip", **options
        )
        return cls(schema, native, capacity, path, {"mode": mode, "corrupt": corrupt, "threads": threads, **options})

    @staticmethod
    def repair(directory: str | os.PathLike[str]) -> list[Problem]:
        """Makes the index of a directory again from all trajectories in it that are intact; returns what was lost.

        Files that hold none, and whatever is no file, are moved to the folder `damaged` in it. Others may read
        meanwhile. Raises RuntimeError while somebody writes, and OSError.
        """
        path = absolute_path(directory)
        schema, _ = read_manifest(path, renew=True)
        return [Problem(*problem) for problem in _native.repair(os.fsencode(path), *schema.native())]

    @renamed_arguments(piece_steps="chunk_length", overlap_steps="overlap")
    def writer(
        self, environments: int, *, cast: bool = False, chunk_length: int | None = None, overlap: int = 0
    ) -> Writer:
        """A writer for `environments` environments; a replay may have several. Raises ValueError below 1.

        With `cast`, it takes what environments of gymnasium give, and makes the schema's arrays of it: see `Writer`.

        With `chunk_length`, a longer trial is stored in chunks of that many steps while it goes on. Each chunk but the
        first begins with the last `overlap` steps (1 .. chunk_length - 1) of the one before, so that windows have that
        much context, and ends truncated unless the trial ends there; `Batch.time` goes on over the chunks.
        """
        count = integer("environments", environments, 1, MAX_COUNT)
        length = 0 if chunk_length is None else integer("chunk_length", chunk_length, 1)
        overlap = integer("overlap", overlap)
        if overlap != 0 and chunk_length is None:
            raise ValueError(f"overlap: expected chunk_length with it, got {overlap} alone")
        native = _native.ReplayWriter(self._native, count, length, overlap)
        return Writer(native, self.schema, count, boolean("cast", cast))

    def add(
        self,
        observation: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        task: int = 0,
        step: dict[str, np.ndarray] | None = None,
        *,
        protect: bool = False,
    ) -> int:
        """Adds a whole trajectory, such as a demonstration, and returns its id.

        Observations have T + 1 rows, all else T >= 1. The last step, and no other, is terminated or truncated. With
        `protect` it never leaves, though it counts towards the capacity. Raises ValueError where the arrays or their
        values are not as `Writer.append` demands; the replay is then unchanged.
        """
        info = integer("task", task, maximum=2**31 - 1), boolean("protect", protect)
        return self._native.add(observation, action, reward, terminated, truncated, step, *info, 0, None)

    def drain(self) -> dict[str, Any]:
        """Takes all stored trajectories, protected ones too, out of a replay in memory, and returns their columns.

        What a writer finishes meanwhile is among them or stays. Open trajectories, ids and the random state go on, and
        nothing of it counts as evicted. The columns of n trajectories lie one after the other, the protected ones, then
        the others, each oldest first:

        `observation` and, where the schema has step fields, `step`, dicts of arrays [sum of (T + 1), *shape] and
        [sum of T, *shape]; `action`, `reward`, `terminated`, `truncated` [sum of T, ...]; `length` int64 [n], in steps;
        `task` int32 [n]; `origin` int64 [n], the time of its first step in its trial; `protected` bool [n].

        They are numpy arrays of their own, for `extend` here or in another process: pickled by protocol 5 with a
        `buffer_callback`, none of them is copied. Raises RuntimeError for a replay in a directory, and MemoryError
        where there is no room for them; the replay is then unchanged.
        """
        return self._native.drain()

    def extend(self, columns: dict[str, Any]) -> int:
        """Adds trajectories that lie one after the other in `columns`, as `drain` returns them, and returns how many.

        They come in at once and in their order, with ids of their own: `sample` draws from all of them or none. Arrays
        are copied once and may be read-only, such as memory that processes share; each is C-contiguous and has the rows
        that `length` adds up to. Raises ValueError for other columns, dtypes or shapes, for a trajectory that is not as
        `add` demands, and for one that exceeds the whole capacity; TypeError for what is no array; and OSError. The
        replay is then unchanged. Only the death of the process in the midst leaves, in a directory, the first of them
        without the others.
        """
        return self._native.extend(columns, None)

    def batch(
        self, batch_size: int, length: int, lookahead: int = 0, *, torch: bool = False, pin_memory: bool = False
    ) -> Batch:
        """Memory of zeros for `sample(batch_size, length, lookahead=lookahead, out=...)`, to be used again and again.

        `torch` asks for tensors on the CPU instead of numpy arrays, and `pin_memory` for page-locked ones. Raises
        ValueError for sizes below 1 and for pinned memory without torch.
        """
        sizes = _sizes(batch_size, length, lookahead)
        return make_batch(self.schema, *sizes, torch=torch, pin_memory=pin_memory)

    def sample(
        self,
        batch_size: int,
        length: int,
        *,
        by: Sampling = "trajectory",
        window: WindowAnchor = "anywhere",
        lookahead: int = 0,
        half_life: float | None = None,
        pad: Literal["right", "left"] = "right",
        relabel: Relabel | None = None,
        out: Batch | None = None,
    ) -> Batch:
        """Draws `batch_size` windows of `length` steps into `out`, or into fresh memory, and returns it.

        Args:
            by: the distribution that trajectories are drawn from. "trajectory": uniform; "step": in proportion to their
                steps; "recency": the newest most often, half as often with every `half_life` trajectories of age (a
                quarter of those stored where it is None); "priority": in proportion to their priorities; "task": a task
                uniformly, then one of its trajectories.
            window: its first step is drawn uniformly over 0 .. max(0, T - length), or is the first or last of these.
            lookahead: extra steps after each window, if the trajectory has them: the batch has length + lookahead
                steps, and `mask` leaves the extra ones out. For n-step targets use n - 1.
            pad: where the rows without a step go.
            relabel: called with the `Trajectories` that windows were drawn from, to change them in place.

        Raises:
            RuntimeError: for an empty replay, and where all priorities are 0.
            ValueError: for sizes below 1, an unknown choice, and `out` of other sizes.
            CorruptReplayError, OSError: as `refresh`.
        """
        sizes = _sizes(batch_size, length, lookahead)
        text("by", by)
        text("window", window)
        draw = by, window, None if half_life is None else real("half_life", half_life)
        choice("pad", pad, ("right", "left"))
        batch = make_batch(self.schema, *sizes) if out is None else instance("out", out, Batch, "as batch() makes it")
        if relabel is None:
            self._native.sample(*sizes, *draw, pad == "left", batch.views())
        else:
            drawn = relabelled(self._native.draw(*sizes, *draw), relabel)
            self._native.pack(drawn, *sizes[1:], pad == "left", batch.views())
        return batch

    def set_priorities(self, trajectories: Sequence[int] | np.ndarray, priorities: Sequence[float] | np.ndarray) -> int:
        """Sets the priorities (finite, >= 0) of the trajectories with these ids; returns how many are still stored.

        A new trajectory has the largest priority so far, at first 1. Priorities are not kept in a directory. Raises
        ValueError for other values; nothing is then set.
        """
        ids, values = np.asarray(trajectories), np.asarray(priorities)
        if ids.shape != values.shape:
            raise ValueError(f"expected as many priorities as trajectories, got shapes {values.shape} and {ids.shape}")
        if not ids.size:
            return self._native.set_priorities(np.zeros(0, np.int64), np.zeros(0))
        if ids.dtype.kind not in "iu" or values.dtype.kind not in "iuf":
            raise TypeError(f"expected ids that are integers, and numbers, got {ids.dtype} and {values.dtype}")
        if ids.max() > MAX_INTEGER:
            raise ValueError(f"trajectories: expected ids of at most {MAX_INTEGER}, got {ids.max()}")
        return self._native.set_priorities(
            np.ascontiguousarray(ids, np.int64).ravel(), np.ascontiguousarray(values, np.float64).ravel()
        )

    @property
    def random_state(self) -> np.ndarray:
        """The state of the random stream, uint64 [4]. Setting it repeats the draws that followed it."""
        return np.array(self._native.random_state, dtype=np.uint64)

    @random_state.setter
    def random_state(self, state: np.ndarray) -> None:
        words = [integer("random_state", word, 0, 2**64 - 1) for word in state]
        if len(words) != 4:
            raise ValueError(f"random_state: expected four words, got {len(words)}")
        self._native.random_state = words

    def clear(self) -> None:
        """Forgets all stored trajectories, protected ones too. Open ones, ids and the random state go on."""
        self._native.clear()

    def refresh(self) -> None:
        """Takes in what other writers have committed to the directory, as `sample` does ten times a second.

        Trajectories whose files others have removed, or gone back behind, are not stored any more, and the memory and
        the disk that they took are given back once no batch is being filled from them. Raises CorruptReplayError for
        files that are newly found corrupt, unless they are to be skipped, and OSError.
        """
        self._native.refresh()

    def sync(self) -> None:
        """Waits until everything committed to the directory by this replay is on the disk. Raises OSError."""
        self._native.sync()

    def evicted_files(self) -> list[str]:
        """The files of the directory all of whose trajectories were evicted, as `position` names them."""
        return self._native.evicted_files()

    def reclaim(self, files: Sequence[str] | None = None) -> int:
        """Removes these of the `evicted_files`, all of them by default; returns the bytes that they had.

        What dead writers left without a trajectory goes too. Raises RuntimeError where the replay may only be read, and
        OSError.
        """
        if isinstance(files, str | bytes):
            raise TypeError(f"files: expected a list of names, as evicted_files() returns, got {files!r:.60}")
        return self._native.reclaim(self.evicted_files() if files is None else [text("files", name) for name in files])

    compact = renamed_method("compact", "reclaim")

    def position(self) -> dict[str, int]:
        """How many trajectories each file of the directory holds, to come back to with `open(position=...)`.

        Files all of whose trajectories were evicted do not count; the others must last until then: `keep_evicted`.
        """
        return self._native.position()

    def verify(self) -> list[Problem]:
        """Reads every stored trajectory of the directory and compares it with its checksum; [] where all is well."""
        return [Problem(*problem) for problem in self._native.verify()]

    def close(self) -> None:
        """Lets go of all memory and files; batches stay valid. Open trajectories are dropped."""
        self._native.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what is stored, the random state, the schema and the capacity into one safetensors file.

        The file takes the place of an earlier one at once, when all of it is on disk. Open trajectories are not saved.
        Raises OSError.
        """
        saved.write(absolute_path(path), self._native.snapshot(), self.schema, self._capacity)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        capacity_trajectories: int | None = None,
        threads: int = 2,
    ) -> Replay:
        """The replay that `save` wrote, in memory: the same trajectories, ids and counts, and the same samples.

        (Those by priority follow the same distribution, but are others.) A capacity replaces the saved one of its kind;
        where it is smaller, the oldest trajectories are evicted. Raises OSError where the file cannot be read and
        CorruptReplayError, naming it, where it is corrupt, no saved replay, or holds a trajectory larger than the
        capacity.
        """
        given = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        changes = {name: integer(name, value, 1) for name, value in given.items() if value is not None}
        schema, native, capacity = saved.read(absolute_path(path), changes, integer("threads", threads, 1))
        return cls(schema, native, capacity, None)


def _reopened(directory: str, options: dict[str, Any], random_state: np.ndarray) -> Replay:
    """What the pickle of a replay in a directory calls."""
    replay = Replay.open(directory, **options)
    replay.random_state = random_state
    return replay


def _sizes(batch_size: int, length: int, lookahead: int) -> tuple[int, int, int]:
    return (
        integer("batch_size", batch_size, 1, MAX_COUNT),
        integer("length", length, 1, MAX_COUNT),
        integer("lookahead", lookahead, 0, MAX_COUNT),
    )
