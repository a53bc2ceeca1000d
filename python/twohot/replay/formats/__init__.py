"""Trajectories from and to other people's files, without executing anything that is read.

    for trajectory in read_amago("buffers/my_run/buffer"):
        replay.add(**trajectory)
    write_npz("trajectories", (replay.get(id) for id in replay.ids()))

A trajectory is what `Replay.add` takes and `Replay.get` returns. Readers are generators of one trajectory at a time, in
the order in which it was written where the files tell; `schema_of` gives the schema that it fits.
"""

from twohot.replay.formats.amago import amago_tasks, read_amago
from twohot.replay.formats.minari import read_minari, write_minari
from twohot.replay.formats.npz import read_npz, write_npz
from twohot.replay.formats.parquet import write_datasets, write_lerobot
from twohot.replay.formats.trajectory import FormatError, Trajectory, schema_of

__all__ = [
    "FormatError",
    "Trajectory",
    "amago_tasks",
    "read_amago",
    "read_minari",
    "read_npz",
    "schema_of",
    "write_datasets",
    "write_lerobot",
    "write_minari",
    "write_npz",
]
