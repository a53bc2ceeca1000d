"""The benchmark of the replay: windows that are what was stored, baselines held to that, goals that are measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bench.baselines import replay as baselines
from bench.baselines.gather import Trajectories, fault, floor, s1, s2
from bench.baselines.packages import installed_version
from bench.cases import replay_compression, replay_costs
from bench.cases.replay_costs import Case
from bench.groups import replay
from bench.harness import disk, results
from bench.harness.compare import NOT_INSTALLED, Comparison, Figures, Goal, Provider, goal_rows, measure_times, rows
from bench.harness.group import ROOT
from twohot.replay import Replay

pytestmark = pytest.mark.bench
LENGTH = 256
GATHERED = ("previous_action", "previous_reward", "time", "action", "reward", "terminated", "truncated", "mask")


@pytest.fixture(params=["S1", "S2"])
def stored(request) -> Trajectories:
    """A few trajectories of each kind: some shorter, some longer than a window."""
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


def test_every_baseline_gives_windows_of_what_was_stored(stored, tmp_path) -> None:
    baselines.write_amago(stored, tmp_path)
    samplers = {
        "numpy": baselines.numpy_by_hand(stored, 4, LENGTH),
        "dreamer": baselines.dreamer(stored, 4, LENGTH),
        "amago": baselines.amago(tmp_path, 4, LENGTH),
    }
    if installed_version("torchrl"):
        samplers |= {f"torchrl {cached}": baselines.torchrl(stored, 4, LENGTH, cached) for cached in (False, True)}
    if installed_version("cpprb"):
        samplers["cpprb"] = baselines.cpprb(stored, 4, LENGTH)
    for name, sample in samplers.items():
        for _ in range(3):
            result = sample()
            assert fault(stored, *(result() if callable(result) else result)) == "", name


@pytest.fixture
def small_sets(monkeypatch) -> Iterator[None]:
    """A few trajectories in place of those that the comparisons of the group are about, and one round."""
    caches = (replay.stored, replay.in_memory, replay.mapped, replay.folder, replay.amago_files)
    monkeypatch.setattr(replay, "STORED", {"S1": partial(s1, 12), "S2": partial(s2, 0.04)})
    monkeypatch.setattr(replay, "BATCHES", (8,))
    monkeypatch.setattr(replay, "measure_times", lambda comparison, rounds: measure_times(comparison, 1))
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.usefixtures("small_sets", "one_thread")
@pytest.mark.parametrize("name", ["S1", "S2"])
def test_every_provider_is_measured_and_has_its_goal(name) -> None:
    figures = replay.measured(name)
    absent = [package for package in ("torchrl", "cpprb") if not installed_version(package)]
    for comparison in replay.comparisons(name):
        found = figures[comparison.case]
        assert {*comparison.floors, *comparison.reference, comparison.ours} <= found.values.keys()
        assert {*found.missing.values()} <= {NOT_INSTALLED}
        assert all(provider.startswith(tuple(absent)) for provider in found.missing)
        for row in goal_rows(comparison, "mode", 1, found, Figures()):
            assert (row.met == "not measured") == any(package in row.provider for package in absent), row.provider


@pytest.fixture
def small_parts(monkeypatch) -> dict[str, list[Callable[[], Figures]]]:
    """The parts of each case at sizes that take a second."""
    monkeypatch.setattr(replay_costs, "SIZES", {name: 1000 * at for at, name in enumerate(replay_costs.SIZES, 1)})
    monkeypatch.setattr(replay_costs, "s1", lambda count=30: s1(min(count, 30)))
    monkeypatch.setattr(replay_costs, "s2", lambda gigabytes=0.05: s2(0.05))
    monkeypatch.setattr(replay_costs, "LEARNER_STEPS", 4)
    monkeypatch.setattr(replay_compression, "TRAJECTORIES", 3)
    monkeypatch.setattr(replay_compression, "STEPS", 40)
    return {
        "sampling by size of the store": [partial(replay_costs.small_store, n) for n in replay_costs.SIZES.values()],
        "appending": [partial(replay_costs.appending, partial(*data), 10_000) for data in ((s1, 30), (s2, 0.05))],
        "opening": [partial(replay_costs.opening, trajectories=20, length=30)],
        "more data than memory": [partial(replay_costs.more_than_memory, 0.05)],
    }


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", replay_costs.CASES)
def test_every_figure_of_a_case_has_a_unit_and_every_goal_a_figure(name, small_parts) -> None:
    case = replay_costs.CASES[name]
    figures = Figures()
    for part in small_parts.get(name, case.parts.values()):
        figures.values |= part().values
    rows = case.rows(name, "mode", figures)
    assert len(rows) == len(figures.values) + len(case.goals)
    assert all(row.unit for row in rows)
    assert "not measured" not in [row.met for row in rows]
    assert case.limit in ("", *figures.values)
    assert all(np.isfinite(values).all() for values in figures.values.values())


def test_compression_is_measured_on_drawn_frames(monkeypatch) -> None:
    monkeypatch.setattr(replay_compression, "TRAJECTORIES", 3)
    monkeypatch.setattr(replay_compression, "STEPS", 40)
    smooth, noisy = (replay_compression.compression(noise) for noise in (0.0, 0.3))
    for figures in (smooth, noisy):
        assert all(value > 0 for values in figures.values.values() for value in values)
    for codec in ("lz4", "zstd"):
        name = f"{codec}: times smaller"
        assert smooth.values[name][0] > 5
        assert 1 < noisy.values[name][0] < smooth.values[name][0]


def test_a_case_says_what_could_not_be_measured() -> None:
    goal = Goal("fast", "ours", 1.0, at_most=2, unit="s")
    case = Case("small", {}, "s", goals=(goal,))
    ours, broken, row = case.rows("opening", "as is", Figures({"ours": [3.0]}, {"theirs": "no such device"}))
    assert (ours.provider, ours.p50, ours.unit, ours.share_of_limit) == ("ours", 3, "s", "")
    assert (broken.provider, broken.mode) == ("theirs: no such device", "failed")
    assert (row.p50, row.unit, row.target, row.met) == (3, "s", "<= 2", "no")


def test_a_directory_that_is_opened_has_to_hold_what_was_written(monkeypatch) -> None:
    monkeypatch.setattr(
        replay_costs.Replay, "open", lambda *_, **options: Replay.create(s1(2).schema, capacity_steps=10)
    )
    with pytest.raises(RuntimeError, match="expected 600 steps"):
        replay_costs.opening(trajectories=20, length=30)


def test_work_of_another_kind_is_checked_by_itself() -> None:
    def fails(result: int) -> str:
        raise IndexError("too short")

    providers = {
        "sound": Provider(lambda: 3, check=lambda result: "" if result == 3 else "not three"),
        "wrong": Provider(lambda: 4, check=lambda result: "" if result == 3 else "not three"),
        "short": Provider(lambda: 3, check=fails),
    }
    comparison = Comparison("numbers", "", lambda batch_divisor: providers, (), "", "sound")
    figures = measure_times(comparison, 2)
    assert {*figures.values} == {"sound"}
    assert figures.missing == {"wrong": "not three", "short": "IndexError: too short"}


@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux counts")
def test_files_leave_the_page_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TWOHOT_BENCH_DIRECTORY", str(ROOT / "build"))
    (ROOT / "build").mkdir(exist_ok=True)
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


def test_the_readme_shows_windows_costs_and_goals(monkeypatch, tmp_path) -> None:
    goals = (Goal("near", "twohot", ("floor",), at_most=2.5),)
    comparison = Comparison(
        "S1, B 24", "vectors", lambda _: {"a": Provider(None)}, ("floor",), "floor", "twohot", goals=goals
    )
    figures = Figures({"floor": [2e-3], "twohot": [4e-3]}, {"absent": "not installed"})
    case = Case("20 million steps", {}, "s", goals=(Goal("opening", "warm", 1.0, at_most=2, unit="s"),))
    written = rows(replace(comparison, minimum=(0.01, "GB")), "huge pages", 2, figures, Figures())
    written += goal_rows(comparison, "huge pages", 2, figures, Figures())
    written += case.rows("opening", "huge pages", Figures({"warm": [3.0]}))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.write(tmp_path, "replay", written, {**results.measured_conditions(), "gate": "passed"})
    lines = replay.write_table(results.read("replay"))
    assert "**S1, B 24** (vectors):" in lines
    assert "| who | ms | p20 to p80 | x twohot | x floor | GB/s |" in lines
    assert "| twohot | 4 | 4 to 4 | 1 | 2 | 2.5 |" in lines
    assert "| absent | not installed |  |  |  |  |" in lines
    assert "| opening: warm | 3 | 3 to 3 | s |  |" in lines
    assert "| near | <= 2.5 x | 2 x | yes |" in lines
    assert "| opening | <= 2 s | 3 s | no |" in lines
