"""The replay itself: made or opened, written, sampled, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from twohot import _native
from twohot.replay import saved
from twohot.replay.arguments import MOST, MOST_ROWS, boolean, integer, place, real, text
from twohot.replay.batch import Batch, make_batch
from twohot.replay.manifest import capacities, exists, read_manifest, write_manifest
from twohot.replay.native import SEGMENT_BYTES, make_native
from twohot.replay.prefetch import load_ahead
from twohot.replay.relabel import Relabel, relabelled
from twohot.replay.schema import Schema
from twohot.replay.writer import Writer

Law = Literal["trajectory", "step", "recency", "priority", "task"]
Window = Literal["anywhere", "start", "end"]
Mode = Literal["read", "append", "write"]


@dataclass(frozen=True)
class ReplayStats:
    """Counts of a replay: what it holds now, what has left it for its capacity, and what writers have open."""

    trajectories: int
    protected_trajectories: int
    """Those among them that never leave."""
    steps: int
    bytes: int
    evicted_trajectories: int
    evicted_steps: int
    open_trajectories: int
    problems: int
    """Damaged records and files of its directory that were left out."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a replay."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class Replay:
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
        capacity: Mapping[str, int | None],
        directory: Path | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.schema = schema
        self.directory = directory
        self._native = native
        self._capacity = capacity
        self._options = options or {}

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
        they hold has been evicted (`keep_evicted`: when `compact` is called). With `durable` a commit waits for the
        disk, and survives the death of the machine too. Raises FileExistsError where the directory holds a replay.
        """
        capacity = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        home = None if directory is None else place(directory)
        options = {"durable": durable, "segment_bytes": segment_bytes, "keep_evicted": keep_evicted}
        if home is not None:
            home.mkdir(parents=True, exist_ok=True)
            if exists(home):
                raise FileExistsError(f"{home} holds a replay already: open it with Replay.open")
        native = make_native(schema, capacity, home, "create", seed, threads, **options)
        if home is not None:
            if native.stats()["trajectories"]:
                raise FileExistsError(f"{home} holds trajectories without a description of their replay: empty it")
            write_manifest(home, schema, capacity)
        return cls(schema, native, capacity, home, {"mode": "append", "threads": threads, **options})

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        mode: Mode = "read",
        *,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
        capacity_trajectories: int | None = None,
        damage: Literal["raise", "skip"] = "raise",
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
        that are torn, changed or foreign raise DamagedReplayError, or are left out with `damage="skip"` (see `verify`).
        `position` takes back what was committed after `position()` had returned it; nobody may be writing then, and
        those that read lose it at their next `refresh`. RuntimeError says what it needs and is not there any more. Of
        the files that it does not need, those that `evicted_files()` named then, given as `evicted`, stay. A directory
        of the format before becomes one of this format unless it is only read. Raises ValueError for another mode and
        for a position without the right to write, FileNotFoundError where there is no replay, and OSError.
        """
        if text("mode", mode) not in get_args(Mode):
            raise ValueError(f"mode: expected one of {get_args(Mode)}, got {mode!r:.60}")
        if position is not None and mode == "read":
            raise ValueError('position: expected mode "append" or "write", as it takes trajectories back; got "read"')
        home = place(directory)
        schema, capacity = read_manifest(home, renew=mode != "read")
        given = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        if any(value is not None for value in given.values()):
            capacity = given
        if text("damage", damage) not in ("raise", "skip"):
            raise ValueError(f"damage: expected 'raise' or 'skip', got {damage!r:.60}")
        if position is not None:
            if not isinstance(position, Mapping):
                raise TypeError(f"position: expected what position() returned, got {position!r:.60}")
            extents = {text("position", name): integer("position", count) for name, count in position.items()}
            _native.roll_back(os.fsencode(home), extents, {text("evicted", name) for name in evicted})
        options = {"durable": durable, "segment_bytes": segment_bytes, "keep_evicted": keep_evicted}
        native = make_native(schema, capacity, home, mode, seed, threads, skip_damage=damage == "skip", **options)
        return cls(schema, native, capacity, home, {"mode": mode, "damage": damage, "threads": threads, **options})

    @staticmethod
    def repair(directory: str | os.PathLike[str]) -> list[Problem]:
        """Makes the index of a directory anew from all trajectories in it that are intact; returns what was lost.

        Files that hold none, and whatever is no file, are moved to the folder `damaged` in it. Others may read
        meanwhile. Raises RuntimeError while somebody writes, and OSError.
        """
        home = place(directory)
        schema, _ = read_manifest(home, renew=True)
        return [Problem(*problem) for problem in _native.repair(os.fsencode(home), *schema.native())]

    def writer(self, environments: int, *, piece_steps: int | None = None, overlap_steps: int = 0) -> Writer:
        """A writer for `environments` environments; a replay may have several. Raises ValueError below 1.

        With `piece_steps`, a longer trial is stored in pieces of that many steps while it goes on. Each piece but the
        first begins with the last `overlap_steps` (1 .. piece_steps - 1) of the one before, so that windows have that
        much context, and ends truncated unless the trial ends there; `Batch.time` goes on over the pieces.
        """
        count = integer("environments", environments, 1, MOST_ROWS)
        pieces = 0 if piece_steps is None else integer("piece_steps", piece_steps, 1)
        overlap = integer("overlap_steps", overlap_steps)
        if overlap != 0 and piece_steps is None:
            raise ValueError(f"overlap_steps: expected piece_steps with it, got {overlap} alone")
        return Writer(_native.ReplayWriter(self._native, count, pieces, overlap))

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
        label = integer("task", task, most=2**31 - 1), boolean("protect", protect)
        return self._native.insert(observation, action, reward, terminated, truncated, step, *label, 0, None)

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
        by: Law = "trajectory",
        window: Window = "anywhere",
        lookahead: int = 0,
        half_life: float | None = None,
        pad: Literal["right", "left"] = "right",
        relabel: Relabel | None = None,
        out: Batch | None = None,
    ) -> Batch:
        """Draws `batch_size` windows of `length` steps into `out`, or into fresh memory, and returns it.

        Args:
            by: how a trajectory is drawn. "trajectory": uniformly; "step": in proportion to its steps; "recency": the
                newest most often, half as often with every `half_life` trajectories of age (a quarter of those stored
                where it is None); "priority": in proportion to its priority; "task": a task uniformly, then one of its
                trajectories.
            window: its first step is drawn uniformly over 0 .. max(0, T - length), or is the first or last of these.
            lookahead: so many steps more behind each window, where the trajectory has them: the batch has length +
                lookahead steps, and `mask` leaves these out. For n-step targets use n - 1.
            pad: where the rows without a step go.
            relabel: called with the `Trajectories` that windows were drawn from, to change them in place.

        Raises:
            RuntimeError: for an empty replay, and where all priorities are 0.
            ValueError: for sizes below 1, an unknown choice, and `out` of other sizes.
            DamagedReplayError, OSError: as `refresh`.
        """
        sizes = _sizes(batch_size, length, lookahead)
        law = text("by", by), text("window", window), None if half_life is None else real("half_life", half_life)
        if text("pad", pad) not in ("right", "left"):
            raise ValueError(f"pad: expected 'right' or 'left', got {pad!r:.60}")
        if not isinstance(out, Batch | None):
            raise TypeError(f"out: expected a Batch, which batch() makes, got {out!r:.60}")
        batch = make_batch(self.schema, *sizes) if out is None else out
        if relabel is None:
            self._native.sample(*sizes, *law, pad == "left", batch.views())
        else:
            drawn = relabelled(self._native.draw(*sizes, *law), relabel)
            self._native.pack(drawn, *sizes[1:], pad == "left", batch.views())
        return batch

    def loader(
        self,
        batch_size: int,
        length: int,
        *,
        batches: int,
        ahead: int = 2,
        torch: bool = False,
        pin_memory: bool = False,
        **options: Any,
    ) -> Iterator[Batch]:
        """Yields `batches` batches that a background thread samples up to `ahead` batches ahead.

        A batch is valid until the next one is asked for: `ahead + 1` memories serve all. The batches are those that
        `sample` would return with the same `options`, in order. The thread starts with the first `next()` and has ended
        when the iterator is exhausted, closed or raises; an iterator closed early may have drawn up to `ahead` batches
        that nobody saw. What the thread raises is raised by `next()`, behind the batches before it. Raises ValueError
        for sizes below 1.
        """
        return load_ahead(
            self, batch_size, length, batches=batches, ahead=ahead, torch=torch, pin_memory=pin_memory, options=options
        )

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
        if ids.max() > MOST:
            raise ValueError(f"trajectories: expected ids of at most {MOST}, got {ids.max()}")
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

    def stats(self) -> ReplayStats:
        """Counts at this moment."""
        return ReplayStats(**self._native.stats())

    def table(self) -> dict[str, np.ndarray]:
        """What is known of each stored trajectory: the protected ones, then the others, each oldest first.

        Arrays [trajectories]: `id` int64; `task` int32; `length` int64, in steps; `return` float64, undiscounted;
        `origin` int64, the time of its first step in its trial; `protected` bool; `priority` float64.
        """
        table = self._native.table()
        if not len(table["priority"]):
            table["priority"] = np.ones(len(table["id"]))
        return table

    def lengths(self) -> np.ndarray:
        """Steps of each stored trajectory, int64 [trajectories], as `table`."""
        return self.table()["length"]

    def tasks(self) -> np.ndarray:
        """Task of each stored trajectory, int32 [trajectories], as `table`."""
        return self.table()["task"]

    def returns(self) -> np.ndarray:
        """Undiscounted sum of the rewards of each stored trajectory, float64 [trajectories], as `table`."""
        return self.table()["return"]

    def ids(self) -> np.ndarray:
        """Id of each stored trajectory, int64 [trajectories], as `table`."""
        return self.table()["id"]

    def actions(self) -> np.ndarray:
        """Actions of all stored steps, [steps, *action shape], one trajectory behind the other, as `table`."""
        return self._native.actions()

    def get(self, trajectory: int) -> dict[str, Any]:
        """Copies of the columns of the trajectory with this id, as the arguments of `add`.

        Raises KeyError where it is not stored (any more): evicted, or in a file that others have removed.
        """
        return self._native.get(integer("trajectory", trajectory))

    def clear(self) -> None:
        """Forgets all stored trajectories, protected ones too. Open ones, ids and the random state go on."""
        self._native.clear()

    def refresh(self) -> None:
        """Takes in what other writers have committed to the directory, as `sample` does ten times a second.

        Trajectories whose files others have removed, or gone back behind, are not stored any more, and the memory and
        the disk that they took are given back once no batch is being filled from them. Raises DamagedReplayError for
        damage that is new, unless it is to be skipped, and OSError.
        """
        self._native.refresh()

    def sync(self) -> None:
        """Waits until everything committed to the directory by this replay is on the disk. Raises OSError."""
        self._native.sync()

    def evicted_files(self) -> list[str]:
        """The files of the directory all of whose trajectories were evicted, as `position` names them."""
        return self._native.evicted_files()

    def compact(self, files: Sequence[str] | None = None) -> int:
        """Removes these of the `evicted_files`, all of them by default; returns the bytes that they had.

        What dead writers left without a trajectory goes too. Raises RuntimeError where the replay may only be read, and
        OSError.
        """
        if isinstance(files, str | bytes):
            raise TypeError(f"files: expected a list of names, as evicted_files() returns, got {files!r:.60}")
        return self._native.reclaim(self.evicted_files() if files is None else [text("files", name) for name in files])

    def position(self) -> dict[str, int]:
        """How many trajectories each file of the directory holds, to come back to with `open(position=...)`.

        Files all of whose trajectories were evicted do not count; the others must last until then: `keep_evicted`.
        """
        return self._native.extents()

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
        saved.write(place(path), self._native.snapshot(), self.schema, self._capacity)

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

        (Those by priority follow the same law, but are others.) A capacity replaces the saved one of its kind; where it
        is smaller, the oldest trajectories are evicted. Raises OSError where the file cannot be read and
        DamagedReplayError, naming it, where it is damaged, no saved replay, or holds a trajectory larger than the
        capacity.
        """
        given = capacities(capacity_steps, capacity_bytes, capacity_trajectories)
        for name, value in {**given, "threads": threads}.items():
            if value is not None:
                integer(name, value, 1)

        def create(schema: Schema, capacity: dict[str, int | None]) -> Replay:
            capacity |= {name: value for name, value in given.items() if value is not None}
            return cls.create(schema, **capacity, threads=threads)

        return saved.read(place(path), create)


def _reopened(directory: str, options: dict[str, Any], random_state: np.ndarray) -> Replay:
    """What the pickle of a replay in a directory calls."""
    replay = Replay.open(directory, **options)
    replay.random_state = random_state
    return replay


def _sizes(batch_size: int, length: int, lookahead: int) -> tuple[int, int, int]:
    return (
        integer("batch_size", batch_size, 1, MOST_ROWS),
        integer("length", length, 1, MOST_ROWS),
        integer("lookahead", lookahead, 0, MOST_ROWS),
    )
