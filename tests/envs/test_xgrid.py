"""The grid world: tasks that are numbers, what a vector of them promises, and the suite made of it."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from PIL import Image

import batched_envs
from bench.baselines.xgrid_expert import Expert, LostError
from bench.harness.group import ROOT
from twohot import envs
from twohot.envs.suites import xgrid
from twohot.envs.vector.batched_trials import BatchedTrials
from twohot.envs.vector.serial import allocate
from twohot.envs.xgrid import BENCHMARKS, GOALS, RULES, SHAPES, Benchmark, RuleSet, XGridVector, draw, plan
from twohot.envs.xgrid.benchmarks import MADE_GOALS, MADE_RULES


@pytest.mark.parametrize("name", BENCHMARKS)
def test_splits_share_no_rule_set_and_every_rule_set_has_a_way_to_its_goal(name):
    benchmark, count = BENCHMARKS[name], 1300
    assert benchmark.tasks == 1_000_000
    apart = benchmark.at_depth(1) if benchmark.shared_goals else benchmark
    train, test = (apart.arrays(0, 30_000, split)[3] for split in ("train", "test"))
    assert not set(train.tolist()) & set(test.tolist())
    assert not (train & 1).any()
    assert (test & 1).all()
    for number in range(count):
        for split in ("train", "test"):
            rule_set = benchmark.rule_set(number, split)
            way = plan(rule_set)
            assert way is not None
            assert len(way) >= benchmark.min_depth
            assert sorted(way) == needed_rules(rule_set)[0]


def needed_rules(rule_set):
    """Which rules the goal needs, and the tiles that they and the goal take."""

    def inputs(kinds, coded):
        return [tuple(coded[1 + 2 * i : 3 + 2 * i].tolist()) for i in range(len(kinds[coded[0]].inputs))]

    tiles, rules = inputs(GOALS, rule_set.goal), set()
    for tile in tiles:
        for index, rule in enumerate(rule_set.rules):
            at = 1 + 2 * len(RULES[rule[0]].inputs)
            if index not in rules and tuple(rule[at : at + 2].tolist()) == tile:
                rules.add(index)
                tiles += inputs(RULES, rule)
    return sorted(rules), tiles


@pytest.mark.parametrize("name", BENCHMARKS)
def test_no_held_out_task_is_a_training_task_but_for_its_dead_ends_and_each_of_those_uses_up_what_is_needed(name):
    tasks, harmless = {}, []
    for split in ("train", "test"):
        goals, rules, objects, _ = BENCHMARKS[name].arrays(0, 8000, split)
        tasks[split] = set()
        for goal, own, placed in zip(goals, rules, objects, strict=True):
            rule_set = RuleSet(goal, own[own[:, 0] > 0], placed)
            needed, tiles = needed_rules(rule_set)
            shared = BENCHMARKS[name].shared_goals and not needed
            own_objects = sorted(map(tuple, placed.tolist())) if shared else []
            tasks[split].add((goal.tobytes(), *sorted(rule_set.rules[rule].tobytes() for rule in needed), *own_objects))
            dead_ends = np.delete(rule_set.rules, needed, 0)
            harmless += [rule for rule in dead_ends if tuple(rule[1:3].tolist()) not in tiles]
    assert not tasks["train"] & tasks["test"]
    assert len(tasks["test"]) > (300 if name == "simple" else 2000)
    assert not harmless


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_goals_and_rules_are_of_the_kinds_that_are_named(depth):
    chosen = {"goals": ("agent near", "agent on tile"), "rules": ("agent hold", "agent near left")}
    goals, rules, objects, _ = Benchmark(depth, depth, distractors=2, **chosen).arrays(0, 500)
    assert {GOALS[kind].name for kind in goals[:, 0]} == set(chosen["goals"])
    assert {RULES[kind].name for kind in np.unique(rules[:, :, 0])} - {"none"} == set(chosen["rules"] if depth else ())
    # Of one input each: so one object to begin with, and the others.
    assert (np.count_nonzero(objects[:, :, 0], axis=1) == 3).all()
    XGridVector(1, Benchmark(depth, depth, distractors=2, **chosen), height=6, width=6).reset(seed=0)
    # All kinds, named or not, are the same tasks.
    named = Benchmark(2, 3, goals=MADE_GOALS, rules=MADE_RULES).arrays(0, 50)
    for one, other in zip(named, Benchmark(2, 3).arrays(0, 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_objects_are_of_as_many_types_as_are_asked_for():
    # A goal, what makes it in two steps, three distractors: all six that there are.
    few = Benchmark(0, 2, distractors=3, goals=("agent near",), rules=("agent near",), object_types=6)
    goals, rules, objects, _ = few.arrays(0, 200)
    placed = {tuple(tile) for tile in objects.reshape(-1, 2).tolist()} - {(0, 0)}
    assert len(placed) == 6
    assert {tuple(goal[1:3]) for goal in goals.tolist()} <= placed
    made = {tuple(rule[3:5]) for rule in rules.reshape(-1, 7).tolist()} - {(0, 0)}
    assert len(made) > 1
    assert made <= placed
    with pytest.raises(ValueError, match="expected at least 6 object types, as many as a rule set may name, got 5"):
        replace(few, object_types=5).rule_set(0)
    with pytest.raises(TypeError, match="expected True or False as shared_goals, got 'no'"):
        Benchmark(shared_goals="no").rule_set(0)
    with pytest.raises(
        ValueError, match="expected rule sets for training and for testing, got so few that one of them"
    ):
        Benchmark(goals=("agent near",), object_types=1, tasks=1).rule_set(0, "test")


def test_splits_may_share_goals_without_rules_but_no_task():
    few = Benchmark(
        0, 1, distractors=4, goals=("agent near",), rules=("agent near",), object_types=10, shared_goals=True
    )
    tasks = {}
    for split in ("train", "test"):
        goals, rules, objects, identities = few.arrays(0, 20_000, split)
        without = rules[:, 0, 0] == 0
        placed = np.sort(objects[:, :, 1].astype(int), axis=1)
        tasks[split] = {(goal[2], *own) for goal, own in zip(goals[without].tolist(), placed[without], strict=True)}
        assert {goal for goal, *_ in tasks[split]} == set(np.unique(objects[:, :, 1])) - {0}  # all ten
        tasks[split, "with rules"] = set(identities[~without].tolist())
    # Ten goals with four of nine other objects.
    assert len(tasks["train"]) + len(tasks["test"]) == len(tasks["train"] | tasks["test"]) == 1260
    assert not tasks["train", "with rules"] & tasks["test", "with rules"]
    assert len(tasks["test", "with rules"]) > 30
    apart = replace(few, max_depth=0, shared_goals=False)
    assert [len(np.unique(apart.arrays(0, 500, split)[0][:, 2])) for split in ("train", "test")] == [1, 9]


def test_a_plan_needs_its_rules_and_as_many_as_the_depth():
    for depth in range(6):
        benchmark = Benchmark(depth, depth, distractors=2, dead_ends=2)
        for number in range(50):
            rule_set = benchmark.rule_set(number)
            way = plan(rule_set)
            assert len(way) == depth  # without branches, one rule after the other
            for rule in way:
                others = RuleSet(rule_set.goal, np.delete(rule_set.rules, rule, 0), rule_set.objects)
                assert plan(others) is None
                assert others.identity != rule_set.identity
    assert plan(RuleSet(np.zeros(5, np.uint8), np.zeros((0, 7), np.uint8), np.zeros((0, 2), np.uint8))) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simple", {}),
        ("trivial", {}),
        ("small", {"rooms": 2}),
        ("medium", {"rooms": 4, "height": 13, "width": 13}),
        ("deep", {"rooms": 9, "height": 16, "width": 16}),
    ],
)
def test_plans_lead_to_goals_on_the_map(name, options):
    """By an expert that is told the rules; it may lose its way where objects stand all around it."""
    vector = XGridVector(1, name, split="test", max_steps=3000, autoreset_mode="Disabled", **options)
    played, reached = 120, 0
    for seed in range(played):
        vector.reset(seed=seed)
        expert = Expert(vector)
        with contextlib.suppress(LostError):
            expert.play()
            assert expert.done
            assert expert.reward > 0
            reached += 1
    assert reached >= 0.95 * played


def test_no_task_has_more_than_it_may():
    branching = Benchmark(min_depth=2, max_depth=3, branching=100, distractors=1, dead_ends=5)
    for benchmark in (*BENCHMARKS.values(), branching, Benchmark(), Benchmark(max_depth=8)):
        _, rules, objects, _ = benchmark.arrays(0, 30_000)
        assert not rules[:, benchmark.most_rules :].any()
        assert not objects[:, benchmark.most_objects :].any()
    for benchmark in (BENCHMARKS["trivial"], BENCHMARKS["small"], branching):  # nor is that too much
        _, rules, objects, _ = benchmark.arrays(0, 30_000)
        assert rules[:, : benchmark.most_rules].any((0, 2)).all()
        assert objects[:, : benchmark.most_objects].any((0, 2)).all()


def test_a_benchmark_has_all_kinds_and_a_task_is_a_number():
    deep = BENCHMARKS["deep"]
    goals, rules, objects, identities = deep.arrays(5, 4000)
    drawn = {GOALS[kind].name for kind in np.unique(goals[:, 0])}
    assert drawn == {kind.name for kind in GOALS} - {"none", "tile on position", "agent on position"}
    assert set(np.unique(rules[:, :, 0])) == set(range(len(RULES)))
    assert "key" not in {SHAPES[shape] for shape in np.unique(objects[:, :, 0])}
    for number in (5, 17, 4004):
        one = deep.rule_set(number)
        assert one == deep.rule_set(number) == RuleSet(one.goal.copy(), one.rules, one.objects)
        assert one != deep.rule_set(number, "test")
        assert one.identity == identities[number - 5]
        np.testing.assert_array_equal(goals[number - 5], one.goal)
        assert len({one, deep.rule_set(number)}) == 1
    with pytest.raises(ValueError, match="expected the number of a task from 0 to 999999, got 1000000"):
        deep.rule_set(1_000_000)
    with pytest.raises(ValueError, match="expected 0 to 8 distractors, got 9"):
        Benchmark(distractors=9).rule_set(0)
    with pytest.raises(ValueError, match="goals: did you mean agent hold"):
        Benchmark(goals=("agent holds",)).rule_set(0)
    with pytest.raises(ValueError, match=r"rules: expected some of agent hold, .*, got 'none'"):
        Benchmark(rules=("none",)).rule_set(0)
    with pytest.raises(TypeError, match="goals: expected names of kinds, got 'agent hold'"):
        Benchmark(goals="agent hold").rule_set(0)
    with pytest.raises(ValueError, match=r"goals: .*got 'agent on position'"):
        Benchmark(goals=("agent on position",)).rule_set(0)
    words = str(RuleSet(np.array([5, 3, 1, 2, 6], np.uint8), np.array([[3, 3, 1, 4, 2, 1, 7]], np.uint8),
                        np.array([[3, 1]], np.uint8)))  # fmt: skip
    assert words == (
        "goal: tile on position red ball, (2, 6)\nrule: tile near red ball, green square -> floor\nobjects: red ball"
    )


@pytest.mark.parametrize("options", [{}, {"rooms": 9, "height": 16, "width": 13, "locked": True, "view": 0}])
def test_everything_follows_from_the_seed(options):
    def play(count, threads, copy):
        vector = XGridVector(count, "medium", max_steps=20, attempts=2, threads=threads, copy=copy, **options)
        actions = np.random.default_rng(0).integers(6, size=(150, 200))[:, :count]
        seen = [vector.reset(seed=5)[0].copy()]
        for row in actions:
            seen += [np.copy(x) for x in vector.step(row)[:4]]
        return seen, vector.tasks, vector.attempt

    one, tasks, attempts = play(200, 1, True)
    many, other_tasks, _ = play(200, 3, False)
    few, few_tasks, _ = play(7, 1, True)
    np.testing.assert_array_equal(tasks, other_tasks)
    np.testing.assert_array_equal(tasks[:7], few_tasks)
    assert set(attempts) <= {0, 1}
    for a, b, c in zip(one, many, few, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[:7], c)


def test_the_last_observation_is_the_one_that_ended_the_attempt():
    vector, still = (
        XGridVector(64, "trivial", max_steps=12, attempts=3, autoreset_mode=mode)
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
    )
    np.testing.assert_array_equal(vector.reset(seed=3)[0], still.reset(seed=3)[0])
    random, successes, played = np.random.default_rng(1), 0, [[] for _ in range(64)]
    for _ in range(200):
        actions = random.integers(6, size=64)
        before, attempt = [vector.rule_set(i) for i in range(64)], vector.attempt
        observation, reward, terminated, truncated, info = vector.step(actions)
        theirs, *columns, nothing = still.step(actions)
        for own, their in zip((reward, terminated, truncated), columns, strict=True):
            np.testing.assert_array_equal(own, their)
        done = terminated | truncated
        assert nothing == {}
        if not done.any():
            assert info == {}
            continue
        np.testing.assert_array_equal(info["_final_obs"], done)
        np.testing.assert_array_equal(info["final_obs"][done], theirs[done])
        np.testing.assert_array_equal(info["success"], terminated)
        successes += terminated.sum()
        again, rewards, *ends, _ = still.step(np.where(done, 0, 1))  # the others turn: undone below
        np.testing.assert_array_equal(again[done], theirs[done])
        assert (rewards[done] == 0).all()
        assert (ends[0] | ends[1])[done].all()
        for index in np.flatnonzero(~done):
            still.set_state(index, vector.state())
        fresh, _ = still.reset(options={"reset_mask": done})
        np.testing.assert_array_equal(fresh, observation)
        for index in np.flatnonzero(done):
            played[index].append(attempt[index])
            assert (vector.rule_set(index) == before[index]) == (attempt[index] < 2)
    assert successes > 20
    assert all(attempts[:6] == [0, 1, 2, 0, 1, 2] for attempts in played)
    with pytest.raises(ValueError, match="no seed beside a reset_mask"):
        still.reset(seed=1, options={"reset_mask": done})


def test_a_task_of_ones_own_is_played_from_its_first_attempt_for_all_of_them():
    vector = XGridVector(2, "small", max_steps=4, attempts=3)
    vector.reset(seed=0)
    for _ in range(6):
        vector.step(np.array([0, 0]))
    before, own = vector.state(), BENCHMARKS["medium"].rule_set(7)
    assert vector.attempt.tolist() == [1, 1]
    vector.set_rule_set(0, own)
    state = vector.state()
    for name in ("grid", "agent", "pocket"):
        np.testing.assert_array_equal(getattr(state, name)[1], getattr(before, name)[1])
    still = np.array([1, 1])
    for attempt in range(3):
        assert (vector.tasks[0], vector.attempt[0]) == (-1, attempt)
        assert vector.rule_set(0) == own
        state = vector.state()
        assert state.agent[0, 3] == 0
        assert not state.pocket[0].any()
        placed = state.grid[0][state.grid[0, :, :, 0] > 2]
        assert sorted(map(tuple, placed)) == sorted(map(tuple, own.objects))
        for _ in range(4):
            vector.step(still)
    assert vector.tasks[0] >= 0
    assert vector.attempt[0] == 0


@pytest.mark.parametrize("same_map", [False, True])
def test_attempts_at_a_task_begin_on_the_same_map_or_each_on_its_own(same_map):
    size = {"rooms": 4, "height": 13, "width": 13, "locked": True}
    vector = XGridVector(20, "medium", max_steps=3, attempts=3, same_map=same_map, **size)
    vector.reset(seed=0)
    vector.set_rule_set(0, BENCHMARKS["small"].rule_set(7))
    begun = []
    for step in range(27):
        if step % 3 == 0:
            begun.append((vector.state(), vector.tasks))
        vector.step(np.random.default_rng(step).integers(3, size=20))  # nothing is picked up, no door is opened
    for trial in range(0, 9, 3):
        (first, tasks), *others = begun[trial : trial + 3]
        for other, own in others:
            np.testing.assert_array_equal(own, tasks)
            np.testing.assert_array_equal(other.agent[:, 3], 0)
            for name in ("grid", "agent"):
                alike = (getattr(other, name) == getattr(first, name)).reshape(20, -1).all(1)
                assert alike.all() if same_map else alike.sum() < 10
        assert not (begun[trial][0].grid == begun[trial - 3][0].grid).reshape(20, -1).all(1).any()


def test_every_locked_map_has_one_locked_door_and_its_key_beside_the_agent():
    """Rooms of four cells, some of which objects fill."""
    crowded = Benchmark(4, 4, distractors=8)
    vector = XGridVector(3000, crowded, rooms=9, height=10, width=10, locked=True)
    vector.reset(seed=0)
    state = vector.state()
    shapes, colours = state.grid[..., 0], state.grid[..., 1]
    locked, keys = (np.argwhere(shapes == SHAPES.index(name)) for name in ("locked door", "key"))
    np.testing.assert_array_equal(locked[:, 0], np.arange(3000))
    np.testing.assert_array_equal(keys[:, 0], np.arange(3000))
    np.testing.assert_array_equal(colours[tuple(locked.T)], colours[tuple(keys.T)])
    np.testing.assert_array_equal((keys[:, 1:] - 1) // 3, (state.agent[:, :2] - 1) // 3)
    assert (keys[:, 1:] != state.agent[:, :2]).any(1).all()


def test_a_second_thread_is_told_that_a_call_is_in_progress():
    vector = XGridVector(30_000, "deep", height=11, width=11)
    resetting = threading.Thread(target=lambda: vector.reset(seed=1))
    resetting.start()

    def ask():
        while resetting.is_alive():
            vector.rule_set(0)

    with pytest.raises(RuntimeError, match="a grid world serves one thread at a time"):
        ask()
    resetting.join()
    assert vector.attempt.tolist() == [0] * 30_000


def test_a_reset_mask_is_checked_before_anything_moves():
    vector = XGridVector(2, attempts=2, autoreset_mode="Disabled")
    vector.reset(seed=0)
    before = vector.state()
    for mask in ([True, False], np.array([1, 0]), np.array([True]), np.array([True, False, True]), np.zeros(2, bool)):
        with pytest.raises(ValueError, match=r"expected as reset_mask an array of bool \[2\] with one True at least"):
            vector.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(vector.state().grid, before.grid)
    assert vector.attempt.tolist() == [0, 0]


def test_a_state_after_the_end_of_an_attempt_can_be_put_back():
    vector = XGridVector(1, max_steps=2, autoreset_mode="Disabled")
    vector.reset(seed=0)
    for _ in range(2):
        vector.step(np.array([1]))
    over = vector.state()
    vector.reset(seed=1)
    vector.set_state(0, over)
    *_, truncated, _ = vector.step(np.array([1]))
    assert truncated[0]
    np.testing.assert_array_equal(vector.state().agent, over.agent)


def test_what_a_vector_refuses(tmp_path):
    for options, words in (
        ({"benchmark": "tiny"}, "expected a benchmark, simple, trivial, small, medium, deep, got 'tiny'"),
        ({"rooms": 5}, "expected 1, 2, 4, 6 or 9 rooms, got 5"),
        ({"height": 4}, "expected a grid of 5 to 64 cells on a side, got 4 x 9"),
        ({"view": 4}, "expected an odd view from 3 to 31, or 0 for the whole grid, got 4"),
        ({"benchmark": "deep", "height": 6}, "make the grid larger or the tasks smaller"),
        ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "expected autoreset SAME_STEP or DISABLED"),
        ({"split": "valid"}, "expected split 'train' or 'test', got 'valid'"),
    ):
        with pytest.raises(ValueError, match=words):
            XGridVector(2, **options)
    for name in ("locked", "show_carried", "same_map", "copy"):
        with pytest.raises(TypeError, match=f"expected True or False as {name}, got 'no'"):
            XGridVector(2, **{name: "no"})
    vector = XGridVector(2)
    with pytest.raises(ValueError, match="expected actions from 0 to 5, got 6"):
        vector.step(np.array([0, 6]))
    with pytest.raises(ValueError, match="expected the shape"):
        vector.step(np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="expected index from 0 to 1, got 2"):
        vector.rule_set(2)
    with pytest.raises(TypeError, match="expected a Benchmark or the name of one, got None"):
        XGridVector(2, None)
    with pytest.raises(TypeError, match="expected a RuleSet, got None"):
        vector.set_rule_set(0, None)
    with pytest.raises(ValueError, match="expected a picture at least"):
        vector.gif(str(tmp_path / "none.gif"), [])
    for row in (5, -1):
        with pytest.raises(ValueError, match=f"expected row from 0 to 1, got {row}"):
            vector.set_state(0, vector.state(), row=row)
    batch = xgrid.make_batch(TASK, "train", 2)
    with pytest.raises(ValueError, match="expected integers of int64, got float"):
        batch.step(np.array([0.5, 1.0]))


def test_pictures_show_what_is_there():
    vector = XGridVector(2, "deep", rooms=6, height=9, width=13, locked=True)
    vector.reset(seed=0)
    first, second = vector.render()
    assert first.shape == (9 * 32, 13 * 32, 3)
    assert (first != second).any()
    shown = np.asarray(Image.open(BytesIO(vector._repr_png_())))
    np.testing.assert_array_equal(shown, np.concatenate([first, second], 1))
    grid = np.full((1, 13, 2), 1, np.uint8)
    grid[0, :, 0] = np.arange(13)
    tiles = draw(grid).reshape(32, 13, 32, 3).swapaxes(0, 1)
    assert len({tile.tobytes() for tile in tiles}) == 13
    facing = {draw(grid[:, :1], (0, 0, d), np.array([3, 1])).tobytes() for d in range(4)}
    assert len(facing) == 4


def test_the_page_runs(capsys, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "xgrid.md").read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec("\n".join(blocks), names)
    assert capsys.readouterr().out.count("goal: ") == 2
    assert names["frame"].shape == (416, 416, 3)
    names["worlds"].gif(str(tmp_path / "play.gif"), [names["frame"]] * 2)
    assert (tmp_path / "play.gif").stat().st_size > 1000


def test_the_package_needs_no_torch():
    code = "import sys, twohot.envs.xgrid; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


TASK = "small-r1-7x7-steps15"


def test_the_suite_is_an_environment_of_gymnasium():
    env = xgrid.make(TASK, render=True)
    batched_envs.check(env)
    batched_envs.check(xgrid.make("medium-r4-13x13-view7-locked-same-map", render=True))


@pytest.mark.parametrize("tasks", [(TASK,), (TASK, "deep-r9-25x25-steps20-locked-same-map")])
def test_trials_of_the_batch_are_those_of_single_environments(tasks):
    together = envs.make_vector("xgrid", tasks, environments=5, attempts=3)
    assert isinstance(together, BatchedTrials)
    layout = envs.common_layout("xgrid", tasks)
    singles = [envs.TrialEnv("xgrid", tasks, attempts=3, layout=layout) for _ in range(5)]
    spaces = together.single_observation_space, together.single_action_space
    alone = envs.TrialVector(envs.SerialEnvironments(singles, allocate(*spaces, 5)), 5, *spaces)
    assert batched_envs.check_vectors_equal(together, alone) == set(range(len(tasks)))


def test_attempts_share_the_rules_and_splits_share_none():
    batch = xgrid.make_batch(TASK, "test", 1)
    random = np.random.default_rng(0)
    for _ in range(20):
        batch.reset(0, random)
        first = RuleSet(*batch._worlds[0].rule_set(0))
        grid = batch.observe()["grid"]
        batch.reset(0, random, new_task=False)
        assert RuleSet(*batch._worlds[0].rule_set(0)) == first
        assert first.identity & 1
        assert batch.observe()["grid"].shape == grid.shape == (1, 5, 5, 2)


def test_attempts_of_the_suite_begin_on_the_same_map_where_the_task_says_so():
    names = "simple-r1-6x6", "simple-r1-6x6-same-map"
    batch, random = xgrid.make_mixed_batch(names, "train", 40), np.random.default_rng(0)
    for index in range(40):
        batch.choose(index, index % 2)
        batch.reset(index, random)
    begun = [batch.observe()]
    for _ in range(2):
        for index in range(40):
            batch.reset(index, random, new_task=False)
        begun.append(batch.observe())
    for seen in begun[1:]:
        alike = (seen["grid"] == begun[0]["grid"]).reshape(40, -1).all(1)
        alike &= (seen["direction"] == begun[0]["direction"]).all(1)
        assert alike[1::2].all()
        assert alike[::2].sum() < 5


def test_a_reset_step_shows_how_an_attempt_ended():
    """The same worlds with and without: the step after an attempt's end pays nothing and changes nothing."""
    names = "simple-r1-6x6-steps9", "simple-r1-6x6-steps9-reset-step"
    batch, random = xgrid.make_mixed_batch(names, "train", 400), np.random.default_rng(3)
    for index in range(400):
        batch.choose(index, index % 2)
        batch.reset(index, np.random.default_rng(index // 2))
    over, paid = np.zeros((2, 400), bool)
    for _ in range(10):
        before = batch.observe()["grid"]
        reward, terminated, _ = batch.step(np.repeat(random.integers(6, size=200), 2))
        after = batch.observe()["grid"]
        plain, late = terminated[::2] & ~over[::2], terminated[1::2] & ~over[1::2]
        np.testing.assert_array_equal(late, paid[1::2])  # those that ended one step before
        np.testing.assert_array_equal(before[1::2][late], after[1::2][late])
        assert not reward[1::2][late].any()
        paid = np.zeros(400, bool)
        paid[1::2] = plain
        np.testing.assert_array_equal(reward[1::2][plain], reward[::2][plain])
        over |= terminated
    assert over.all()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("small", "expected BENCHMARK-rROOMS-WIDTHxHEIGHT"),
        ("tiny-r1-9x9", "one of simple, trivial, small, medium, deep"),
        ("small-r3-9x9", "expected 1, 2, 4, 6 or 9 rooms, got 3"),
        ("deep-r1-7x7", "make the grid larger"),
        ("small-r1-9x9-view0", "expected an odd view, got 0"),
    ],
)
def test_names_of_tasks_that_mean_nothing(task, words):
    with pytest.raises(envs.UnknownEnvironmentError, match=words):
        envs.make_task("xgrid", task)


def test_tasks_of_two_views_cannot_be_mixed():
    with pytest.raises(envs.UnknownEnvironmentError, match=r"expected tasks of one view, got views \[5, 7\]"):
        xgrid.make_mixed_batch((TASK, "small-r1-9x9-view7"), "train", 2)


@pytest.mark.parametrize("task", xgrid.TASKS)
def test_listed_tasks_are_made(task):
    env = envs.make_task("xgrid", task, "test")
    observation, _ = env.reset(seed=0)
    assert observation["grid"].shape == (5, 5, 2)
    assert observation["direction"].sum() == 1
