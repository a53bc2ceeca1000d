"""Trajectories to gather windows from, the floor under every replay, and what a sound window is.

The floor is `gather.c`, compiled here with the system's compiler: it draws nothing, knows every address and uses its
output again.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from twohot.replay import Batch, Field, Replay, Schema

LENGTH = 256
ACTION = 4
DRAWS = 64
SOURCE = Path(__file__).with_name("gather.c")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories one after the other, T + 1 rows each: the last has an observation and no step.

    The first two numbers of an action name its trajectory and step, so that any window tells where it comes from.
    """

    name: str
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    last: np.ndarray
    """bool [rows]: the row after the last step, where others keep their mark of an end."""
    begin: np.ndarray
    """int64 [trajectories]: the first row of each."""
    length: np.ndarray
    """int64 [trajectories]: steps of each."""

    @property
    def steps(self) -> int:
        return int(self.length.sum())

    @property
    def row_bytes(self) -> int:
        """Bytes of observation, action, reward and terminated for a step."""
        return self.observation[0].nbytes + 4 * ACTION + 4 + 1

    @cached_property
    def schema(self) -> Schema:
        shape, dtype = self.observation.shape[1:], self.observation.dtype.name
        return Schema({"observation": Field(dtype, shape)}, Field("float32", (ACTION,)))

    def add_to(self, replay: Replay) -> Replay:
        """The replay, with every trajectory in it."""
        for begin, length in zip(self.begin.tolist(), self.length.tolist(), strict=True):
            steps = slice(begin, begin + length)
            replay.add(
                {"observation": self.observation[begin : begin + length + 1]},
                self.action[steps],
                self.reward[steps],
                self.terminated[steps],
                np.zeros(length, bool),
            )
        return replay


def trajectories(name: str, lengths: np.ndarray, shape: tuple[int, ...], dtype: str) -> Trajectories:
    """Random trajectories of these lengths."""
    stream = np.random.default_rng(0)
    rows = int(lengths.sum()) + len(lengths)
    begin = np.cumsum(lengths + 1) - lengths - 1
    observation = np.empty((rows, *shape), dtype)
    flat = observation.reshape(-1).view(np.uint8)
    for at in range(0, flat.size, 1 << 24):
        part = flat[at : at + (1 << 24)]
        part[:] = np.frombuffer(stream.bytes(part.size), np.uint8)
    if dtype == "float32":
        observation.view(np.uint32)[:] &= 0xBF7FFFFF  # finite, at most 2
    action = stream.standard_normal((rows, ACTION), dtype=np.float32)
    action[:, 0] = np.repeat(np.arange(len(lengths)), lengths + 1)
    action[:, 1] = np.arange(rows) - np.repeat(begin, lengths + 1)
    terminated, last = np.zeros(rows, bool), np.zeros(rows, bool)
    last[begin + lengths] = terminated[begin + lengths - 1] = True
    reward = stream.standard_normal(rows, dtype=np.float32)
    return Trajectories(name, observation, action, reward, terminated, last, begin, lengths)


def s1(count: int = 2000) -> Trajectories:
    """Vectors: float32[39], by default 0.2 GB in 2000 trajectories of 100 to 1000 steps."""
    return trajectories("S1", np.random.default_rng(1).integers(100, 1001, count), (39,), "float32")


def s2(gigabytes: float = 3) -> Trajectories:
    """Images: uint8[3, 64, 64], by default 3 GB in trajectories of 100 to 1000 steps."""
    lengths = np.random.default_rng(2).integers(100, 1001, 100_000)
    count = int(np.searchsorted(np.cumsum(lengths), gigabytes * 1e9 / (3 * 64 * 64)))
    return trajectories("S2", lengths[: max(count, 2)], (3, 64, 64), "uint8")


def fault(
    stored: Trajectories, observation: np.ndarray, action: np.ndarray, reward: np.ndarray, steps: np.ndarray
) -> str:
    """Where windows are not consecutive rows of what was stored, or "".

    Args:
        stored: where they come from.
        observation: [B, >= steps, ...]. action: [B, >= steps, 4]. reward: [B, >= steps].
        steps: [B], how many rows of each window are real.
    """
    if len(observation) == 0 or min(steps) < 1:
        return "windows without a step"
    for window, count in enumerate(np.asarray(steps).tolist()):
        trajectory, step = np.asarray(action[window, :count, :2]).astype(np.int64).T
        if trajectory.min() < 0 or trajectory.max() >= len(stored.begin):
            return f"window {window} comes from no trajectory"
        row = stored.begin[trajectory] + step
        if row[0] + count > len(stored.reward) or (np.diff(row) != 1).any():
            return f"window {window} is not of consecutive rows"
        rows = slice(row[0], row[0] + count)
        pairs = {"observation": observation, "action": action, "reward": reward}
        for name, values in pairs.items():
            if not np.array_equal(values[window, :count], getattr(stored, name)[rows]):
                return f"{name} of window {window} is not what was stored"
    return ""


class _Column(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("row", "extent", "more", "shift")),
    )


@cache
def compiled(stream: bool) -> ctypes.CDLL:
    """`gather.c` as a library, with plain stores or with such as pass the caches.

    Raises:
        OSError: where there is no `cc`.
        subprocess.CalledProcessError: where it fails.
    """
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "gather.so"
        flags = ["-O3", "-march=native", "-shared", "-fPIC", *["-DSTREAM"] * stream]
        subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE)], check=True)
        return ctypes.CDLL(str(library))


def floor(
    stored: Trajectories, batch: Batch, *, stream: bool, derived: bool
) -> Callable[[np.ndarray | None, np.ndarray | None], None]:
    """A function that gathers the windows (trajectory, start), by default drawn before, into `batch`.

    Args:
        stored: what is gathered from.
        batch: numpy arrays that are used again; the columns that are not gathered stay as they are.
        stream: with stores that pass the caches.
        derived: whether previous action and reward, truncated and time are written too, as twohot does.
    """
    library = compiled(stream)
    size, length = batch.mask.shape
    truncated = np.zeros_like(stored.terminated)
    parts = [
        (stored.observation, batch.observation["observation"], 1, 0),
        (stored.action, batch.action, 0, 0),
        (stored.reward, batch.reward, 0, 0),
        (stored.terminated, batch.terminated, 0, 0),
    ]
    if derived:
        parts += [
            (truncated, batch.truncated, 0, 0),
            (stored.action, batch.previous_action, 1, -1),
            (stored.reward, batch.previous_reward, 1, -1),
        ]
    columns = (_Column * len(parts))(
        *(
            _Column(rows.ctypes.data, out.ctypes.data, rows[0].nbytes, out.shape[1], more, shift)
            for rows, out, more, shift in parts
        )
    )
    drawn = itertools.cycle(_draws(stored, size, length))

    def gather(trajectory: np.ndarray | None = None, start: np.ndarray | None = None) -> None:
        if trajectory is None:
            begin, start, steps = next(drawn)
        else:
            begin, steps = stored.begin[trajectory], np.minimum(stored.length[trajectory] - start, length)
        addresses = [ctypes.c_void_p(array.ctypes.data) for array in (begin, start, steps)]
        library.gather(columns, ctypes.c_int64(len(parts)), ctypes.c_int64(size), *addresses)
        outputs = [ctypes.c_void_p(array.ctypes.data) for array in (batch.mask, batch.time)]
        library.annotate(ctypes.c_int64(size), ctypes.c_int64(length), *addresses[1:], *outputs)

    gather.parts = parts  # keeps what the addresses point to
    return gather


def _draws(stored: Trajectories, size: int, length: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    stream = np.random.default_rng(3)
    result = []
    for _ in range(DRAWS):
        trajectory = stream.integers(len(stored.length), size=size)
        start = stream.integers(np.maximum(stored.length[trajectory] - length, 0) + 1)
        result.append((stored.begin[trajectory], start, np.minimum(stored.length[trajectory] - start, length)))
    return result
