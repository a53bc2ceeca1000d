"""The calls of `native_fuzz` that store and sample trajectories."""

import tempfile
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from native_fuzz import Draw
from twohot.replay import Field, Replay, Schema

SCHEMAS = (
    Schema({"o": Field("float32", (3,))}, Field("int64")),
    Schema(
        {"o": Field("uint8", (2, 2)), "x": Field("float16", nan=True)}, Field("float32", (2,)), {"s": Field("bool")}
    ),
    Schema({"o": Field("float64", compression="zstd")}, Field("int32"), {"s": Field("int16", (2,))}),
)


def _array(draw: Draw, field: Field, *rows: int) -> np.ndarray:
    numbers = np.random.default_rng(draw.random.getrandbits(32))
    return numbers.integers(0, 2, (*rows, *field.shape)).astype(field.dtype)


def _columns(draw: Draw, schema: Schema, steps: int) -> dict:
    ends = np.arange(steps) == steps - 1
    terminated = ends & draw.choice(True, False)
    return {
        "observation": {name: _array(draw, field, steps + 1) for name, field in schema.observation.items()},
        "action": _array(draw, schema.action, steps),
        "reward": np.linspace(-1, 1, steps, dtype=np.float32),
        "terminated": terminated,
        "truncated": ends & ~terminated,
        "task": draw.size(0, 1, 5),
        "step": {name: _array(draw, field, steps) for name, field in schema.step.items()} or None,
    }


def _filled(draw: Draw, schema: Schema, **options) -> Replay:
    replay = Replay.create(schema, capacity_steps=200, **options)
    for _ in range(draw.size(1, 3)):
        replay.add(**_columns(draw, schema, draw.size(1, 2, 9)), protect=draw.choice(False, False, True))
    return replay


def _require_stored(replay: Replay, batch, length: int, left: bool) -> None:
    """Rows of every window are those of the trajectory that it says it comes from."""
    for b, (trajectory, start) in enumerate(zip(batch.trajectory.tolist(), batch.start.tolist(), strict=True)):
        stored = replay.get(trajectory)
        count = min(length, len(stored["reward"]) - start)
        rows = slice(length - count, length) if left else slice(0, count)
        assert batch.mask[b].sum() == count
        np.testing.assert_array_equal(batch.reward[b, rows], stored["reward"][start : start + count])
        for name, column in stored["observation"].items():
            np.testing.assert_array_equal(batch.observation[name][b, rows], column[start : start + count])


def creations(draw: Draw):
    def create(columns, **options):
        with Replay.create(schema, **options) as replay:
            replay.add(**columns)
            return replay.stats().steps

    schema = draw.choice(*SCHEMAS)
    arguments = {
        "columns": _columns(draw, schema, draw.size(1, 4)),
        "capacity_steps": draw.choice(None, 100),
        "capacity_bytes": draw.choice(None, 1 << 20),
        "capacity_trajectories": 10,
        "seed": 3,
        "threads": draw.size(1, 2),
    }
    return create, arguments, False


def fields(draw: Draw):
    def make(dtype, shape, nan, compression, name):
        return Schema({name: Field(dtype, shape, nan, compression)}, Field("int64")).native()

    arguments = {"dtype": "float32", "shape": (2,), "nan": False, "compression": "", "name": "o"}
    return make, arguments, False


def additions(draw: Draw):
    schema = draw.choice(*SCHEMAS)

    def add(protect, **columns):
        with Replay.create(schema, capacity_steps=200) as replay:
            found = replay.get(replay.add(**columns, protect=protect))
            np.testing.assert_array_equal(found["action"], columns["action"])
            return replay.table()["length"]

    return add, {**_columns(draw, schema, draw.size(1, 4)), "protect": False}, False


def extensions(draw: Draw):
    schema = draw.choice(*SCHEMAS)
    source = _filled(draw, schema)

    def extend(directory, lies, **columns):
        with tempfile.TemporaryDirectory() as place:
            options = {"directory": Path(place) / "d"} if directory else {}
            with Replay.create(schema, capacity_steps=200, **options) as replay:
                with suppress(ValueError):
                    replay.extend({**columns, "length": lies})
                replay.clear()
                count = replay.extend(columns)
                assert len(replay) == count == len(columns["length"])
                for trajectory in replay.ids().tolist():
                    replay.get(trajectory)
                if directory:
                    return replay.stats().steps
                drained = replay.drain()
                assert drained.keys() == columns.keys()
                assert len(replay) == 0
                return drained["reward"]

    columns = source.drain()
    lies = [draw.choice(-1, 0, 1, 2, 9, 40, 2**31, 2**62, 2**63 - 1) for _ in columns["length"]]
    return extend, {"directory": draw.choice(False, False, True), "lies": np.array(lies), **columns}, False


def samples(draw: Draw):
    schema, length = draw.choice(*SCHEMAS), draw.size(1, 3, 12)
    replay = _filled(draw, schema)

    def sample(batch_size, length, by, window, lookahead, half_life, pad, out, relabel):
        drawn = replay.sample(
            batch_size, length, by=by, window=window, lookahead=lookahead, half_life=half_life, pad=pad, out=out,
            relabel=relabel,
        )  # fmt: skip
        if not lookahead and relabel is None:
            _require_stored(replay, drawn, length, pad == "left")

    lookahead = draw.size(0, 0, 2)
    arguments = {
        "batch_size": draw.size(1, 4),
        "length": length,
        "by": draw.choice("trajectory", "step", "recency", "priority", "task"),
        "window": draw.choice("anywhere", "start", "end"),
        "lookahead": lookahead,
        "half_life": draw.choice(None, 2.0),
        "pad": draw.choice("right", "left"),
        "out": None,
        "relabel": draw.choice(None, lambda drawn: drawn.reward.fill(2.0)),
    }
    return sample, arguments, False


def batches(draw: Draw):
    """Memory of other sizes, dtypes and strides."""
    replay, length = _filled(draw, draw.choice(*SCHEMAS)), draw.size(1, 4)
    made = vars(replay.batch(3, length, torch=draw.choice(False, True)))

    def fill(**columns):
        batch = replay.batch(3, length)
        for name, column in columns.items():
            setattr(batch, name, column)
        return replay.sample(3, length, out=batch).reward

    return fill, {name: column for name, column in made.items() if not name.startswith("_")}, False


def loaders(draw: Draw):
    replay = _filled(draw, draw.choice(*SCHEMAS))

    def load(batch_size, length, batches, prefetch, torch, by):
        loader = replay.loader(batch_size, length, batches=batches, prefetch=prefetch, torch=torch, by=by)
        for batch in islice(loader, 5):  # of more than anybody could wait for
            assert batch.reward.shape[0] == batch_size
        loader.close()

    arguments = {
        "batch_size": 2,
        "length": 3,
        "batches": 3,
        "prefetch": 2,
        "torch": draw.choice(True, False),
        "by": "step",
    }
    return load, arguments, False


def priorities(draw: Draw):
    replay = _filled(draw, SCHEMAS[0])

    def prioritise(trajectories, numbers, state):
        count = replay.set_priorities(trajectories, numbers)
        replay.random_state = state
        return count, replay.random_state

    ids = replay.ids()
    arguments = {"trajectories": ids, "numbers": np.ones(len(ids)), "state": replay.random_state}
    return prioritise, arguments, False


def look_ups(draw: Draw):
    replay = _filled(draw, draw.choice(*SCHEMAS))
    return _named("get", lambda trajectory: len(replay.get(trajectory)["reward"])), {"trajectory": 0}, False


def writers(draw: Draw):
    schema, environments = draw.choice(*SCHEMAS), draw.size(1, 3)

    def write(environments, chunk_length, overlap, first, task, mask, dropped, **step):
        with Replay.create(schema, capacity_steps=200) as replay:
            writer = replay.writer(environments, chunk_length=chunk_length, overlap=overlap)
            writer.begin(first, mask, task)
            writer.append(**step, mask=mask)
            writer.cut()
            writer.begin(first, mask, task)
            writer.discard(dropped)
            return replay.stats().steps

    ended, chunk_length = np.zeros(environments, bool), draw.choice(None, 2)
    arguments = {
        "environments": environments,
        "chunk_length": chunk_length,
        "overlap": 0 if chunk_length is None else 1,
        "first": {name: _array(draw, field, environments) for name, field in schema.observation.items()},
        "task": draw.choice(None, np.arange(environments, dtype=np.int32)),
        "mask": draw.choice(None, np.ones(environments, bool)),
        "dropped": draw.choice(None, np.ones(environments, bool)),
        "action": _array(draw, schema.action, environments),
        "reward": np.ones(environments, np.float32),
        "terminated": ended,
        "truncated": ended.copy(),
        "observation": {name: _array(draw, field, environments) for name, field in schema.observation.items()},
        "step": {name: _array(draw, field, environments) for name, field in schema.step.items()} or None,
    }
    return write, arguments, False


def files(draw: Draw):
    """A saved replay, and what may be given to `load`."""
    schema, seed = draw.choice(*SCHEMAS), draw.random.getrandbits(30)

    def save(path, capacity_steps, threads):
        with tempfile.TemporaryDirectory() as place:
            replay = _filled(Draw(seed, 0), schema)
            replay.save(Path(place) / path)
            with Replay.load(Path(place) / path, capacity_steps=capacity_steps, threads=threads) as other:
                assert capacity_steps is not None or other.stats().steps == replay.stats().steps
            replay.clear()

    return save, {"path": "saved", "capacity_steps": None, "threads": 1}, False


def directories(draw: Draw):
    """A replay in a directory, opened in every mode, and the calls that concern its files."""
    schema, seed = draw.choice(*SCHEMAS), draw.random.getrandbits(30)

    def use(mode, corrupt, segment_bytes, seed_of_samples, threads, capacity_steps, evicted):
        with tempfile.TemporaryDirectory() as place:
            replay = _filled(Draw(seed, 0), schema, directory=Path(place) / "d", segment_bytes=segment_bytes)
            position = replay.position()
            replay.add(**_columns(Draw(seed, 1), schema, 3))
            replay.sync()
            replay.refresh()
            replay.reclaim()
            if evicted is not None:
                replay.reclaim(evicted)
            assert replay.verify() == []
            assert len(replay.actions()) == replay.stats().steps
            replay.close()
            options = {"segment_bytes": segment_bytes, "seed": seed_of_samples, "threads": threads}
            options["capacity_steps"] = capacity_steps
            with Replay.open(Path(place) / "d", mode, corrupt=corrupt, **options) as again:
                count = again.stats().trajectories
            with Replay.open(Path(place) / "d", "append", position=position) as before:
                assert mode == "write" or capacity_steps is not None or before.stats().trajectories <= count
            Replay.repair(Path(place) / "d")

    arguments = {
        "mode": draw.choice("read", "append", "write"),
        "corrupt": draw.choice("raise", "skip"),
        "segment_bytes": draw.choice(1, 1 << 16),
        "seed_of_samples": 4,
        "threads": draw.size(1, 2),
        "capacity_steps": None,
        "evicted": draw.choice(None, []),
    }
    return use, arguments, False


def positions(draw: Draw):
    """Positions that a directory never had."""
    schema, seed = SCHEMAS[0], draw.random.getrandbits(30)

    def go_back(file, count):
        with tempfile.TemporaryDirectory() as place:
            replay = _filled(Draw(seed, 0), schema, directory=Path(place) / "d")
            ((name, had),) = replay.position().items()
            replay.close()
            position = {name if file == "its file" else file: had if count == 0 else count}
            with Replay.open(Path(place) / "d", "append", position=position) as again:
                return again.stats().trajectories

    return go_back, {"file": "its file", "count": 0}, False


def _named(name: str, call):
    call.__name__ = name
    return call


REPLAY_CASES = (
    *(creations, fields, additions, extensions, samples, batches, loaders, priorities, look_ups, writers, files),
    *(directories, positions),
)
