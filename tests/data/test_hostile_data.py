"""Files of data that nobody should trust: each ends in one sentence, runs nothing and takes no memory by its word."""

import json
import os
import pickle
import random
import resource
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from twohot.cli import main as cli
from twohot.data.offline import load_offline
from twohot.errors import TwohotError
from twohot.replay import Field, Replay, Schema
from twohot.replay.formats import read_amago, read_minari, read_npz, write_minari, write_npz

SENTENCES = (TwohotError, OSError)
T = 10
MAX_BYTES = 50 << 20
"""Bytes that may be taken to read a file of a few thousand."""


class Trap:
    def __reduce__(self):
        return os.system, ("touch executed",)


def columns(seed=0):
    stream = np.random.default_rng(seed)
    return {
        "observation": {"o": stream.normal(size=(T + 1, 3)).astype(np.float32)},
        "action": stream.integers(0, 5, T).astype(np.int32),
        "reward": stream.normal(size=T).astype(np.float32),
        "terminated": np.arange(T) == T - 1,
        "truncated": np.zeros(T, bool),
        "task": 3,
    }


def save_amago(path):
    one = columns()
    hot = np.eye(5, dtype=np.float32)[one["action"]]
    np.savez(
        path / "Maze_00ff00ff_1700000001.25.npz",
        time_idxs=np.arange(T + 1)[:, None],
        rews=one["reward"][:, None],
        dones=one["terminated"][:, None],
        actions=hot,
        _OBS_KEY_o=one["observation"]["o"],
    )


def save_replay(path):
    replay = Replay.create(Schema({"o": Field("float32", (3,))}, Field("int32")), capacity_steps=1000)
    for seed in range(3):
        replay.add(**columns(seed))
    replay.save(path / "replay.safetensors")


def make_directory(path):
    with Replay.create(
        Schema({"o": Field("float32", (3,))}, Field("int32")), capacity_steps=1000, directory=path
    ) as replay:
        replay.add(**columns())


def contents(replay):
    with replay:
        return [replay.get(id) for id in replay.ids().tolist()], replay.random_state.tolist(), replay.stats()


# How a file of each kind is made, which it is, and how it is read.
KINDS = {
    "npz": (lambda path: write_npz(path / "a.npz", [columns()]), "*.npz", lambda path: list(read_npz(path))),
    "npz of one": (lambda path: write_npz(path, [columns()]), "*.npz", lambda path: list(read_npz(path))),
    "amago": (save_amago, "*.npz", lambda path: list(read_amago(path, discrete=True))),
    "saved": (save_replay, "*.safetensors", lambda path: contents(Replay.load(path / "replay.safetensors"))),
    "manifest": (make_directory, "replay.json", lambda path: contents(Replay.open(path))),
    "offline": (lambda path: write_npz(path / "a.npz", [columns()]), "*.npz", lambda path: load_offline(f"npz:{path}")),
}


def made(path, kind):
    """The file of a kind, sound, in a folder, and what reads it."""
    make, pattern, read = KINDS[kind]
    path.mkdir(exist_ok=True)
    make(path)
    (file,) = path.glob(pattern)
    return file, lambda: read(path)


def assert_a_sentence(read, file):
    """That reading raises an error for users' eyes, which names the file, in little memory and without running it."""
    tracemalloc.start()
    try:
        with pytest.raises(SENTENCES) as caught:
            read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES, peak
    assert file.name in str(caught.value), caught.value
    assert "\n" not in str(caught.value).strip()
    assert not Path("executed").exists()


WHOLE = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without its last bytes": lambda data: data[:-2],
    "without its first bytes": lambda data: data[5:],
    "noise": lambda data: random.Random(1).randbytes(3000),
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: "kein Archiv: äöü\n".encode(),
    "not UTF-8": lambda data: b"\xff{}",
    "a pickle": lambda data: pickle.dumps(Trap()),
    "nested JSON": lambda data: b"[" * 200_000,
    "deep JSON": lambda data: b'{"format": ' * 50_000 + b"1" + b"}" * 50_000,
    "another JSON": lambda data: b"[1, 2]",
    "a number of many digits": lambda data: b"9" * 10_000,
    "an array": lambda data: npy((10**12,)),
    "a header of safetensors that claims all": lambda data: struct.pack("<Q", 2**62) + data[:100],
    "a zip without end": lambda data: b"PK\x03\x04" + data[:100],
    "a zip of nothing": lambda data: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_files(tmp_path, monkeypatch, kind, damage):
    monkeypatch.chdir(tmp_path)
    file, read = made(tmp_path / "there", kind)
    read()
    file.write_bytes(WHOLE[damage](file.read_bytes()))
    assert_a_sentence(read, file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["a folder", "a pipe", "a loop of links", "nothing"])
def test_no_files(tmp_path, monkeypatch, kind, place):
    monkeypatch.chdir(tmp_path)
    file, read = made(tmp_path / "there", kind)
    file.unlink()
    if place == "a folder":
        file.mkdir()
    elif place == "a pipe":
        os.mkfifo(file)
    elif place == "a loop of links":
        file.symlink_to(file.name)
    with pytest.raises(SENTENCES):
        read()


def npy(shape, dtype="<f4", content=b"", **changes):
    """An array file that says so of itself, whatever it holds."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape} | changes).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


# What stands in an archive in the place of its actions.
MEMBERS = {
    "a huge shape": npy((10**12,)),
    "huge and product 0": npy((0, 2**62)),
    "more than there is": npy((T + 1,), "<i4", bytes(4 * T)),
    "less than there is": npy((T - 1,), "<i4", bytes(4 * T)),
    "a negative shape": npy((-T,), "<i4", bytes(4 * T)),
    "a shape of text": npy("abc"),
    "a huge item": npy((T,), "(1000000000,)f4"),
    "objects": npy((T,), "|O", pickle.dumps([Trap()] * T)),
    "objects in records": npy((T,), [("a", "|O")], pickle.dumps([Trap()] * T)),
    "records": npy((T,), [("a", "<i4")], bytes(4 * T)),
    "dates": npy((T,), "<M8[s]", bytes(8 * T)),
    "complex numbers": npy((T,), "<c8", bytes(8 * T)),
    "words": npy((T,), "<U1", bytes(4 * T)),
    "no dtype": npy((T,), "nonsense"),
    "an expression": npy((T,), "<i4", x=1),
    "code": b"\x93NUMPY\x01\x00" + struct.pack("<H", 40) + b"__import__('os').system('touch executed')",
    "a nested header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
    "a header of four gigabytes": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 100,
    "another format": b"\x93NUMPY\x09\x09" + bytes(100),
    "half a header": b"\x93NUMPY\x01",
    "nothing": b"",
    "no array": b"not an array",
}


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("kind", ["npz", "amago", "offline"])
def test_members_of_archives(tmp_path, monkeypatch, kind, member):
    monkeypatch.chdir(tmp_path)
    file, read = made(tmp_path / "there", kind)
    replace(file, {"action.npy": MEMBERS[member], "actions.npy": MEMBERS[member]})
    assert_a_sentence(read, file)


def replace(file, members, compression=zipfile.ZIP_STORED, more=()):
    """Writes an archive again with other members under the names that it has."""
    with zipfile.ZipFile(file) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in held.items():
            archive.writestr(name, members.get(name, content))
        for name, content in more:
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_are_more_than_they_seem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, read = made(tmp_path / "there", "npz")
    sound = file.read_bytes()
    expected = read()

    def with_bomb():
        monkeypatch.setattr("twohot.replay.formats.archive.LARGE", 1 << 24)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("more.npy", npy((1 << 24,), "<i1", bytes(1 << 24)))

    def with_wrong_checksum():
        """Of a compressed member, which decompresses without an error."""
        replace(file, {}, zipfile.ZIP_DEFLATED)
        data = file.read_bytes()
        listed = data.index(b"reward.npy", data.index(b"PK\x01\x02"))
        file.write_bytes(flip(data, listed - 46 + 16))

    damages = {
        "wrong checksum": lambda: file.write_bytes(flip(sound, sound.index(b"reward.npy") + 150)),
        "wrong checksum, compressed": with_wrong_checksum,
        "twice": lambda: replace(file, {}, more=[("action.npy", npy((T,), "<i4", bytes(4 * T)))]),
        "twice by another name": lambda: replace(file, {}, more=[("action", npy((T,), "<i4", bytes(4 * T)))]),
        "compressed by LZMA": lambda: replace(file, {}, zipfile.ZIP_LZMA),
        "compressed by bzip2": lambda: replace(file, {}, zipfile.ZIP_BZIP2),
        "a bomb": with_bomb,
        "encrypted": lambda: file.write_bytes(
            sound.replace(b"PK\x01\x02\x2d\x03\x2d\x00\x00\x00", b"PK\x01\x02\x2d\x03\x2d\x00\x01\x00")
        ),
    }
    for name, damage in damages.items():
        file.write_bytes(sound)
        damage()
        assert file.read_bytes() != sound, name
        assert_a_sentence(read, file)
    file.write_bytes(sound)
    replace(file, {}, zipfile.ZIP_DEFLATED, more=[("../../escaped.npy", npy((10**12,))), ("/etc/x", b"")])
    assert_equal(read(), expected)  # names of nothing that is asked for
    assert not (tmp_path.parent / "escaped.npy").exists()


def flip(data, at, bit=1):
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def assert_equal(actual, expected):
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name in expected:
            assert_equal(actual[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_equal(*pair)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(actual, expected, strict=True)
    else:
        assert actual == expected


@pytest.mark.parametrize("kind", ["npz", "npz of one", "amago", "saved", "manifest"])
def test_flipped_bits_are_found_or_change_nothing(tmp_path, kind):
    file, read = made(tmp_path / "there", kind)
    sound, expected = file.read_bytes(), read()
    generator, found = random.Random(7), []
    for _ in range(300):
        file.write_bytes(flip(sound, generator.randrange(len(sound)), 1 << generator.randrange(8)))
        try:
            actual = read()
        except SENTENCES as error:
            found.append(str(error))
        else:
            assert_equal(actual, expected)
    assert len(found) > 100
    assert all(file.name in message for message in found)


COLUMNS = {
    "task: expected one integer": {"task": np.float64("nan")},
    "task: expected one integer, got float64": {"task": np.float64(2.5)},
    "task: expected one integer, got <U1": {"task": np.str_("x")},
    "task: expected one integer, got bool": {"task": np.True_},
    "task: expected 0 .. ": {"task": np.uint64(2**64 - 1)},
    "task: expected 0 .. 2.31 - 1, got -1": {"task": np.int64(-1)},
    "terminated: expected 0 or 1, got nan": {"terminated": np.full(T, np.nan)},
    "terminated: expected 0 or 1, got 0.5": {"terminated": np.where(np.arange(T) == T - 1, 0.5, 0)},
    "truncated: expected 0 or 1, got 2": {"truncated": np.full(T, 2)},
    "reward: expected finite numbers, got 1e\\+39": {"reward": np.full(T, 1e39)},
    "reward: expected finite numbers, got inf": {"reward": np.full(T, np.inf, np.float16)},
    "reward: expected 10 numbers, got complex": {"reward": np.zeros(T, np.complex64)},
    "shape: expected extents of at least 1": {"observation/o": np.zeros((T + 1, 0))},
    "names, got ''": {"observation/": np.zeros(T + 1)},
    "step: every trajectory has 'reward' already": {"step/reward": np.zeros(T)},
    "length: .* got .*nan": {"length": np.array([np.nan])},
    "action: expected 184467.* rows": {"length": np.array([2**63 - 1, 2**63 - 1, T + 2])},
    "length: expected a row": {"length": np.array([[T]])},
}


@pytest.mark.parametrize("message", COLUMNS)
def test_numbers_that_are_none_of_a_trajectory(tmp_path, message):
    file, read = made(tmp_path / "there", "npz of one")
    with np.load(file) as archive:
        given = dict(archive)
    np.savez(file, **given | COLUMNS[message])
    with pytest.raises(TwohotError, match=rf"{file.name}.*{message}"):
        read()


AMAGO = {
    "actions: expected one-hot": {"actions": np.zeros((T, 10**6), np.int8)},
    "actions: expected one-hot rows": {"actions": np.zeros((T, 0), np.float32)},
    "actions: expected one-hot rows for": {"actions": np.full((T, 5), "x")},
    "time_idxs: expected": {"time_idxs": np.full(T + 1, "x")},
    "time_idxs: expected 11": {"time_idxs": np.full((T + 1, 1), np.nan)},
}


@pytest.mark.parametrize("message", AMAGO)
def test_numbers_that_are_none_of_an_amago_buffer(tmp_path, message):
    file, read = made(tmp_path / "there", "amago")
    with np.load(file) as archive:
        given = dict(archive)
    np.savez(file, **given | AMAGO[message])
    assert_a_sentence(read, file)
    with pytest.raises(TwohotError, match=message):
        read()


SAVED = {
    "schema": {"schema": {"observation": {"o": {"dtype": "float32", "shape": [2**40]}}, "action": {"dtype": "int32"}}},
    "capacity of nothing": {"capacity": {}},
    "capacity of text": {"capacity": {"capacity_steps": "1000"}},
    "capacity of more": {"capacity": {"capacity_steps": 10**30}},
    "another capacity": {"capacity": {"threads": 3}},
    "counters of text": {"counters": ["3", "0", "0"]},
    "counters that are too few": {"counters": [3, 0]},
    "counters that are negative": {"counters": [3, -1, 0]},
    "no schema": {"schema": None},
}
TENSORS = {
    "task": np.full(3, np.nan),
    "id": np.zeros(3, np.int64),
    "origin": np.full(3, 2**31 - 1),
    "length": np.array([2**62, 2**62, 2**63 - 2]),
    "priority": np.full(3, np.nan),
    "random_state": np.zeros(3, np.uint64),
    "protected": np.zeros(3, np.int8),
    "reward": np.full(3 * T, np.inf, np.float32),
    "observation/o": np.zeros((3 * T + 3, 4), np.float32),
}


@pytest.mark.parametrize("change", [*SAVED, *TENSORS])
def test_saved_replays_whose_checksum_is_theirs(tmp_path, change):
    """Somebody who makes a file by hand has made its checksum too."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from twohot.replay.saved import _checksum

    file, read = made(tmp_path / "there", "saved")
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    tensors = load_file(file) | ({change: TENSORS[change]} if change in TENSORS else {})
    text = json.dumps(json.loads(metadata["replay"]) | SAVED.get(change, {}))
    save_file(tensors, file, metadata={**metadata, "replay": text, "checksum": _checksum(text, tensors)})
    assert_a_sentence(read, file)


def test_saved_replays_without_a_checksum_are_of_an_earlier_version(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    file, read = made(tmp_path / "there", "saved")
    expected = read()
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    del metadata["checksum"]
    save_file(load_file(file), file, metadata=metadata)
    assert_a_sentence(read, file)
    save_file(load_file(file), file, metadata={**metadata, "format": "twohot.saved-replay/2"})
    assert_equal(read(), expected)


# Minari


@pytest.fixture
def dataset(monkeypatch, tmp_path):
    """The folder of a dataset."""
    pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    write_minari("mine/x-v0", [columns(seed) for seed in range(3)])
    return tmp_path / "datasets" / "mine" / "x-v0" / "data"


def metadata_of(dataset, change):
    path = dataset / "metadata.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def without(name):
    return lambda dataset: metadata_of(dataset, lambda about: {key: about[key] for key in about if key != name})


def with_space(value):
    return lambda dataset: metadata_of(dataset, lambda about: about | {"action_space": value})


def run_code(dataset):
    """Minari makes an environment to know its spaces; its entry point is whatever the file says."""
    from gymnasium.envs.registration import EnvSpec

    spec = EnvSpec("x-v0", entry_point="os:system", kwargs={"command": "touch executed"}).to_json()
    keep = ("dataset_id", "minari_version", "total_episodes", "total_steps", "data_format")
    metadata_of(dataset, lambda about: {key: about[key] for key in keep} | {"env_spec": spec})


def hdf5(change):
    def damage(dataset):
        import h5py

        with h5py.File(dataset / "main_data.hdf5", "a") as file:
            change(file, dataset)

    return damage


def claim(file, dataset):
    del file["episode_0/rewards"]
    file["episode_0"].create_dataset("rewards", (10**12,), "f4", chunks=(1000,))


def link(file, dataset):
    import h5py

    del file["episode_0/rewards"]
    shutil.copy(dataset / "metadata.json", dataset / "secret")
    file["episode_0/rewards"] = h5py.ExternalLink(str(dataset / "secret"), "/x")


def raw(file, dataset):
    del file["episode_0/rewards"]
    (dataset / "secret").write_bytes(bytes(80))
    file["episode_0"].create_dataset("rewards", (T,), "f8", external=[(str(dataset / "secret"), 0, 80)])


def texts(file, dataset):
    del file["episode_0/rewards"]
    file["episode_0"]["rewards"] = [b"a"] * T


def drop(file, dataset):
    del file["episode_1"]


def dates(file, dataset):
    del file["episode_0/infos"]
    file["episode_0/infos/twohot_task"] = np.full(T + 1, np.nan)


DATASETS = {
    "metadata empty": lambda dataset: (dataset / "metadata.json").write_bytes(b""),
    "metadata nested": lambda dataset: (dataset / "metadata.json").write_bytes(b"[" * 200_000),
    "metadata not UTF-8": lambda dataset: (dataset / "metadata.json").write_bytes(b"\xff"),
    "metadata a list": lambda dataset: (dataset / "metadata.json").write_bytes(b"[1]"),
    "no action space": without("action_space"),
    "no episodes": without("total_episodes"),
    "no format": without("data_format"),
    "a space of text": with_space("x"),
    "a nested space": with_space("[" * 100_000),
    "another space": with_space('{"type": "Nothing"}'),
    "a space that claims all": with_space(
        json.dumps({"type": "Box", "dtype": "float32", "shape": [10**12], "low": 0.0, "high": 1.0})
    ),
    "a space of very many": with_space(json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 10**15})),
    "episodes beyond all": lambda dataset: metadata_of(dataset, lambda about: about | {"total_episodes": 10**6}),
    "runs code": run_code,
    "data empty": lambda dataset: (dataset / "main_data.hdf5").write_bytes(b""),
    "data noise": lambda dataset: (dataset / "main_data.hdf5").write_bytes(random.Random(1).randbytes(5000)),
    "data cut": lambda dataset: os.truncate(
        dataset / "main_data.hdf5", (dataset / "main_data.hdf5").stat().st_size // 2
    ),
    "a dataset that claims all": hdf5(claim),
    "a link to another file": hdf5(link),
    "bytes of another file": hdf5(raw),
    "words for rewards": hdf5(texts),
    "an episode less": hdf5(drop),
    "a task that is none": hdf5(dates),
}


@pytest.mark.parametrize("damage", DATASETS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_datasets(dataset, damage):
    assert len(list(read_minari("mine/x-v0"))) == 3
    assert load_offline("minari:mine/x-v0").replay.stats().trajectories == 3
    DATASETS[damage](dataset)
    readers = [lambda: load_offline("minari:mine/x-v0")]
    if damage != "a space of very many":  # which reading alone does not look at
        readers += [lambda: list(read_minari("mine/x-v0")), lambda: list(read_minari(dataset))]
    for read in readers:
        tracemalloc.start()
        with pytest.raises(SENTENCES):
            read()
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
        tracemalloc.stop()
    assert not Path("executed").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flipped_bits_of_minari_datasets_end_in_a_sentence(dataset):
    """HDF5 has no checksum of numbers, so that some are others; but nothing ends in anything else."""
    generator, found = random.Random(3), 0
    for file in (dataset / "main_data.hdf5", dataset / "metadata.json"):
        sound = file.read_bytes()
        for _ in range(60):
            file.write_bytes(flip(sound, generator.randrange(len(sound)), 1 << generator.randrange(8)))
            try:
                list(read_minari("mine/x-v0"))
            except SENTENCES:
                found += 1
        file.write_bytes(sound)
    assert found > 20


# The command


def command(capsys, *arguments):
    """The exit code and the one sentence of a command that fails."""
    code = cli.main(["replay", *map(str, arguments)])
    err = capsys.readouterr().err
    return code, err


def test_an_import_adds_all_or_nothing(tmp_path, capsys):
    """A corrupt file after sound ones leaves the directory as it was; when it is repaired, none comes twice."""
    write_npz(tmp_path / "many", [columns(seed) for seed in range(4)])
    victim = max((tmp_path / "many").glob("*.npz"))
    sound = victim.read_bytes()
    damages = {
        "cut": sound[:-40],
        "another column": None,
        "NaN": None,
    }
    for name, content in damages.items():
        changed = columns(9)
        if content is None:
            changed["observation"] = (
                {"p": changed["observation"]["o"]}
                if name == "another column"
                else {"o": np.full((T + 1, 3), np.nan, "f4")}
            )
            victim.unlink()
            write_npz(tmp_path / "one.npz", [changed])
            (tmp_path / "one.npz").rename(victim)
        else:
            victim.write_bytes(content)
        code, err = command(capsys, "import", "npz", tmp_path / "many", tmp_path / "new")
        assert code == 1
        assert "nothing was added" in err
        assert err.count("\n") == 1
        assert not (tmp_path / "new").exists(), name
    victim.write_bytes(sound)
    assert command(capsys, "import", "npz", tmp_path / "many", tmp_path / "new") == (0, "")
    victim.write_bytes(sound[:-40])
    assert command(capsys, "import", "npz", tmp_path / "many", tmp_path / "new")[0] == 1
    with Replay.open(tmp_path / "new") as replay:
        assert replay.stats().trajectories == 4
        assert replay.verify() == []


def test_commands_end_in_one_sentence(tmp_path, capsys):
    make_directory(tmp_path / "kept")
    write_npz(tmp_path / "sound", [columns()])
    Replay.create(
        Schema({"o": Field("float32", (3,))}, Field("int32")), capacity_steps=9, directory=tmp_path / "empty"
    ).close()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "full.npz").write_bytes(b"")
    for arguments in (
        ("export", "npz", tmp_path / "empty", tmp_path / "x.npz"),
        ("export", "npz", tmp_path / "kept", tmp_path / "folder.npz"),
        ("export", "npz", tmp_path / "kept", tmp_path / "sound"),
        ("export", "npz", tmp_path / "kept", tmp_path / "no" / "such.npz"),
        ("export", "npz", tmp_path / "kept", "/dev/null/x"),
        ("export", "minari", tmp_path / "kept", "no name at all"),
        ("import", "npz", tmp_path / "sound", tmp_path / "new", "--capacity-steps", 0),
        ("import", "npz", tmp_path / "sound", tmp_path / "new", "--capacity-steps", -5),
        ("import", "npz", tmp_path / "sound", tmp_path / "new", "--fields", "p"),
        ("import", "npz", tmp_path / "sound", tmp_path / "empty"),  # which holds nine steps
        ("import", "npz", tmp_path / "sound", tmp_path / "full.npz"),
        ("import", "npz", tmp_path / "folder.npz", tmp_path / "new"),
        ("import", "amago", tmp_path / "sound", tmp_path / "new"),
        ("import", "minari", "../../nothing", tmp_path / "new"),
        ("info", tmp_path / "full.npz"),
        ("verify", tmp_path / "sound"),
        ("repair", tmp_path / "sound"),
    ):
        code, err = command(capsys, *arguments)
        assert code == 1, arguments
        assert err.startswith("twohot: ")
        assert err.count("\n") == 1, err
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "full.npz").read_bytes() == b""


def test_little_memory_is_enough_to_refuse(tmp_path):
    """In a process that may take no more than 3 GiB, what claims terabytes is still one sentence."""
    file, _ = made(tmp_path / "there", "npz")
    replace(file, {"action.npy": npy((10**12,))})
    limit = resource.getrlimit(resource.RLIMIT_AS)
    script = (
        "import sys, resource; from twohot.replay.formats import read_npz, FormatError\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (3 << 30, {limit[1]}))\n"
        "try: list(read_npz(sys.argv[1]))\n"
        "except FormatError as error: sys.exit(0 if 'does not fill' in str(error) else str(error))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(file)], check=True, timeout=600)
    assert zlib.crc32(file.read_bytes())  # it is still there
