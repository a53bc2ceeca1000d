"""What the fault tests run in processes of their own: a writer that is killed, and readers of damaged files."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from twohot.errors import CorruptReplayError
from twohot.replay import Field, Replay, Schema

SCHEMA = Schema({"value": Field("int32", (40,))}, Field("int32"), {"logit": Field("float32", nan=True)})
DAMAGE = (CorruptReplayError, OSError)


def columns(number, length):
    """A trajectory all of whose values follow from one number."""
    steps = np.arange(length, dtype=np.int32)
    return {
        "observation": {"value": np.repeat(number + np.arange(length + 1, dtype=np.int32), 40).reshape(-1, 40)},
        "action": number + steps,
        "reward": np.full(length, number % 100, np.float32),
        "terminated": steps == length - 1,
        "truncated": np.zeros(length, bool),
        "step": {"logit": np.full(length, np.nan, np.float32)},
        "task": number,
    }


def length_of(number):
    return 1 + number * 7919 % 37


def write_until_killed(directory, told, at_once):
    """Commits numbered trajectories, `at_once` by each call, and says the last one's number behind it."""
    replay = Replay.open(directory, "append", segment_bytes=40_000, threads=1)
    collected = Replay.create(SCHEMA, capacity_trajectories=at_once)
    first = 1_000_000 * (1 + max((int(task) // 1_000_000 for task in replay.tasks()), default=0))
    for number in range(first, first + 1_000_000):
        (replay if at_once == 1 else collected).add(**columns(number, length_of(number)))
        if at_once > 1 and len(collected) == at_once:
            replay.extend(collected.drain())
        if number % at_once == at_once - 1:
            os.write(told, number.to_bytes(4, "little"))


def kill_at_random(directory, times, seed, at_once):
    """Kills `times` writers, one after the other; prints the numbers that each had told before its death."""
    generator = random.Random(seed)
    for _ in range(times):
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            try:
                write_until_killed(directory, told, at_once)
            finally:
                os._exit(1)
        os.close(told)
        first = os.read(heard, 4)  # it has begun
        time.sleep(generator.random() ** 2 * 0.05)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        rest = b"".join(iter(lambda source=heard: os.read(source, 1 << 16), b""))
        os.close(heard)
        numbers = np.frombuffer(first + rest, "<i4")
        print(*numbers)


def use(directory):
    """Opens a directory that may be damaged in any way and does everything with it that its users may do."""
    try:
        replay = Replay.open(directory, corrupt="skip", threads=1)
    except DAMAGE:
        return
    for number in replay.ids():
        replay.get(int(number))
    if replay.stats().trajectories:
        for by in ("trajectory", "step", "recency", "priority", "task"):
            replay.sample(8, 5, by=by, lookahead=2, pad="left")
    problems = replay.verify()
    assert all(problem.file.startswith(str(directory)) for problem in problems)
    intact = {int(task) for task in replay.tasks()} if not problems else set()
    replay.close()
    try:
        Replay.open(directory).close()
    except DAMAGE as error:
        if str(directory) not in str(error):
            raise
    try:
        Replay.repair(directory)
    except DAMAGE:
        return
    with Replay.open(directory, "append", threads=1) as replay:
        assert replay.verify() == []
        assert intact <= {int(task) for task in replay.tasks()}
        for number in replay.ids():
            stored = replay.get(int(number))
            expected = columns(int(stored["task"]), len(stored["action"]))
            np.testing.assert_array_equal(stored["observation"]["value"], expected["observation"]["value"])
            np.testing.assert_array_equal(stored["action"], expected["action"])
        replay.add(**columns(5, 3))


def draw_and_add(replay, connection, trajectory):
    """Sends what a replay that came from another process draws, and adds to it."""
    connection.send(replay.sample(16, 3).start.tolist())
    replay.add(**trajectory)
    replay.close()


def mutate(content, others, generator):
    """A damaged copy of a file."""
    kind = generator.choice(["flip", "truncate", "extend", "swap", "splice", "zero", "empty", "foreign"])
    size = len(content)
    at, width = generator.randrange(size), generator.choice([1, 8, 64, 128, 4096])
    damaged = bytearray(content)
    if kind == "flip":
        for _ in range(generator.choice([1, 1, 1, 10])):
            damaged[generator.randrange(size)] ^= 1 << generator.randrange(8)
    elif kind == "truncate":
        del damaged[at:]
    elif kind == "extend":
        damaged += generator.randbytes(width)
    elif kind == "swap":
        other = generator.randrange(size)
        damaged[at : at + width], damaged[other : other + width] = (
            damaged[other : other + width],
            damaged[at : at + width],
        )
    elif kind == "splice":
        other = generator.choice(others)
        begin = generator.randrange(len(other))
        damaged[at:at] = other[begin : begin + width]
    elif kind == "zero":
        page = at // 4096 * 4096
        damaged[page : page + 4096] = bytes(len(damaged[page : page + 4096]))
    elif kind == "empty":
        damaged.clear()
    else:
        damaged = bytearray(generator.choice(others))
    return kind, bytes(damaged)


def fuzz(source, scratch, seconds, seed):
    """Uses mutated copies of a small store for a time; what is at work is on the disk for who finds a crash."""
    generator = random.Random(seed)
    files = {path.name: path.read_bytes() for path in Path(source).iterdir()}
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        rounds += 1
        place = Path(scratch) / f"round-{rounds}"
        place.mkdir()
        done = []
        for name, content in files.items():
            (place / name).write_bytes(content)
        for name in generator.sample(sorted(files), generator.choice([1, 1, 2])):
            kind, damaged = mutate(files[name], list(files.values()), generator)
            (place / name).write_bytes(damaged)
            done.append(f"{kind} {name}")
        (Path(scratch) / "now").write_text(f"seed {seed} round {rounds}: {done}\n")
        use(place)
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()
    print(rounds)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "kill":
        kill_at_random(arguments[0], *map(int, arguments[1:]))
    else:
        fuzz(arguments[0], arguments[1], float(arguments[2]), int(arguments[3]))
