"""Random sequences of calls against the Python model, and the distributions of the sampler."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from native_model import ReplayModel, window
from twohot.replay import Field, Replay, Schema

SCHEMA = Schema({"position": Field("float32", (2,)), "level": Field("uint8")}, Field("int16", (3,)))
ROW_BYTES = [(8, 1), (1, 1), (6, 0), (4, 0), (1, 0), (1, 0)]
PLAIN = ("previous_action", "previous_reward", "time", "action", "reward", "terminated", "truncated", "mask")
flags = st.lists(st.booleans(), min_size=4, max_size=4)
rare_flags = st.lists(st.sampled_from([False, False, False, True]), min_size=4, max_size=4)


class ReplayMachine(RuleBasedStateMachine):
    """The native replay and the model go through the same calls; every value that enters is a new one."""

    @initialize(
        environments=st.integers(1, 4),
        capacity_steps=st.integers(3, 25),
        capacity_bytes=st.one_of(st.none(), st.integers(400, 4000)),
    )
    def create(self, environments, capacity_steps, capacity_bytes):
        self.environments, self.value, self.drained = environments, 0, None
        self.replay = Replay.create(SCHEMA, capacity_steps=capacity_steps, capacity_bytes=capacity_bytes, seed=7)
        self.writer = self.replay.writer(environments)
        self.model = ReplayModel(environments, capacity_steps, capacity_bytes or 10**9, ROW_BYTES)

    def observe(self):
        self.value += 1
        base = self.value * 8 + np.arange(self.environments)
        position = np.stack([base, -base], axis=1).astype(np.float32)
        return {"position": position, "level": (base % 251).astype(np.uint8)}

    def rows(self, arrays, environment):
        return {name: array[environment].copy() for name, array in arrays.items()}

    @rule(mask=flags, task=st.integers(-5, 5), poison=rare_flags)
    def begin(self, mask, task, poison):
        mask = np.array(mask[: self.environments])
        observation = self.observe()
        tasks = (task + np.arange(self.environments)).astype(np.int32)
        poison = np.array(poison[: self.environments])
        observation["position"][poison, 1] = np.nan
        active = [e for e in range(self.environments) if mask[e]]
        if any(self.model.open[e] is not None for e in active):
            with pytest.raises(RuntimeError, match="open trajectory"):
                self.writer.begin(observation, mask, tasks)
        elif (mask & poison).any():
            with pytest.raises(ValueError, match=f"'position' of environment {np.argmax(mask & poison)} is NaN"):
                self.writer.begin(observation, mask, tasks)
        else:
            self.writer.begin(observation, mask, tasks)
            for e in active:
                self.model.begin(e, self.rows(observation, e), tasks[e])

    @rule(mask=st.one_of(st.none(), flags), terminated=rare_flags, truncated=rare_flags, poison=rare_flags)
    def append(self, mask, terminated, truncated, poison):
        if mask is None:
            mask = np.array([trajectory is not None for trajectory in self.model.open])
        mask = np.array(mask[: self.environments])
        observation = self.observe()
        base = self.value * 8 + np.arange(self.environments)
        action = np.stack([base, base + 1, -base], axis=1).astype(np.int16)
        reward = (base / 2).astype(np.float32)
        poison = np.array(poison[: self.environments]) & (self.value % 3 == 0)
        reward[poison] = np.inf if self.value % 2 else np.nan
        step = (action, reward, np.array(terminated[: self.environments]), np.array(truncated[: self.environments]))
        active = [e for e in range(self.environments) if mask[e]]
        opened = [self.model.open[e] is not None for e in active]
        fitting = [self.model.fits([len(self.model.open[e][2]) + 1]) for e in active if self.model.open[e] is not None]
        if not all(opened) or not all(fitting):
            with pytest.raises((RuntimeError, ValueError), match=r"no open trajectory|whole capacity"):
                self.writer.append(*step, observation, mask)
        elif (mask & poison).any():
            with pytest.raises(ValueError, match=f"reward of environment {np.argmax(mask & poison)} is not finite"):
                self.writer.append(*step, observation, mask)
        else:
            self.writer.append(*step, observation, mask)
            for e in active:
                self.model.append(e, tuple(part[e].copy() for part in step), self.rows(observation, e))

    @rule()
    def cut(self):
        self.writer.cut()
        self.model.cut()

    @rule()
    def discard(self):
        self.writer.discard()
        self.model.discard()

    @precondition(lambda self: len(self.model.stored) > 2)
    @rule()
    def clear(self):
        self.replay.clear()
        self.model.stored.clear()

    @precondition(lambda self: len(self.model.stored) > 2)
    @rule()
    def drain(self):
        self.drained = self.replay.drain(), self.model.stored
        self.model.stored = []

    @precondition(lambda self: self.drained is not None)
    @rule()
    def extend(self):
        columns, stored = self.drained
        assert self.replay.extend(columns) == len(stored)
        for _, *trajectory in stored:
            self.model.store(*trajectory)

    @precondition(lambda self: self.model.stored)
    @rule(batch_size=st.integers(1, 5), length=st.integers(1, 12), by=st.sampled_from(["trajectory", "step"]))
    def sample(self, batch_size, length, by):
        batch = self.replay.sample(batch_size, length, by=by)
        stored = {trajectory[0]: trajectory for trajectory in self.model.stored}
        for b in range(batch_size):
            trajectory = stored[int(batch.trajectory[b])]
            start = int(batch.start[b])
            assert 0 <= start <= max(0, len(trajectory[3]) - length)
            assert batch.task[b] == trajectory[1]
            expected = window(trajectory, start, length)
            for name in PLAIN:
                np.testing.assert_array_equal(getattr(batch, name)[b], expected[name], err_msg=name)
            for name, array in batch.observation.items():
                np.testing.assert_array_equal(array[b], expected["observation"][name], err_msg=name)

    @invariant()
    def equal_contents(self):
        stored, stats = self.model.stored, self.replay.stats()
        lengths = [len(steps) for *_, steps in stored]
        assert (stats.trajectories, stats.steps) == (len(stored), sum(lengths))
        assert stats.bytes == sum(map(self.model.bytes, lengths))
        assert stats.evicted_trajectories == len(self.model.evicted)
        assert stats.evicted_steps == sum(len(steps) for *_, steps in self.model.evicted)
        assert stats.open_trajectories == sum(trajectory is not None for trajectory in self.model.open)
        assert self.replay.lengths().tolist() == lengths
        assert self.replay.tasks().tolist() == [task for _, task, *_ in stored]
        returns = [sum(float(step[1]) for step in steps) for *_, steps in stored]
        assert self.replay.returns().tolist() == returns
        for trajectory in stored:
            columns = self.replay.get(trajectory[0])
            for name in SCHEMA.observation:
                np.testing.assert_array_equal(columns["observation"][name], [row[name] for row in trajectory[2]])
            for index, name in enumerate(("action", "reward", "terminated", "truncated")):
                np.testing.assert_array_equal(columns[name], [step[index] for step in trajectory[3]], err_msg=name)


ReplayMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestReplayMachine = ReplayMachine.TestCase


def chi_square_bound(degrees):
    """A bound that a chi-square variable of `degrees` degrees of freedom exceeds with probability below 1e-9.

    P(X >= k + 2 sqrt(k x) + 2 x) <= exp(-x) (Laurent and Massart, 2000, Lemma 1), with x = 9 ln 10.
    """
    x = 9 * np.log(10)
    return degrees + 2 * np.sqrt(degrees * x) + 2 * x


def assert_law(counts, probabilities):
    """Pearson's statistic of `counts` is below the bound; at least 50 are expected in each cell."""
    counts, expected = np.asarray(counts), np.sum(counts) * np.asarray(probabilities)
    assert expected.min() >= 50
    assert ((counts - expected) ** 2 / expected).sum() < chi_square_bound(len(expected) - 1)


def filled(lengths, seed=0, threads=2):
    replay = Replay.create(SCHEMA, capacity_steps=sum(lengths), seed=seed, threads=threads)
    for length in lengths:
        replay.add(
            {"position": np.zeros((length + 1, 2), np.float32), "level": np.zeros(length + 1, np.uint8)},
            np.zeros((length, 3), np.int16),
            np.zeros(length, np.float32),
            np.arange(length) == length - 1,
            np.zeros(length, bool),
        )
    return replay


LENGTHS = [1, 2, 3, 10, 29, 64, 7, 1, 40, 12, 5]


@pytest.mark.parametrize("by", ["trajectory", "step"])
def test_law_of_trajectories(by):
    """Uniform, or in proportion to steps, also where an eviction has moved the index: the 50 steps leave."""
    replay = filled([50, *LENGTHS, 3])
    replay.add(**replay.get(1))
    stored = replay.lengths()
    assert stored.tolist() == [*LENGTHS, 3, 1]
    counts = np.zeros(len(stored), int)
    batch = replay.batch(4096, 1)
    for _ in range(20):
        replay.sample(4096, 1, by=by, out=batch)
        counts += np.bincount(batch.trajectory - 1, minlength=len(stored))
    assert_law(counts, stored / stored.sum() if by == "step" else np.full(len(stored), 1 / len(stored)))


@pytest.mark.parametrize("by", ["trajectory", "step"])
@pytest.mark.parametrize("length", [1, 6, 17])
def test_law_of_starts(by, length):
    """The start is uniform over 0 .. max(0, T - length) whatever the trajectory."""
    replay = filled([5, 17, 30])
    batch = replay.batch(4096, length)
    counts = np.zeros((3, 30), int)
    for _ in range(20):
        replay.sample(4096, length, by=by, out=batch)
        np.add.at(counts, (batch.trajectory, batch.start), 1)
    for count, steps in zip(counts, [5, 17, 30], strict=True):
        starts = max(0, steps - length) + 1
        assert count[0] > 0
        assert not count[starts:].any()
        if starts > 1:
            assert_law(count[:starts], np.full(starts, 1 / starts))


def test_start_and_trajectory_are_independent_of_the_place_in_the_batch():
    """Every place of a batch sees the same distribution, and neighbours are drawn independently."""
    replay = filled([9] * 8)
    batch = replay.batch(16, 9)
    pairs = np.zeros((8, 8), int)
    places = np.zeros((16, 8), int)
    for _ in range(2000):
        replay.sample(16, 9, out=batch)
        np.add.at(pairs, (batch.trajectory[:-1:2], batch.trajectory[1::2]), 1)
        places[np.arange(16), batch.trajectory] += 1
    assert_law(pairs.ravel(), np.full(64, 1 / 64))
    assert_law(places.ravel(), np.full(128, 1 / 128))
