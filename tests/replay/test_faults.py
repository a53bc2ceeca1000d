"""Faults: writers that are killed, files that are damaged, places that cannot be written."""

import os
import subprocess
import sys

import numpy as np
import pytest

from paths import HELPERS
from replay_crash import SCHEMA, columns, length_of
from twohot.replay import CorruptReplayError, Replay

CRASH = HELPERS / "replay_crash.py"


def crash(*arguments):
    command = [sys.executable, str(CRASH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def small_store(directory, segment_bytes=3000):
    replay = Replay.create(SCHEMA, capacity_steps=10_000, directory=directory, segment_bytes=segment_bytes)
    for number in range(12):
        replay.add(**columns(number, length_of(number)))
    replay.close()
    return directory


def first(place, suffix):
    """A file of the first segment of a directory with one writer."""
    return min(place.glob(f"*{suffix}"))


@pytest.mark.parametrize(("kills", "at_once"), [(100, 1), (30, 50)])
def test_killed_writers_lose_nothing(tmp_path, kills, at_once):
    """Every trajectory whose commit had returned is there and as it was; nothing needs repair.

    Of a call for many that was cut short, the first may be there without the others.
    """
    place = tmp_path / "replay"
    Replay.create(SCHEMA, capacity_steps=10**7, directory=place).close()
    killed = crash("kill", place, kills, 7, at_once)
    assert killed.returncode == 0, killed.stderr
    lives = [[int(number) for number in line.split()] for line in killed.stdout.splitlines()]
    assert len(lives) == kills
    with Replay.open(place) as replay:
        assert replay.verify() == []
        assert replay.stats().problems == 0
        stored = dict(zip(replay.tasks().tolist(), replay.ids().tolist(), strict=True))
        told = {number - place for numbers in lives for number in numbers for place in range(at_once)}
        assert told <= stored.keys()
        for numbers in lives:
            more = [number in stored for number in range(numbers[-1] + 1, numbers[-1] + 2 * at_once)]
            assert not any(more[sum(more) :])
            assert sum(more) <= at_once  # a writer may die between its commit and its word
        assert stored.keys() - told <= {numbers[-1] + place for numbers in lives for place in range(1, at_once + 1)}
        for number, trajectory in stored.items():
            found, expected = replay.get(trajectory), columns(number, length_of(number))
            np.testing.assert_array_equal(found["action"], expected["action"])
            np.testing.assert_array_equal(found["observation"]["value"], expected["observation"]["value"])
    lost = [problem.what for problem in Replay.repair(place)]  # what was half written
    assert all("nothing usable" in what for what in lost), lost
    with Replay.open(place) as replay:
        assert told <= set(replay.tasks().tolist())


def test_mutated_files_never_crash(tmp_path):
    """Opened, read, sampled, verified, repaired for TWOHOT_FUZZ_SECONDS; a crash shows as the status of a process."""
    source, scratch = small_store(tmp_path / "replay"), tmp_path / "scratch"
    scratch.mkdir()
    seconds, seed = os.environ.get("TWOHOT_FUZZ_SECONDS", "3"), os.environ.get("TWOHOT_FUZZ_SEED", "1")
    result = crash("fuzz", source, scratch, seconds, seed)
    now = scratch / "now"
    assert result.returncode == 0, f"{now.read_text() if now.exists() else ''}{result.stderr}"
    assert int(result.stdout) > 10


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: first(place, ".journal").write_bytes(b"x" * 500), "00000000.journal.*no segment"),
        (lambda place: first(place, ".data").unlink(), "00000000.data"),
        (lambda place: first(place, ".journal").unlink(), "00000000.data: its journal is missing"),
        (lambda place: (place / "replay.json").write_text("{"), "replay.json"),
        (lambda place: (place / "replay.json").write_text("[]"), "replay.json"),
        (
            lambda place: (place / "replay.json").write_text(
                (place / "replay.json").read_text().replace("10000", '"9"')
            ),
            "replay.json",
        ),
        (
            lambda place: (place / "replay.json").write_text((place / "replay.json").read_text().replace("40", "44")),
            "replay.json",
        ),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    place = small_store(tmp_path / "replay")
    damage(place)
    with pytest.raises(CorruptReplayError, match=f"{place}.*{words}"):
        Replay.open(place)


def test_damage_is_left_out_on_request(tmp_path):
    place = small_store(tmp_path / "replay")
    path = first(place, ".journal")
    content = bytearray(path.read_bytes())
    content[128 + 30] ^= 1
    path.write_bytes(content)
    with Replay.open(place, corrupt="skip") as replay:
        assert replay.stats().trajectories == 11
        assert replay.stats().problems == 1
        assert [problem.file for problem in replay.verify()] == [str(path)]
        assert "record 0 is corrupt" in str(replay.verify()[0])
    assert Replay.repair(place) == []
    with Replay.open(place) as replay:
        assert sorted(replay.tasks()) == list(range(12))


def test_a_directory_that_may_not_be_written(tmp_path):
    """As a user without the right: it can be read, and the first commit says what is wrong."""
    place = small_store(tmp_path / "replay")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from replay_crash import columns; from twohot.replay import Replay\n"
        "os.getuid() or os.setuid(65534)\n"
        "assert Replay.open(sys.argv[1]).sample(4, 3).mask.any()\n"
        "replay = Replay.open(sys.argv[1], 'append')\n"
        "for _ in range(2):\n"
        "    try: replay.add(**columns(1, 2))\n"
        "    except PermissionError as error: assert sys.argv[1] in str(error), error\n"
        "    else: sys.exit('nothing raised')\n"
        "assert replay.stats().trajectories == 12\n"
    )
    place.chmod(0o555)
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_uid == os.getuid() and "pytest-of" in str(folder):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    command = [sys.executable, "-c", code, str(place), str(CRASH.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_full_disk(tmp_path):
    """A file that may not grow: OSError with its name; what was stored stays, and the same call goes through later."""
    place = tmp_path / "replay"
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2]); from replay_crash import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "replay = Replay.create(SCHEMA, capacity_steps=1000, directory=sys.argv[1])\n"
        "replay.add(**columns(1, 5))\n"
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))\n"
        "try: replay.add(**columns(2, 50))\n"
        "except OSError as error: assert sys.argv[1] in str(error), error\n"
        "else: sys.exit('nothing raised')\n"
        "assert replay.verify() == [] and replay.stats().trajectories == 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limits)\n"
        "replay.add(**columns(2, 50))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(place), str(CRASH.parent)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    with Replay.open(place) as replay:
        assert replay.lengths().tolist() == [5, 50]
        assert replay.verify() == []


PREAMBLE = """if True:
    import os, resource, signal, sys, warnings
    import numpy as np
    from twohot.replay import Field, Replay, Schema
    path, done = sys.argv[1], np.array([True])
    schema = Schema({"x": Field("float32")}, Field("int32"))
    replay = Replay.create(schema, capacity_steps=1000, directory=path, segment_bytes=1)
    def add(value):
        replay.add({"x": np.full(2, value, np.float32)}, np.zeros(1, np.int32), np.ones(1, np.float32), done, ~done)
"""


def run_script(path, script):
    subprocess.run([sys.executable, "-c", PREAMBLE + script, str(path)], check=True, timeout=600)


def test_many_segments_need_few_descriptors(tmp_path):
    """A limit of 64 descriptors is enough to write and to read 300 segments."""
    script = """
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for value in range(300):
        add(value)
    replay.close()
    with Replay.open(path) as replay:
        assert [replay.get(i)["observation"]["x"][0] for i in replay.ids().tolist()] == list(range(300))
    """
    run_script(tmp_path / "replay", script)


def test_a_forked_child_neither_uses_the_replay_nor_keeps_its_lock(tmp_path):
    script = """
    add(1)
    warnings.simplefilter("ignore")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            replay.sample(1, 1)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        os.close(writer)
        signal.pause()
    os.close(writer)
    assert b"made before a fork" in os.fdopen(reader, "rb").read()
    replay.close()
    assert Replay.repair(path) == []
    os.kill(child, signal.SIGKILL)
    """
    run_script(tmp_path / "replay", script)
