"""Whatever has the name of a file of a replay: opening, verifying, compacting and repairing it end in a sentence."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from replay_crash import SCHEMA, columns
from twohot.replay import CorruptReplayError, Replay


def folder(path):
    path.mkdir()
    (path / "inside").write_bytes(b"x")


def unix_socket(path):
    """Names of sockets are short."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


KINDS = {
    "folder": folder,
    "empty folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("/"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to another file": lambda path: path.symlink_to(sys.executable),
    "fifo": os.mkfifo,
    "socket": unix_socket,
    "text": lambda path: path.write_text("not what it was\n" * 100),
}


@pytest.fixture(autouse=True)
def no_hang():
    def stop(*_):
        raise TimeoutError("hung")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path):
    """Two segments of two trajectories each."""
    directory = tmp_path / "replay"
    with Replay.create(SCHEMA, capacity_steps=1000, directory=directory, segment_bytes=5500) as replay:
        for number in range(4):
            replay.add(**columns(number, 10))
    assert len(list(directory.glob("*.data"))) == 2
    return directory


def tasks(directory, **options):
    with Replay.open(directory, **options) as replay:
        assert replay.verify() == []
        return sorted(replay.tasks().tolist())


@pytest.mark.parametrize("suffix", [".journal", ".data"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_a_segments_file(place, kind, suffix):
    path = min(place.glob(f"*{suffix}"))
    moved = path.rename(path.with_name("kept"))
    KINDS[kind](path)
    with pytest.raises(CorruptReplayError, match=path.name.split(".")[0]) as error:
        Replay.open(place)
    assert "\n" not in str(error.value)
    with Replay.open(place, "append", corrupt="skip") as replay:
        assert sorted(replay.tasks().tolist()) == [2, 3]
        assert len(replay.verify()) == 1
        replay.reclaim()
        replay.add(**columns(4, 3))
    problems = Replay.repair(place)
    assert any(str(path.with_suffix("")) in problem.file for problem in problems) or suffix == ".journal"
    assert tasks(place) == ([0, 1, 2, 3, 4] if suffix == ".journal" else [2, 3, 4])
    if suffix == ".data":  # put back, with the journal that was moved away beside it
        moved.rename(path)
        for journal in (place / "damaged").glob(f"{path.stem}.journal"):
            journal.rename(place / journal.name)
        assert tasks(place) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "00000000-00000000.journal",
        "9f3c01d2ab45e677-00000000.data",
        "9f3c01d2ab45e677-00000000.removed",
        "9f3c01d2ab45e677-00000000.0000000000000001-0000000000000900.cut",
    ],
)
def test_beside_the_segments(place, kind, name):
    """Only what may be a segment is damage, and nothing else suffers."""
    KINDS[kind](place / name)
    with Replay.open(place, "append", corrupt="skip") as replay:
        assert sorted(replay.tasks().tolist()) == [0, 1, 2, 3]
        replay.reclaim()
    Replay.repair(place)
    assert tasks(place) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [*KINDS, "missing"])
def test_in_the_place_of_the_description(place, kind):
    path = place / "replay.json"
    path.unlink()
    if kind != "missing":
        KINDS[kind](path)
    for call in (Replay.open, Replay.repair):
        with pytest.raises((CorruptReplayError, OSError), match=r"replay\.json") as error:
            call(place)
        assert "\n" not in str(error.value)
    with pytest.raises(FileExistsError):
        Replay.create(SCHEMA, capacity_steps=1000, directory=place)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_place_of_what_repair_writes(place, kind):
    """What it would write beside a journal, and the folder that it moves damage to."""
    path = min(place.glob("*.journal"))
    path.unlink()
    KINDS[kind](path.with_name(path.name + ".partial"))
    Replay.repair(place)
    assert tasks(place) == [0, 1, 2, 3]
    shutil.rmtree(place / "damaged", ignore_errors=True)
    KINDS[kind](place / "damaged")
    min(place.glob("*.data")).write_bytes(b"no")
    if "folder" in kind:
        Replay.repair(place)
        assert tasks(place) == [2, 3]
    else:
        with pytest.raises(OSError, match="damaged"):
            Replay.repair(place)


def test_other_names_are_passed_over(place):
    """Those that nobody here gives, in bytes, cases and lengths of any kind."""
    name = min(place.glob("*.journal")).stem
    others = ["notes.txt", "a\nb.journal", f"{name}.journal~", f"{name} (copy).data", f"{name}.1.cut", f"{name}."]
    others += [
        "ABCDEF0123456789-00000000.journal",
        "x" * 200 + ".data",
        "00000000-00000000",
        ".journal",
        f"{name}.-.cut",
    ]
    for other in [*map(os.fsencode, others), b"\xff\xfe.journal", b"\xff-00000000.data"]:
        Path(os.fsdecode(os.fsencode(place) + b"/" + other)).write_bytes(b"x" * 1000)
    before = {path.name for path in place.iterdir()}
    assert tasks(place) == [0, 1, 2, 3]
    with Replay.open(place, "append") as replay:
        replay.reclaim()
    assert Replay.repair(place) == []
    assert {path.name for path in place.iterdir()} == before


def test_nothing_is_lost_in_the_folder_of_damage(place):
    """What is moved there twice under one name is there twice."""
    data = min(place.glob("*.data"))
    for content in (b"one" * 50, b"two" * 50):
        data.write_bytes(content)
        Replay.repair(place)
    assert {path.read_bytes() for path in (place / "damaged").glob("*.data*")} == {b"one" * 50, b"two" * 50}


@pytest.mark.parametrize("suffix", [".journal", ".data"])
def test_a_file_that_may_not_be_read(place, suffix):
    """As a user without the right to read it, and with that to every folder above."""
    script = (
        "import os, sys\n"
        "from twohot.replay import CorruptReplayError, Replay\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: Replay.open(sys.argv[1])\n"
        "except CorruptReplayError as error: assert 'Permission denied' in str(error), error\n"
        "else: sys.exit('nothing raised')\n"
        "with Replay.open(sys.argv[1], corrupt='skip') as replay: assert len(replay.tasks()) == 2\n"
        "Replay.repair(sys.argv[1])\n"
        "print(len(Replay.open(sys.argv[1]).tasks()))\n"
    )
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        home = Path(above) / "replay"
        shutil.copytree(place, home)
        min(home.glob(f"*{suffix}")).chmod(0)
        home.chmod(0o777)
        command = [sys.executable, "-c", script, str(home)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == (4 if suffix == ".journal" else 2)
