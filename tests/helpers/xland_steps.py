"""The suite `xland` beside XLand-MiniGrid itself and beside the suite `xgrid`.

A program: JAX has threads, and processes that have loaded it cannot be forked. Its argument is an empty folder.
"""

from __future__ import annotations

import bz2
import io
import os
import pickle
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batched_envs import check_vectors_equal
from twohot import envs
from twohot.envs.suites import xland
from twohot.envs.xgrid import BENCHMARKS, RuleSet, XGridState, XGridVector
from twohot.errors import TwohotError

STEPS, COUNT = 30, 64


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def fails(task: str, *parts: str) -> None:
    """Making a task raises a sentence with these parts."""
    with pytest.raises(envs.UnknownEnvironmentError) as raised:
        xland.make_mixed_batch(task.split(), "train", 1)
    assert all(part in str(raised.value) for part in parts), raised.value


def names() -> None:
    fails("XLand-MiniGrid-R1-9x8-small", "did you mean", "XLand-MiniGrid-R1-9x9")
    fails("MiniGrid-DoorKey-5x5-view", "ENVIRONMENT[-BENCHMARK")
    fails("MiniGrid-DoorKey-5x5-view4", "odd view")
    fails("MiniGrid-DoorKey-5x5-small", "without rule sets")
    fails("XLand-MiniGrid-R1-9x9", "trivial, small, medium, deep", "high-3m")
    fails("XLand-MiniGrid-R1-9x9-huge", "trivial, small, medium, deep")
    fails("XLand-MiniGrid-R1-9x9-medium-depth99", "max_depth")
    fails("XLand-MiniGrid-R1-9x9-small MiniGrid-DoorKey-5x5", "tasks of one view")
    for task in xland.TASKS:
        assert xland.make_batch(task, "test", 1).reports_success


def downloads(folder: Path) -> None:
    """Files as XLand-MiniGrid writes them, without running what is in them."""
    task, name = "XLand-MiniGrid-R1-9x9-small-1m", "small-1m"
    benchmarks.DATA_PATH = str(folder)
    fails(task, "load_benchmark('small-1m')", "XLAND_MINIGRID_DATA")
    path = folder / benchmarks.NAME2HFFILENAME[name]

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "evil"),)

    benchmarks.save_bz2_pickle({"goals": Evil()}, str(path))
    fails(task, "arrays alone", "downloaded again")
    assert not (folder / "evil").exists()
    goals, rules, objects, _ = BENCHMARKS["medium"].arrays(0, 100)
    found = {"goals": goals, "rules": rules, "init_tiles": objects[:, :9], "num_rules": (rules[..., 0] > 0).sum(1)}
    benchmarks.save_bz2_pickle({key: jnp.asarray(each) for key, each in found.items()}, str(path))
    played = {}
    for split, count in (("train", 80), ("test", 20)):
        source = xland.Downloaded(name, split)
        random = generator(0)
        played[split] = {tuple(map(bytes, source.draw(random))) for _ in range(2000)}
        assert len(played[split]) == count
    assert not played["train"] & played["test"]
    own = {tuple(map(bytes, each)) for each in zip(goals, rules, objects[:, :9], strict=True)}
    assert own == played["train"] | played["test"]
    benchmarks.save_bz2_pickle(found | {"rules": rules[:50]}, str(path))
    xland.rule_sets._downloaded.cache_clear()
    fails(task, "(50, 18, 7)")
    path.write_bytes(pickle.dumps(found))
    fails(task, "downloaded again")
    damaged(path, found)


class Described:
    """Pickles as what it is given."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def damaged(path: Path, found: dict[str, np.ndarray]) -> None:
    """Whatever a file holds, it is read as arrays, or a sentence says that it cannot be; and nothing changes here."""

    def written(data: bytes) -> None:
        path.write_bytes(bz2.compress(data, 1))
        xland.rule_sets._downloaded.cache_clear()

    def refused(data: bytes, *parts: str, split: str = "train") -> None:
        written(data)
        with pytest.raises(envs.UnknownEnvironmentError) as raised:
            xland.Downloaded("small-1m", split)
        assert all(part in str(raised.value) for part in (*parts, "downloaded again")), raised.value

    for split in ("train", "test"):
        for count in range(3):
            few = pickle.dumps({key: each[:count] for key, each in found.items()})
            refused(few, f"to test on, got {count}", split=split)
        written(pickle.dumps({key: each[:3] for key, each in found.items()}))
        xland.Downloaded("small-1m", split).draw(generator(0))
    for protocol in (3, 4, 5):
        for dtype in ("u1", ">i4", "<u8"):
            for order in "CF":
                written(pickle.dumps({key: np.asarray(each, dtype, order) for key, each in found.items()}, protocol))
                read = xland.rule_sets._downloaded("small-1m")[:3]
                for ours, key in zip(read, ("goals", "rules", "init_tiles"), strict=True):
                    np.testing.assert_array_equal(ours, found[key])
    for dtype, number, part in ((np.int64, 300, "0 to 255"), (np.int16, -1, "0 to 255"), (np.float32, 1, "integers")):
        refused(pickle.dumps(found | {"goals": np.full(found["goals"].shape, number, dtype)}), part)
    reconstruct, flags = np.zeros(0).__reduce__()[0], (3, "|", None, None, None, 8, 1, 63)
    references = Described(np.dtype, ("V8", False, True), flags)
    bad = Described(reconstruct, (np.ndarray, (0,), b"b"), (1, (4,), references, False, b"A" * 32))
    refused(pickle.dumps(found | {"goals": bad}), "integers")
    eight = Described(np.dtype, ("u8", False, True), (3, "<", None, None, None, -1, -1, 63))
    made = xland.rule_sets._ArraysAlone(io.BytesIO(pickle.dumps(eight))).load()
    assert not isinstance(made, np.dtype)  # with the flags of the file
    refused(b"\x80\x04N" + b"r\xff\xff\xff\x3f.", "parts")  # a memo of 8 GiB
    refused(b"\x80\x05\x96" + (2**45).to_bytes(8, "little") + b".")  # an array of 32 TiB
    refused(pickle.dumps([None] * 2000), "parts")
    most, xland.rule_sets.MOST_BYTES = xland.rule_sets.MOST_BYTES, 1000
    refused(bytes(2000), "at most 1000 bytes")
    xland.rule_sets.MOST_BYTES = most
    raw, draw = pickle.dumps({key: each[:5] for key, each in found.items()}), generator(4)
    for _ in range(500):
        data = bytearray(raw)
        for place in draw.integers(len(raw), size=draw.integers(1, 5)):
            data[place if draw.random() < 0.2 else place % 200] = draw.integers(256)
        written(bytes(data[: draw.integers(len(raw))] if draw.random() < 0.2 else data))
        with suppress(envs.UnknownEnvironmentError):
            xland.Downloaded("small-1m", "test")


def beside_both() -> None:
    """The suite, XLand-MiniGrid as its documentation uses it, and XGridVector play the same attempts."""
    batch = xland.make_batch(f"XLand-MiniGrid-R1-9x9-small-steps{STEPS}", "train", COUNT)
    tasks = batch.games[0][1]
    env, params = xminigrid.make("XLand-MiniGrid-R1-9x9", max_steps=STEPS)
    world = XGridVector(COUNT, max_steps=STEPS, show_carried=True, autoreset_mode="Disabled")
    begin_theirs = jax.jit(jax.vmap(lambda key, rules: env.reset(params.replace(ruleset=rules), key)))
    step_theirs = jax.jit(
        jax.vmap(lambda rules, before, action: env.step(params.replace(ruleset=rules), before, action))
    )
    draw, carried, won, played = generator(5), 0, 0, []
    for attempt in range(10):
        for index in range(COUNT):
            batch.reset(index, generator(COUNT * attempt + index), new_task=attempt % 2 == 0)
        shown = batch.observe()
        rules = TheirRuleSet(goal=tasks.goals, rules=tasks.rules, init_tiles=tasks.objects)
        theirs = begin_theirs(keys(attempt), rules)
        played.append([tasks.rule_set(index) for index in range(COUNT)])
        put_into(world, batch.state(), played[-1])
        own, live = world.observe(), np.ones(COUNT, bool)
        for step in range(1, STEPS + 1):
            pocket = np.asarray(theirs.state.agent.pocket)
            carried += int(pocket.any(1)[live].sum())
            expected = np.asarray(theirs.observation).copy()
            expected[:, 4, 2] = np.where(pocket.any(1, keepdims=True), pocket, expected[:, 4, 2])
            direction = np.eye(4, dtype=np.float32)[np.asarray(theirs.state.agent.direction)]
            same(live, (shown["grid"], expected), (shown["grid"], own), (shown["direction"], direction))
            actions = draw.choice(6, COUNT, p=[0.35, 0.1, 0.1, 0.2, 0.2, 0.05])
            before, (reward, terminated, truncated) = shown, batch.step(actions)
            shown, theirs = batch.observe(), step_theirs(rules, theirs, actions)
            own, _, own_terminated, own_truncated, _ = world.step(actions)
            same(live, (reward, theirs.reward), (terminated, theirs.step_type == 2))
            same(live, (batch.success, theirs.discount == 0), (batch.success, own_terminated))
            same(live, (terminated, own_terminated | own_truncated))
            same(~live, *((shown[name], before[name]) for name in shown), (reward, np.zeros(COUNT)))
            assert not truncated.any()
            np.testing.assert_array_equal(np.rint((1 - reward[batch.success]) / 0.9 * STEPS), step)
            won += int(batch.success[live].sum())
            live &= ~terminated
        assert not live.any()
    assert won > 5, won
    assert carried > 100, carried
    assert played[0] == played[1] != played[2]
    for unseen in (False, True):
        game = xland.XLandGame("XLand-MiniGrid-R1-9x9", 0, STEPS, unseen)
        grid = np.asarray(jax.vmap(game._shown)(theirs)["grid"])
        assert (grid == np.asarray(theirs.observation)).all() == unseen


def keys(attempt: int) -> jax.Array:
    """What a batch draws from the seeds of an attempt, after the number of a task where it draws one."""
    words = np.zeros((COUNT, 2), np.uint32)
    for index in range(COUNT):
        random = generator(COUNT * attempt + index)
        if attempt % 2 == 0:
            random.integers(BENCHMARKS["small"].tasks)
        words[index] = random.integers(2**32, size=2, dtype=np.uint32)
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def put_into(world: XGridVector, state: Any, sets: list[RuleSet]) -> None:
    agent = np.zeros((COUNT, 4), np.int32)
    agent[:, :2], agent[:, 2] = state.agent.position, state.agent.direction
    start = XGridState(state.grid, agent, state.agent.pocket)
    for index, one in enumerate(sets):
        world.set_rule_set(index, one)
        world.set_state(index, start)


def same(where: np.ndarray, *pairs: tuple[Any, Any]) -> None:
    for ours, theirs in pairs:
        np.testing.assert_array_equal(np.asarray(ours)[where], np.asarray(theirs)[where])


def splits() -> None:
    random = generator(3)
    for name, benchmark in BENCHMARKS.items():
        for split in ("train", "test"):
            apart = benchmark.at_depth(1) if benchmark.shared_goals else benchmark
            source = xland.Made(apart, split)
            for _ in range(200):
                goal, rules, objects = source.draw(random)
                one = RuleSet(goal, rules[rules[:, 0] > 0], objects[objects[:, 0] > 0])
                assert one.identity & 1 == (split == "test"), name


def neighbours() -> None:
    """An environment plays the same whatever stands beside it, also where more rules are looked at; tasks are mixed."""
    tasks = (f"XLand-MiniGrid-R1-9x9-small-depth2-steps{STEPS}", f"XLand-MiniGrid-R1-9x9-small-steps{STEPS}")
    together, half = xland.make_mixed_batch(tasks, "train", COUNT), COUNT // 2
    apart = [xland.make_batch(task, "train", COUNT) for task in tasks]
    draw = generator(1)
    for index in range(COUNT):
        together.choose(index, index // half)
        for batch, own in ((together, index), (apart[index // half], index % half)):
            batch.reset(own, generator(index))
    for step in range(2 * STEPS):
        if step == STEPS // 2:  # one begins anew while the others go on
            together.reset(half + 1, generator(99), new_task=False)
            apart[1].reset(1, generator(99), new_task=False)
        shown, (first, second) = together.observe(), (batch.observe() for batch in apart)
        for name, part in shown.items():
            np.testing.assert_array_equal(part, np.concatenate([first[name][:half], second[name][:half]]))
        actions = draw.integers(6, size=COUNT)
        ours = together.step(actions), together.success
        theirs = [
            (batch.step(np.roll(actions, -shift)), batch.success) for batch, shift in zip(apart, (0, half), strict=True)
        ]
        for one, *others in zip((*ours[0], ours[1]), *((*each, success) for each, success in theirs), strict=True):
            np.testing.assert_array_equal(one, np.concatenate([other[:half] for other in others]))
    alone = apart[1]
    picture = alone.picture(1)
    assert picture.shape == (288, 288, 3)
    assert picture.std() > 10


def trials() -> None:
    """A batch of one plays its trials as an environment does."""
    task = (f"XLand-MiniGrid-R1-9x9-small-steps{STEPS}",)
    together = envs.make_vector("xland", task, environments=1, attempts=2)
    assert isinstance(together, envs.BatchedTrials)
    alone = envs.make_vector("xland", task, environments=1, attempts=2, render=True)
    assert isinstance(alone, envs.TrialVector)
    check_vectors_equal(together, alone, steps=130)


def forked() -> None:
    vector = envs.make_vector("xland", (f"XLand-MiniGrid-R1-9x9-small-steps{STEPS}",), environments=1)
    vector.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's own
        child = os.fork()
    if child == 0:
        told = 0
        for call in (lambda: vector.step(np.zeros(1, np.int64)), lambda: xland.make("MiniGrid-DoorKey-5x5")):
            try:
                call()
            except TwohotError as error:
                told += "get_context('spawn')" in str(error)
        os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    vector.step(np.zeros(1, np.int64))


if __name__ == "__main__":
    assert "jax" not in sys.modules
    assert envs.get_suite("xland").missing() == ()
    assert "jax" not in sys.modules
    import jax
    import jax.numpy as jnp
    import xminigrid
    from xminigrid import benchmarks
    from xminigrid.types import RuleSet as TheirRuleSet

    names()
    splits()
    downloads(Path(sys.argv[1]))
    beside_both()
    neighbours()
    trials()
    forked()
