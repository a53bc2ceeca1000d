"""`twohot replay`: what it prints, its exit codes, and that bad input ends in one sentence."""

import re
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from tests.cli.test_cli import fails
from twohot.cli import main as cli
from twohot.data.offline import load_offline
from twohot.data.offline_columns import OfflineError
from twohot.replay import Field, Replay, Schema

SCHEMA = Schema({"image": Field("uint8", (4, 4), compression="lz4")}, Field("int32"), {"weight": Field("float32")})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    with Replay.create(SCHEMA, capacity_steps=10_000, directory=path) as replay:
        for number in range(12):
            steps = 5 + number
            replay.add(
                {"image": np.full((steps + 1, 4, 4), number, np.uint8)},
                np.arange(steps, dtype=np.int32),
                np.full(steps, number, np.float32),
                np.arange(steps) == steps - 1,
                np.zeros(steps, bool),
                task=number % 3,
                step={"weight": np.ones(steps, np.float32)},
            )
    return path


def run(capsys, *arguments: object) -> tuple[int, str]:
    code = cli.main(["replay", *map(str, arguments)])
    return code, capsys.readouterr().out


def damage(directory: Path) -> None:
    data = min(directory.glob("*.data"))
    content = bytearray(data.read_bytes())
    content[300] ^= 1
    data.write_bytes(content)


def test_info_and_plot(directory: Path, tmp_path: Path, capsys) -> None:
    code, out = run(capsys, "info", directory, "--plot", tmp_path / "plot.svg")
    assert code == 0
    assert "12 trajectories, 126 steps" in out
    assert "observation image: uint8 [4, 4], lz4" in out
    assert "step weight: float32" in out
    rows = [line.replace("│", "").split() for line in out.splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows] == [["0", "4", "38"], ["1", "4", "42"], ["2", "4", "46"]]
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_verify_repair_verify(directory: Path, capsys) -> None:
    assert run(capsys, "verify", directory) == (0, f"{directory}: 12 trajectories, 126 steps; nothing is corrupt\n")
    damage(directory)
    code, out = run(capsys, "verify", directory)
    assert code == 1
    assert "does not have its checksum" in out
    assert f"twohot replay repair {directory}" in out
    code, out = run(capsys, "repair", directory)
    assert code == 0
    assert "11 trajectories, 121 steps are intact; 1 problem" in out
    assert run(capsys, "verify", directory)[0] == 0


def test_what_mends_a_replay_can_be_pasted(directory: Path, tmp_path: Path, capsys) -> None:
    kept = directory.rename(tmp_path / "my replay")
    damage(kept)
    command = f"`twohot replay repair '{kept}'` keeps"
    assert command in run(capsys, "verify", kept)[1]
    assert command in fails(capsys, "replay", "export", "npz", str(kept), str(tmp_path / "out.npz"))
    with pytest.raises(OfflineError, match=re.escape(command)):
        load_offline(kept, context_features=False, fields=("image",), recorded_action_space=spaces.Discrete(20))


@pytest.mark.parametrize("target", ["folder", "file.npz"])
def test_what_was_exported_is_imported(directory: Path, tmp_path: Path, capsys, target: str) -> None:
    assert run(capsys, "export", "npz", directory, tmp_path / target)[0] == 0
    code, out = run(capsys, "import", "npz", tmp_path / target, tmp_path / "again")
    assert code == 0
    assert f"added 12 trajectories; {tmp_path / 'again'} holds 12 with 126 steps" in out
    with Replay.open(directory) as mine, Replay.open(tmp_path / "again") as theirs:
        for left, right in zip(mine.ids().tolist(), theirs.ids().tolist(), strict=True):
            one, other = mine.get(left), theirs.get(right)
            np.testing.assert_array_equal(one["observation"]["image"], other["observation"]["image"])
            np.testing.assert_array_equal(one["reward"], other["reward"])
            assert one["task"] == other["task"]
    assert run(capsys, "import", "npz", tmp_path / target, tmp_path / "again", "--protect")[0] == 0
    with Replay.open(tmp_path / "again") as replay:
        assert (replay.stats().trajectories, replay.stats().protected_trajectories) == (24, 12)


def test_bad_input(directory: Path, tmp_path: Path, capsys) -> None:
    assert "no command 'look'; there are info, verify" in fails(capsys, "replay", "look", code=2)
    assert "holds no replay" in fails(capsys, "replay", "info", str(tmp_path))
    assert "/nowhere" in fails(capsys, "replay", "import", "npz", "/nowhere", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "other.npz").write_bytes(b"no archive")
    assert "other.npz" in fails(capsys, "replay", "import", "npz", str(tmp_path / "other.npz"), str(tmp_path / "new"))
    with Replay.open(directory, "append") as replay:
        replay.add(**replay.get(int(replay.ids()[0])))
        assert "has a writer: close it first" in fails(capsys, "replay", "repair", str(directory))
    damage(directory)
    message = fails(capsys, "replay", "export", "npz", str(directory), str(tmp_path / "out"))
    assert "does not have its checksum; nothing was exported" in message
    assert not (tmp_path / "out").exists()


def test_trajectories_that_do_not_fit_are_named(directory: Path, tmp_path: Path, capsys) -> None:
    run(capsys, "export", "npz", directory, tmp_path / "out.npz")
    Replay.create(Schema({"other": Field("uint8")}, Field("int32")), capacity_steps=9, directory=tmp_path / "b").close()
    message = fails(capsys, "replay", "import", "npz", str(tmp_path / "out.npz"), str(tmp_path / "b"))
    assert "trajectory 0 does not fit the replay" in message
