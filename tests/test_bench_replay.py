"""The benchmark of the replay: windows that are what was stored, peers held to that, goals that are measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twohot.replay import Replay

BENCH = Path(__file__).resolve().parent.parent / "bench"
MODULES = tuple(path.stem for path in BENCH.glob("*.py"))
LENGTH = 256
GATHERED = ("previous_action", "previous_reward", "time", "action", "reward", "terminated", "truncated", "mask")


@pytest.fixture
def bench(monkeypatch):
    """The folder of benchmarks on the path."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(params=["S1", "S2"])
def stored(bench, request):
    """A few trajectories of each kind: some shorter, some longer than a window."""
    from gather import s1, s2

    return s1(12) if request.param == "S1" else s2(0.04)


def test_trajectories_name_themselves(stored) -> None:
    rows = len(stored.reward)
    assert stored.steps + len(stored.length) == rows
    assert stored.length.min() < LENGTH < stored.length.max()
    assert np.isfinite(stored.observation).all()
    assert np.array_equal(stored.action[stored.begin, 0], np.arange(len(stored.begin)))
    assert np.array_equal(stored.begin[stored.action[:, 0].astype(int)] + stored.action[:, 1], np.arange(rows))
    assert np.array_equal(np.flatnonzero(stored.last), np.flatnonzero(stored.terminated) + 1)


@pytest.mark.parametrize("stream", [False, True])
def test_the_floor_gathers_what_twohot_does(stored, stream: bool) -> None:
    from gather import floor

    replay = stored.add_to(Replay.create(stored.schema, capacity_steps=stored.steps))
    out = replay.batch(16, LENGTH)
    gather = floor(stored, out, stream=stream, derived=True)
    for _ in range(3):
        batch = replay.sample(16, LENGTH)
        gather(batch.trajectory, batch.start)
        for name in GATHERED:
            np.testing.assert_array_equal(getattr(out, name), getattr(batch, name), err_msg=name)
        np.testing.assert_array_equal(out.observation["observation"], batch.observation["observation"])


def test_windows_that_are_not_what_was_stored_are_named(stored) -> None:
    from gather import fault

    begin = stored.begin[:2] + 3
    rows = begin[:, None] + np.arange(50)
    columns = [stored.observation[rows], stored.action[rows], stored.reward[rows]]
    steps = np.array([50, 40])
    assert fault(stored, *columns, steps) == ""
    names = ("observation", "action", "reward")
    for index, name in enumerate(names):
        other = [column.copy() for column in columns]
        other[index][1, 39:40].reshape(-1)[-1:] += 1
        assert fault(stored, *other, steps) == f"{name} of window 1 is not what was stored"
        other[index][1, 39] = columns[index][1, 39]
        other[index][1, 40:41].reshape(-1)[-1:] += 1  # behind the end
        assert fault(stored, *other, steps) == ""
    skipped = columns[1].copy()
    skipped[0, 10, 1] += 1
    assert fault(stored, columns[0], skipped, columns[2], steps) == "window 0 is not of consecutive rows"
    foreign = columns[1].copy()
    foreign[0, :, 0] = 1e6
    assert fault(stored, columns[0], foreign, columns[2], steps) == "window 0 comes from no trajectory"
    assert fault(stored, *columns, np.array([50, 0])) == "windows without a step"


def test_every_peer_gives_windows_of_what_was_stored(stored, tmp_path) -> None:
    import replay_peers as peers
    from gather import fault
    from peers import release

    peers.write_amago(stored, tmp_path)
    samplers = {
        "numpy": peers.numpy_by_hand(stored, 4, LENGTH),
        "dreamer": peers.dreamer(stored, 4, LENGTH),
        "amago": peers.amago(tmp_path, 4, LENGTH),
    }
    if release("torchrl"):
        samplers |= {f"torchrl {cached}": peers.torchrl(stored, 4, LENGTH, cached) for cached in (False, True)}
    if release("cpprb"):
        samplers["cpprb"] = peers.cpprb(stored, 4, LENGTH)
    for name, sample in samplers.items():
        for _ in range(3):
            result = sample()
            assert fault(stored, *(result() if callable(result) else result)) == "", name


def test_goals_and_limits_name_what_is_measured(bench) -> None:
    import replay
    import replay_cases
    from contest import Figures, goal_rows

    for name in replay.STORED:
        for contest in replay.contests(name):
            names = {*contest.floors, *contest.often, contest.ours, replay.DREAMER, replay.AMAGO}
            names |= {f"{name} 1.2.0" for name in (replay.TORCHRL, replay.CHUNKS)}
            figures = Figures({name: [1.0] for name in names})
            assert "not measured" not in [row.met for row in goal_rows(contest, "as is", 2, figures, figures)]
    found = {
        "sampling by size of the store": [
            f"{size}, by {by}" for size in replay_cases.SIZES for by in replay_cases.LAWS
        ],
        "appending": [f"{name}: {who}" for name in ("S1", "S2") for who in ("twohot", "numpy ring")],
        "waiting": [*replay_cases.LEARNERS],
        "opening": [*replay_cases.OPENED],
        "memory above the data": ["S1 in memory"],
        **{
            f"compression, {kind}": [
                *(f"{codec}: {what}" for codec in ("plain", "lz4", "zstd") for what in ("adding", "sampling")),
                *(f"{codec}: times smaller" for codec in ("lz4", "zstd")),
            ]
            for kind in ("sprites", "sprites and noise")
        },
        "more data than memory": ["batches, at most half in memory", "disk, a window at random"],
    }
    assert found.keys() == replay_cases.CASES.keys()
    for name, case in replay_cases.CASES.items():
        rows = case.rows(name, "as is", Figures({provider: [2.0, 4.0, 3.0] for provider in found[name]}))
        assert len(rows) == len(found[name]) + len(case.goals)
        assert {row.p50 for row in rows if row.case == name} == {3}
        assert "not measured" not in [row.met for row in rows]
        assert all(row.share_of_limit == 1 for row in rows if row.case == name and case.limit)


def test_compression_is_measured_on_drawn_frames(bench, monkeypatch) -> None:
    import replay_compression

    monkeypatch.setattr(replay_compression, "TRAJECTORIES", 3)
    monkeypatch.setattr(replay_compression, "STEPS", 40)
    smooth, noisy = (replay_compression.compression(noise) for noise in (0.0, 0.3))
    for figures in (smooth, noisy):
        assert all(value > 0 for values in figures.values.values() for value in values)
    for codec in ("lz4", "zstd"):
        name = f"{codec}: times smaller"
        assert smooth.values[name][0] > 5
        assert 1 < noisy.values[name][0] < smooth.values[name][0]


def test_a_case_says_what_could_not_be_measured(bench) -> None:
    from contest import Figures, Goal
    from replay_cases import Case

    goal = Goal("fast", "ours", 1.0, at_most=2, unit="s")
    case = Case("small", {}, "s", goals=(goal,))
    ours, broken, row = case.rows("opening", "as is", Figures({"ours": [3.0]}, {"theirs": "no such device"}))
    assert (ours.provider, ours.p50, ours.unit, ours.share_of_limit) == ("ours", 3, "s", "")
    assert (broken.provider, broken.mode) == ("theirs: no such device", "failed")
    assert (row.p50, row.unit, row.target, row.met) == (3, "s", "<= 2", "no")


def test_small_measurements_have_figures(bench, monkeypatch) -> None:
    import replay_cases
    from gather import s1, s2

    monkeypatch.setattr(replay_cases, "SIZES", {"small": 20_000})
    monkeypatch.setattr(replay_cases, "s1", lambda count=30: s1(min(count, 30)))
    monkeypatch.setattr(replay_cases, "s2", lambda gigabytes=0.05: s2(0.05))
    monkeypatch.setattr(replay_cases, "LEARNER_STEPS", 4)
    figures = replay_cases.small_store(20_000).values
    assert {*figures} == {"small, by trajectory", "small, by step"}
    assert min(map(min, figures.values())) > 0
    figures = replay_cases.appending(s1, 10_000).values
    assert {*figures} == {"S1: twohot", "S1: numpy ring"}
    shares = replay_cases.waiting().values
    assert {*shares} == {*replay_cases.LEARNERS}
    assert all(0 <= share < 1 for values in shares.values() for share in values)
    assert {*replay_cases.overhead().values} == {"S1 in memory"}


def test_small_directories_have_figures(bench, monkeypatch) -> None:
    import replay_cases
    from gather import s1

    figures = replay_cases.opening(trajectories=20, length=30).values
    assert {name: len(values) for name, values in figures.items()} == dict.fromkeys(replay_cases.OPENED, 5)
    figures = replay_cases.more_than_memory(0.05).values
    assert min(map(min, figures.values())) > 0
    assert len(figures) == 3
    monkeypatch.setattr(
        replay_cases.Replay, "open", lambda *_, **options: Replay.create(s1(2).schema, capacity_steps=10)
    )
    with pytest.raises(RuntimeError, match="expected 600 steps"):
        replay_cases.opening(trajectories=20, length=30)


def test_work_of_another_kind_is_checked_by_itself(bench) -> None:
    from contest import Alternative, Contest, measure

    def fails(result: int) -> str:
        raise IndexError("too short")

    alternatives = {
        "sound": Alternative(lambda: 3, check=lambda result: "" if result == 3 else "not three"),
        "wrong": Alternative(lambda: 4, check=lambda result: "" if result == 3 else "not three"),
        "short": Alternative(lambda: 3, check=fails),
    }
    contest = Contest("numbers", "", lambda divisor: alternatives, (), "", "sound")
    figures = measure(contest, 2)
    assert {*figures.values} == {"sound"}
    assert figures.obstacles == {"wrong": "not three", "short": "IndexError: too short"}


@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux counts")
def test_files_leave_the_page_cache(bench, tmp_path, monkeypatch) -> None:
    import disk

    monkeypatch.setenv("TWOHOT_BENCH_DIRECTORY", str(BENCH.parent / "build"))
    (BENCH.parent / "build").mkdir(exist_ok=True)
    with disk.scratch() as folder:
        for name in "ab":
            (folder / name).write_bytes(bytes(1 << 20))
        (folder / "empty").touch()
        paths = disk.files(folder)
        assert [path.name for path in paths] == ["a", "b"]
        disk.sync(folder)
        disk.evict(paths)
        assert disk.cached_bytes(paths) < 1 << 20
        mapped = np.memmap(paths[0], np.uint8, "r")
        assert mapped.sum() == 0
        assert disk.cached_bytes(paths[:1]) == 1 << 20
        disk.evict(paths)
        assert disk.cached_bytes(paths[:1]) < 1 << 20
        del mapped
        assert disk.sequential_rate(paths) > 0
        assert disk.random_rate(paths, 1 << 12, reads=5) > 0


def test_the_readme_shows_windows_costs_and_goals(bench, monkeypatch, tmp_path) -> None:
    import readme
    import run
    from contest import Alternative, Contest, Figures, Goal, goal_rows, rows
    from replay_cases import Case

    goals = (Goal("near", "twohot", ("floor",), at_most=2.5),)
    contest = Contest(
        "S1, B 24", "vectors", lambda _: {"a": Alternative(None)}, ("floor",), "floor", "twohot", goals=goals
    )
    figures = Figures({"floor": [2e-3], "twohot": [4e-3]}, {"absent": "not installed"})
    case = Case("20 million steps", {}, "s", goals=(Goal("opening", "warm", 1.0, at_most=2, unit="s"),))
    written = rows(replace(contest, least=(0.01, "GB")), "huge pages", 2, figures, Figures())
    written += goal_rows(contest, "huge pages", 2, figures, Figures())
    written += case.rows("opening", "huge pages", Figures({"warm": [3.0]}))
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    run.write("replay", written, {**run.conditions(), "gate": "passed"})
    lines = readme.replay()
    assert "**S1, B 24** (vectors):" in lines
    assert "| who | ms | p20 to p80 | x twohot | x floor | GB/s |" in lines
    assert "| twohot | 4 | 4 to 4 | 1 | 2 | 2.5 |" in lines
    assert "| absent | not installed |  |  |  |  |" in lines
    assert "| opening: warm | 3 | 3 to 3 | s |  |" in lines
    assert "| near | <= 2.5 x | 2 x | yes |" in lines
    assert "| opening | <= 2 s | 3 s | no |" in lines
