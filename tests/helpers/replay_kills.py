"""Writers, a learner that evicts and removes, and readers of one directory, all at once, some of whom are killed.

Run as a process of its own, which has no thread when it forks: `replay_kills.py sharing|resuming DIRECTORY KILLS SEED
CAPACITY`. What goes wrong in any process ends in its traceback and a status that is not 0.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from replay_crash import SCHEMA, columns, length_of
from twohot.replay import Replay

SMALL = {"segment_bytes": 12_000, "threads": 1}
UNBOUNDED = {"capacity_steps": 10**9, "threads": 1}
LIVES = 100_000
MAX_LENGTH = 37


class Child:
    """A forked process that runs `work(tell)`; `tell` sends a number that is heard after its end."""

    def __init__(self, work):
        self.first = b""
        self.heard, told = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                os.close(self.heard)
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                work(lambda number: os.write(told, number.to_bytes(4, "little")))
            except SystemExit:
                pass
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(told)

    def wait(self):
        """Until it tells something."""
        self.first = os.read(self.heard, 4)

    def kill(self):
        """Ends it, if it has not ended."""
        if self.process is not None:
            os.kill(self.process, signal.SIGKILL)

    def end(self, how):
        """The numbers that it told until it was ended by a signal."""
        os.kill(self.process, how)
        _, status = os.waitpid(self.process, 0)
        self.process = None
        expected = os.WTERMSIG(status) == how if how == signal.SIGKILL else status == 0
        assert expected, f"a process ended by itself, with the status {status}"
        numbers = b"".join(iter(lambda: os.read(self.heard, 1 << 16), b""))
        os.close(self.heard)
        return np.frombuffer(self.first + numbers, "<i4").tolist()


def check(replay, trajectory):
    stored = replay.get(trajectory)
    number = stored["task"]
    expected = columns(number, length_of(number))
    for name in ("action", "reward", "terminated"):
        np.testing.assert_array_equal(stored[name], expected[name])
    np.testing.assert_array_equal(stored["observation"]["value"], expected["observation"]["value"])
    return number


def add(replay, number, tell):
    replay.add(**columns(number, length_of(number)))
    tell(number)


def act(directory, life, tell):
    """Only adds."""
    replay = Replay.open(directory, "write", **SMALL)
    for number in range(life * LIVES, (life + 1) * LIVES):
        add(replay, number, tell)
        time.sleep(0.0005)


def learn(directory, life, capacity, tell):
    """Adds, samples, evicts and removes, and is opened again and again."""
    generator = random.Random(life)
    for number in range(life * LIVES, (life + 1) * LIVES):
        if number % 40 == 0:
            replay = Replay.open(directory, "append", capacity_steps=capacity, seed=life, **SMALL)
        add(replay, number, tell)
        replay.refresh()
        replay.sample(2, 5)
        if generator.random() < 0.2:
            replay.reclaim()
        if number % 40 == 39:
            replay.close()


def train(directory, life, capacity, tell):
    """Adds and takes checkpoints, which it goes back to when it is begun again; what an older one needs stays."""
    path = directory.parent / "checkpoint.json"
    saved = json.loads(path.read_text()) if path.exists() else {"position": {}, "evicted": [], "tasks": []}
    options = {"capacity_steps": capacity, "keep_evicted": True, "seed": 0, **SMALL}
    replay = Replay.open(directory, "append", position=saved["position"], **options)
    assert replay.tasks().tolist()[-len(saved["tasks"]) :] == saved["tasks"]
    evicted = saved["evicted"]
    for number in range(life * LIVES, (life + 1) * LIVES):
        replay.add(**columns(number, length_of(number)))
        if number % 15 == 14:
            replay.sync()
            saved = {"position": replay.position(), "evicted": replay.evicted_files(), "tasks": replay.tasks().tolist()}
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(saved))
            os.replace(partial, path)
            tell(number)
            replay.reclaim(evicted)
            evicted = saved["evicted"]


def read(directory, seed, tell):
    """Refreshes, samples, loads ahead and looks at trajectories until it is told to stop; then holds what is there."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    generator = random.Random(seed)
    replay = Replay.open(directory, **UNBOUNDED)
    while not stopped:
        replay.refresh()
        ids = replay.ids().tolist()
        assert len(set(ids)) == len(ids)
        numbers = [check(replay, trajectory) for trajectory in generator.sample(ids, min(8, len(ids)))]
        assert len(set(numbers)) == len(numbers)
        try:
            for batch in replay.loader(4, 6, batches=3) if seed % 2 else [replay.sample(4, 6)]:
                steps = batch.action - batch.action[:, :1]
                assert (steps == np.arange(6))[batch.mask].all()
        except RuntimeError as error:  # everything may have been taken back
            if not str(error).startswith("the replay is empty"):
                raise
        if generator.random() < 0.1:
            assert replay.verify() == []
        if generator.random() < 0.02:
            replay.close()
            replay = Replay.open(directory, **UNBOUNDED)
    replay.refresh()
    with Replay.open(directory, **UNBOUNDED) as fresh:
        assert sorted(replay.ids()) == sorted(fresh.ids())
    assert replay.verify() == []
    maps = Path("/proc/self/maps")
    held = maps.read_text().splitlines() if maps.exists() else []
    assert not [line for line in held if str(directory) in line and line.endswith("(deleted)")]


def kill(directory, kills, seed, capacity, works):
    """Lets all work at once, and kills one that is no reader after another; returns what each told, by its life."""
    generator = random.Random(seed)
    readers = [Child(lambda tell, seed=seed: read(directory, seed, tell)) for seed in range(2)]
    told, lives, workers = {}, 0, [None] * len(works)
    try:
        for count in range(kills + len(works)):
            place = count if count < len(works) else generator.randrange(len(works))
            if workers[place] is not None:
                life, worker = workers[place]
                told[life] = worker.end(signal.SIGKILL)
            lives += 1
            workers[place] = lives, Child(lambda tell, work=works[place], life=lives: work(life, tell))
            if count < len(works) or generator.random() < 0.5:
                workers[place][1].wait()
            time.sleep(0.01 + generator.random() ** 2 * 0.1)
        for life, worker in workers:
            told[life] = worker.end(signal.SIGKILL)
        for reader in readers:
            reader.end(signal.SIGTERM)
    except BaseException:
        for child in (*readers, *(each[1] for each in workers if each is not None)):
            child.kill()
        raise
    return told


def share(directory, kills, seed, capacity):
    """Every trajectory that was told is there once, but for the oldest where the capacity is small."""
    actor = lambda life, tell: act(directory, life, tell)  # noqa: E731
    learner = lambda life, tell: learn(directory, life, capacity, tell)  # noqa: E731
    told = kill(directory, kills, seed, capacity, [actor, actor, learner])
    with Replay.open(directory, **UNBOUNDED) as replay:
        assert replay.verify() == []
        numbers = [check(replay, trajectory) for trajectory in replay.ids().tolist()]
        stored = set(numbers)
        assert len(stored) == len(numbers)
        total = sum(length_of(number) for life in told.values() for number in life)
        assert replay.stats().steps > min(capacity, total) - MAX_LENGTH
    for life in told.values():
        there = [number in stored for number in life]
        assert there == sorted(there), "a trajectory is gone that is younger than one that is there"
        assert all(there) or capacity < total
    return told


def resume(directory, kills, seed, capacity):
    """What the last checkpoint had is there, in its order, and nothing else."""
    trainer = lambda life, tell: train(directory, life, capacity, tell)  # noqa: E731
    told = kill(directory, kills, seed, capacity, [trainer])
    path = directory.parent / "checkpoint.json"
    saved = json.loads(path.read_text())
    options = {"capacity_steps": capacity, "keep_evicted": True, **SMALL}
    with Replay.open(directory, "append", position=saved["position"], **options) as replay:
        assert replay.tasks().tolist() == saved["tasks"]
        assert replay.verify() == []
        for trajectory in replay.ids().tolist():
            check(replay, trajectory)
    return told


def main(command, directory, kills, seed, capacity):
    directory = Path(directory).resolve()
    Replay.create(SCHEMA, capacity_steps=10**9, directory=directory).close()
    told = {"sharing": share, "resuming": resume}[command](directory, int(kills), int(seed), int(capacity))
    with Replay.open(directory, "append", capacity_steps=int(capacity), **SMALL) as replay:
        replay.reclaim()
        needed = set(replay.position())
    assert {path.name.split(".")[0] for path in directory.iterdir()} - {"replay"} == needed
    assert not list(directory.glob("*.removed"))
    print(len(told), sum(map(len, told.values())))


if __name__ == "__main__":
    main(*sys.argv[1:])
