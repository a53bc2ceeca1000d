"""What others do for a batch of windows: each is built from `Trajectories` and returns a function that samples once.

Packages on PyPI are imported; what has no package is written here in our own lines, in the manner of the original and
with the same bytes. Each sampled batch is (observation, action, reward, steps), as `gather.fault` takes it, or gives
that when it is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from bench.baselines.gather import Trajectories
from bench.baselines.packages import without_procgen

CHUNK = 1024
FILES = 200
Windows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Sampler = Callable[[], Windows | Callable[[], Windows]]


def numpy_by_hand(stored: Trajectories, batch_size: int, length: int) -> Sampler:
    """Rows by an array of indices into fresh memory, with a mask: as tianshou, SB3 and most people's own code do."""
    stream = np.random.default_rng(0)

    def sample() -> Windows:
        trajectory = stream.integers(len(stored.length), size=batch_size)
        steps = stored.length[trajectory]
        start = stream.integers(np.maximum(steps - length, 0) + 1)
        within = start[:, None] + np.arange(length + 1)
        mask = within[:, :-1] < steps[:, None]
        rows = stored.begin[trajectory][:, None] + np.minimum(within, steps[:, None])
        terminated = stored.terminated[rows[:, :-1]]
        terminated[~mask] = False
        return stored.observation[rows], stored.action[rows[:, :-1]], stored.reward[rows[:, :-1]], mask.sum(1)

    return sample


def dreamer(stored: Trajectories, batch_size: int, length: int) -> Sampler:
    """DreamerV3's replay (danijar/dreamerv3, embodied/core/replay.py): chunks of 1024 records that know the next.

    A window may start at any record and crosses ends, which it marks; one that leaves its chunk is put together from
    parts. A record is a row with marks of its place and an identifier of 20 bytes.
    """
    rows = len(stored.reward)
    first = np.zeros(rows, bool)
    first[stored.begin] = True
    columns = {
        "observation": stored.observation,
        "action": stored.action,
        "reward": stored.reward,
        "is_first": first,
        "is_last": stored.last,
        "is_terminal": stored.last.copy(),
        "stepid": np.zeros((rows, 20), np.uint8),
    }
    chunks = [{name: column[at : at + CHUNK] for name, column in columns.items()} for at in range(0, rows, CHUNK)]
    items = [(row // CHUNK, row % CHUNK) for row in range(rows - length)]
    stream = np.random.default_rng(0)
    span = length + 1

    def parts(chunk: int, index: int) -> dict[str, list[np.ndarray]]:
        result = {name: [column[index : index + span]] for name, column in chunks[chunk].items()}
        missing = span - len(result["reward"][0])
        while missing > 0:
            chunk += 1
            for name, column in chunks[chunk].items():
                result[name].append(column[:missing])
            missing -= len(result["reward"][-1])
        return result

    def sample() -> Windows:
        sequences = [parts(*items[stream.integers(len(items))]) for _ in range(batch_size)]
        batch = {
            name: np.empty((batch_size, span, *pieces[0].shape[1:]), pieces[0].dtype)
            for name, pieces in sequences[0].items()
        }
        for index, sequence in enumerate(sequences):
            at = 0
            for piece in range(len(sequence["stepid"])):
                count = len(sequence["stepid"][piece])
                for name, values in batch.items():
                    values[index, at : at + count] = sequence[name][piece]
                at += count
        is_first = batch["is_first"].copy()
        is_first[:, 0] = True
        following = np.roll(is_first, -1, 1)
        following[:, -1] = False
        batch |= {"is_first": is_first, "is_last": batch["is_last"] | following}
        return batch["observation"], batch["action"], batch["reward"], np.full(batch_size, span)

    return sample


def write_amago(stored: Trajectories, directory: Path) -> None:
    """The first 200 trajectories, each in an .npz file with the keys of the official AMAGO buffers.

    Reading a file costs the same however many there are while the page cache holds them, which 200 leave to others.
    """
    firsts, lengths = stored.begin[:FILES].tolist(), stored.length[:FILES].tolist()
    for index, (begin, length) in enumerate(zip(firsts, lengths, strict=True)):
        steps = slice(begin, begin + length)
        action, reward = stored.action[steps], stored.reward[steps, None]
        previous = np.concatenate((reward, action), -1)
        np.savez(
            directory / f"task_{index:08x}_{index}.0.npz",
            rl2s=np.concatenate((np.zeros_like(previous[:1]), previous)),
            time_idxs=np.arange(length + 1)[:, None],
            rews=reward,
            dones=stored.terminated[steps, None],
            actions=action,
            _OBS_KEY_observation=stored.observation[begin : begin + length + 1],
        )


def amago(directory: Path, batch_size: int, length: int) -> Sampler:
    """The official dataset (UT-Austin-RPL/amago, amago/loading.py) without workers: a window is a whole file's load.

    Its tensors are sliced and padded with its magic value.
    """
    names = sorted(map(str, directory.glob("*.npz")))

    def window() -> dict[str, torch.Tensor]:
        with np.load(random.choice(names)) as file:
            columns = {name: torch.from_numpy(file[name]) for name in file.files}
        columns = {
            name: column.long() if name == "time_idxs" else column.bool() if name == "dones" else column
            for name, column in columns.items()
        }
        steps = len(columns["actions"])
        start = 0 if steps <= length else random.randrange(0, steps - length + 1)
        return {
            name: column[start : start + length + (len(column) > steps)].float()
            if name in ("rl2s", "rews", "actions")
            else column[start : start + length + (len(column) > steps)]
            for name, column in columns.items()
        }

    def sample() -> Windows:
        windows = [window() for _ in range(batch_size)]
        batch = {
            name: pad_sequence([window[name] for window in windows], batch_first=True, padding_value=4.0)
            for name in windows[0]
        }
        steps = np.array([len(window["actions"]) for window in windows])
        observation, action, reward = (batch[name].numpy() for name in ("_OBS_KEY_observation", "actions", "rews"))
        return observation, action, reward.squeeze(-1), steps

    return sample


def torchrl(stored: Trajectories, batch_size: int, length: int, cached: bool) -> Sampler:
    """torchrl's SliceSampler over the stored arrays themselves, without a copy; ends found at each call or cached.

    Windows of short trajectories are short, and what is sampled is one row of rows.
    """
    from tensordict import TensorDict

    with without_procgen():
        from torchrl.data import SliceSampler, TensorDictReplayBuffer, TensorStorage

    columns = ("observation", "action", "reward", "terminated", "last")
    data = TensorDict(
        {name: torch.from_numpy(getattr(stored, name)) for name in columns}, batch_size=[len(stored.reward)]
    )
    sampler = SliceSampler(slice_len=length + 1, end_key="last", strict_length=False, cache_values=cached)
    buffer = TensorDictReplayBuffer(storage=TensorStorage(data), sampler=sampler, batch_size=batch_size * (length + 1))

    def sample() -> Callable[[], Windows]:
        batch = buffer.sample()
        return lambda: _ragged(batch)

    return sample


def _ragged(batch: Mapping[str | tuple[str, str], torch.Tensor]) -> Windows:
    """The windows of one row of rows, whose ends torchrl has marked."""
    ends = np.flatnonzero(batch["next", "truncated"].numpy().reshape(-1)) + 1
    steps = np.diff(ends, prepend=0)
    columns = [np.split(batch[name].numpy(), ends[:-1]) for name in ("observation", "action", "reward")]
    return (*(_Ragged(parts) for parts in columns), steps)


class _Ragged:
    """Windows of different lengths, indexed as an array would be."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, key: tuple) -> np.ndarray:
        window, *rest = key
        return self.parts[window][tuple(rest)]


def cpprb(stored: Trajectories, batch_size: int, length: int) -> Sampler:
    """cpprb with chunks of 257 rows as its items: no window starts elsewhere, ends are left out, nothing is masked.

    It holds 1 GB at most, which is far beyond any cache, so that all providers fit into memory at once.
    """
    from cpprb import ReplayBuffer

    span = length + 1
    columns = {name: getattr(stored, name) for name in ("observation", "action", "reward", "terminated")}
    starts = [
        at
        for begin, steps in zip(stored.begin.tolist(), stored.length.tolist(), strict=True)
        for at in range(begin, begin + steps + 2 - span, span)
    ]
    specification = {
        name: {"shape": (span, *column.shape[1:]), "dtype": column.dtype} for name, column in columns.items()
    }
    chunk_bytes = span * sum(column[0].nbytes for column in columns.values())
    del starts[int(1e9 // chunk_bytes) :]
    buffer = ReplayBuffer(len(starts), specification)
    for at in starts:
        buffer.add(**{name: column[at : at + span] for name, column in columns.items()})
    steps = np.full(batch_size, span)

    def sample() -> Windows:
        batch = buffer.sample(batch_size)
        return batch["observation"], batch["action"], batch["reward"].reshape(batch_size, span), steps

    return sample
