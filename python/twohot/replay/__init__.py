"""Replay of whole trajectories: many environments write steps, a learner samples windows of fixed shape.

    schema = Schema(observation={"image": Field("uint8", (64, 64, 3))}, action=Field("int64"))
    replay = Replay.create(schema, capacity_steps=1_000_000, seed=0)      # directory="..." keeps it in files
    writer = replay.writer(environments=64)
    writer.begin({"image": first})
    writer.append(action, reward, terminated, truncated, {"image": image})
    batch = replay.sample(batch_size=32, length=128)

Arrays enter as they are declared: another dtype or shape, or memory that is not C-contiguous, is an error and never
converted, unless `cast=True` asks for it (see `Writer`). `Schema.from_spaces` reads gymnasium's spaces.

`B` is the batch size, `L` the length of a window in steps, `E` the number of environments, `T` the number of steps of a
trajectory. Needs numpy alone; torch is imported when torch batches are asked for.
"""

from twohot._moved import renamed_attributes
from twohot.errors import CorruptReplayError
from twohot.replay.batch import Batch
from twohot.replay.contents import Problem, ReplayStats
from twohot.replay.mixture import Mixture
from twohot.replay.relabel import Trajectories
from twohot.replay.schema import DTYPES, Field, Schema
from twohot.replay.store import Replay
from twohot.replay.writer import Writer

__all__ = [
    "DTYPES",
    "Batch",
    "CorruptReplayError",
    "Field",
    "Mixture",
    "Problem",
    "Replay",
    "ReplayStats",
    "Schema",
    "Trajectories",
    "Writer",
]

__getattr__ = renamed_attributes(__name__, DamagedReplayError="CorruptReplayError")
