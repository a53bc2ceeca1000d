"""Rows in processes give what rows in this process give, and survive the death of a worker."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import small
import toy_suite
from twohot import envs
from twohot.cli import environment_check
from twohot.config import EnvironmentConfig
from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import registry
from twohot.envs.vector import make as vector_module
from twohot.errors import TwohotError
from twohot.replay import Replay
from twohot.rl.exploration import Exploration, Schedule
from twohot.training.evaluate import evaluate
from twohot.training.train import train

preloaded = pytest.mark.usefixtures("preloaded_workers")


@pytest.fixture(autouse=True)
def counters(monkeypatch):
    monkeypatch.setattr(registry, "_SUITES", {**registry.registered_suites(), "counters": toy_suite.COUNTERS})
    monkeypatch.setattr(vector_module, "cpus", lambda: 2)


@pytest.fixture
def make():
    made = []

    def make_vector(workers, tasks=("2", "3"), environments=3, **options):
        made.append(envs.make_vector("counters", tasks, environments=environments, workers=workers, **options))
        return made[-1]

    yield make_vector
    for vector in made:
        vector.close()


def trace(vector, steps, avoid=()):
    """Everything that comes out of some steps, as plain values."""
    observation, info = vector.reset(seed=[4, 5, 6])
    out = [observation, info]
    actions = np.random.default_rng(0)
    for _ in range(steps):
        result = vector.step(actions.integers(2, size=3))
        out.append(result)
        done = result[2] | result[3]
        if done.any():
            out.append(envs.reset_where(vector, done))
    return out


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_workers_to_its_parent(make, caplog):
    vector = make("processes")
    vector.reset(seed=0)
    before = [process.pid for process in vector.trials.processes]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(TwohotError, match="belong to the process that was forked"):
                vector.step(np.zeros(3, np.int64))
            vector.close()
            multiprocessing.util._exit_function()  # what an ordinary end runs
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    vector.step(np.zeros(3, np.int64))
    assert [process.pid for process in vector.trials.processes] == before
    assert not caplog.records


def test_processes_give_what_this_process_gives(make):
    apart, here = make("processes", attempts=2, render=True), make("in-process", attempts=2, render=True)
    assert isinstance(apart.trials, envs.Workers)
    assert len(apart.trials.processes) == 2
    np.testing.assert_equal(trace(apart, 25), trace(here, 25))
    np.testing.assert_equal(apart.render(), here.render())
    assert apart.render()[0].shape == (8, 8, 3)
    apart.close()
    assert [process.exitcode for process in apart.trials.processes] == [0, 0]


def test_a_signal_while_a_worker_starts_leaves_this_process_able_to_hear(make, monkeypatch):
    set_mask = signal.pthread_sigmask

    def interrupted(how, mask):
        before = set_mask(how, mask)
        if how == signal.SIG_BLOCK and mask:
            raise KeyboardInterrupt  # the handler of a signal that was heard before it was blocked
        return before

    before = set_mask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make("processes")
    left = set_mask(signal.SIG_SETMASK, before)
    assert left == before


@preloaded
def test_a_death_loses_only_the_worker_s_open_trials(make, caplog):
    vector = make("processes", ("50",))
    observation, _ = vector.reset(seed=[1, 2, 3])
    (dead,) = (worker for worker, rows in enumerate(vector.trials.slices) if rows.start == 0)
    rows = np.arange(3) < vector.trials.slices[dead].stop
    before = vector.step(np.zeros(3, int))[0]["number"]
    with caplog.at_level(logging.WARNING, "twohot"):
        observation, reward, terminated, truncated, info = vector.step(np.where(np.arange(3) == 0, toy_suite.DIE, 1))
    (message,) = caplog.messages
    assert "the worker of environments 0 to 0 died (exit code 7)" in message
    np.testing.assert_array_equal(info["interrupted"], rows)
    np.testing.assert_array_equal(info["_task"], rows)
    assert not (terminated | truncated).any()
    assert not reward[rows].any()
    assert (observation["number"][rows, 1] == 0).all()
    assert (observation["number"][rows, 0] != before[rows, 0]).all()
    np.testing.assert_array_equal(observation["number"][~rows], before[~rows] + np.float32([0, 1]))
    assert (reward[~rows] > 1).all()
    observation = vector.step(np.zeros(3, int))[0]
    np.testing.assert_array_equal(observation["number"][:, 1], np.where(rows, 1, 3))


class Scripted(UniformPolicy):
    """The first environment dies at the seventh step."""

    calls = 0

    def act(self, state, observation, previous_action, previous_reward, **options):
        actions = super().act(state, observation, previous_action, previous_reward, **options).clamp(max=1)
        self.calls += 1
        self.shown = previous_reward.clone()
        if self.calls == 7:
            actions[0] = toy_suite.DIE
        return actions


@preloaded
def test_a_rollout_drops_the_lost_trajectory_and_goes_on(make):
    vector = make("processes", ("50",), environments=2)
    replay = Replay.create(
        replay_schema(vector.single_observation_space, vector.single_action_space), capacity_steps=1000
    )
    policy = Scripted(vector.single_action_space)
    rollout = Rollout(vector, policy, generator=seeded_generator(0, 0), writer=replay.writer(2))
    rollout.restart([1, 2])
    assert rollout.collect(7) == []
    rollout.collect(1)
    assert (policy.shown == 0).tolist() == [True, False]
    rollout.collect(46)
    rollout.writer.cut()
    stored = [replay.get(index) for index in range(replay.stats().trajectories)]
    assert sorted(len(item["reward"]) for item in stored) == [4, 47, 50]
    for item in stored:
        number = item["observation"]["number"]
        assert (number[:, 0] == number[0, 0]).all()
        np.testing.assert_array_equal(number[:, 1], np.arange(len(number)))


@preloaded
def test_an_exception_of_an_environment_is_no_death(make, caplog):
    vector = make("processes", ("3",))
    vector.reset(seed=[1, 2, 3])
    with pytest.raises(envs.BrokenEnvironmentError, match="'3' raised ZeroDivisionError in `step`: asked for") as told:
        vector.step(np.array([0, 0, toy_suite.RAISE]))
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert 'raise ZeroDivisionError("asked for")' in str(told.value.__cause__.__cause__)
    assert not caplog.messages


@preloaded
def test_a_worker_that_always_dies_ends_in_a_sentence(make):
    vector = make("processes", ("2", "0"), environments=2)
    with pytest.raises(envs.DeadWorkerError, match=r"environments 0 to 0 died \(exit code 9\), 3 times in a row"):
        vector.reset(seed=[1, 2], options={"task": "0"})


def locked():
    """A lambda that makes an environment, and holds what no other process can have."""
    lock = threading.Lock()
    return lambda task, split, render=False: lock.locked() or toy_suite.Counter(task)


def test_what_cannot_be_sent_to_a_process_is_named(make, monkeypatch, caplog):
    monkeypatch.setitem(registry._SUITES, "counters", envs.Suite("counters", "", (), "", ("2",), locked()))
    with pytest.raises(envs.WorkerError, match=r"'counters' cannot be played in processes .* collect.workers"):
        make("processes", ("2",))
    monkeypatch.setattr(vector_module, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(vector_module, "_stays", set())
    monkeypatch.setattr(toy_suite.Counter, "action_space", spaces.Discrete(2))
    for _ in range(2):
        assert make("auto", ("2",)).workers == "in-process"
    (message,) = caplog.messages  # said once
    assert message.startswith("collect.workers auto stays in this process")
    assert "cannot pickle '_thread.lock' object" in message


@preloaded
@pytest.mark.parametrize(("here", "apart", "processes"), [(1e-4, 0.0, False), (0.5, 0.1, True), (0.5, 0.6, False)])
def test_the_faster_way_is_found(make, monkeypatch, here, apart, processes):
    timed = []

    def seconds_a_step(vector):
        timed.append(vector)
        return apart if isinstance(vector.trials, envs.Workers) else here

    monkeypatch.setattr(vector_module, "seconds_a_step", seconds_a_step)
    vector = make("auto")
    assert isinstance(vector.trials, envs.Workers) == processes
    assert len(timed) == 1 + (here > 1e-3)
    if processes:
        return
    for loser in timed[1:]:
        assert not any(process.is_alive() for process in loser.trials.processes)


class Strict(gym.Env):
    """Raises where an action is illegal."""

    def __init__(self, action_space, mask, legal):
        self.action_space, self.mask, self.legal, self.render_mode = action_space, np.array(mask, np.int8), legal, None
        self.observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(len(mask))})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"action_mask": self.mask}, {}

    def step(self, action):
        if np.ravel(action).tolist() not in self.legal:
            raise ValueError(f"illegal: {action}")
        return {"action_mask": self.mask}, 0.0, bool(self.np_random.random() < 0.3), False, {}


STRICT = [
    (spaces.Discrete(4, start=5), [1, 0, 1, 0], [[5], [7]]),
    (spaces.MultiDiscrete([2, 3], start=[0, -1]), [0, 1, 1, 0, 1], [[1, -1], [1, 1]]),
    (spaces.MultiBinary(3), [1, 0, 1], [[0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]]),
]


@pytest.mark.parametrize(("space", "mask", "legal"), STRICT)
def test_steps_are_timed_with_legal_actions(monkeypatch, space, mask, legal):
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    envs.register(envs.Suite("strict", "", (), "", ("a",), lambda *_, **__: Strict(space, mask, legal)))
    vector = envs.make_vector("strict", ("a",), environments=2, render=True)
    assert 0 < vector_module.seconds_a_step(vector) < 1
    found = list(environment_check._alone(envs.make_task("strict", "a")))
    assert found[0].kind == "ok"


def test_steps_are_timed_over_trials_that_end(make, monkeypatch):
    monkeypatch.setattr(toy_suite.Counter, "action_space", spaces.Discrete(2))
    assert 0 < vector_module.seconds_a_step(make("in-process", ("2",))) < 1


@preloaded
def test_a_suite_of_one_environment_in_a_process_has_one_each(make, monkeypatch):
    suite = envs.Suite("counters", "", (), "", ("2", "3"), toy_suite.make, one_per_process=True)
    monkeypatch.setitem(registry._SUITES, "counters", suite)
    assert len(make("in-process").trials.processes) == 3
    assert isinstance(make("processes", environments=1).trials, envs.Workers)
    assert isinstance(make("in-process", environments=1).trials, envs.SerialEnvironments)


# rows in either


def test_a_finished_row_stands_still_until_it_is_reset(make):
    vector = make("in-process", ("2", "3"))
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    vector.reset(seed=0, options={"task": ["2", "3", "3"]})
    ones = np.ones(3, int)
    vector.step(ones)
    last, _, terminated, _, info = vector.step(ones)
    assert terminated.tolist() == [True, False, False]
    still, reward, terminated, _, _ = vector.step(np.full(3, 1))
    np.testing.assert_array_equal(still["number"][0], last["number"][0])
    assert reward[0] == 0
    assert terminated.tolist() == [False, True, True]
    vector.step(np.full(3, toy_suite.RAISE))
    fresh, info = envs.reset_where(vector, np.array([True, False, False]), ["3", None, None])
    assert (fresh["number"][0, 1], info["task"][0]) == (0, 1)


def test_tasks_are_dealt_out_in_turn(make):
    vector = make("in-process", ("2", "3"), assignment="fixed")
    drawn = {tuple(vector.reset(seed=seed)[1]["task"].tolist()) for seed in range(5)}
    assert drawn == {(0, 1, 0)}
    vector = make("in-process", ("2", "3", "50"), environments=2, assignment="fixed")
    drawn = np.array([vector.reset(seed=seed)[1]["task"] for seed in range(20)])
    assert set(drawn[:, 0]) == {0, 2}
    assert set(drawn[:, 1]) == {1}


def test_a_trial_is_cut_at_the_limit(make):
    vector = make("in-process", ("50",), environments=1, attempts=2, step_limit=60)
    vector.reset(seed=0)
    for step in range(60):
        _, _, terminated, truncated, info = vector.step(np.ones(1, int))
        assert (terminated[0], truncated[0]) == (False, step == 59)
    np.testing.assert_array_equal(info["attempt_lengths"], [[50, 10]])


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.zeros(3, bool), ValueError, "at least one True"),
        (np.ones(2, bool), ValueError, "of shape"),
        (np.ones(3, int), TypeError, "bool array"),
        ([True] * 3, TypeError, "bool array"),
    ],
)
def test_a_mask_is_checked(make, mask, error, message):
    vector = make("in-process")
    with pytest.raises(error, match=message):
        vector.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="expected 3 seeds"):
        vector.reset(seed=[1, 2])


def test_exploration_goes_through_a_rollout(make):
    vector = make("in-process", ("50",))
    exploration = Exploration(3, vector.single_action_space, Schedule(0.0, 0.0, 0), np.random.default_rng(0))
    rollout = Rollout(
        vector, Scripted(vector.single_action_space), generator=seeded_generator(0, 0), exploration=exploration
    )
    rollout.restart([1, 2, 3])
    rollout.collect(5)
    assert exploration._step.tolist() == [5, 5, 5]


@preloaded
def test_a_death_begins_no_trial_that_had_ended(make, caplog):
    vector = make("processes", ("2", "50"), environments=4)
    vector.reset(seed=[1, 2, 3, 4])
    assert vector.trials.slices[0] == slice(0, 2)
    first = np.array([True, False, False, False])
    envs.reset_where(vector, first, "2")
    envs.reset_where(vector, ~first, "50")
    ended = np.zeros(4, bool)
    while not ended[0]:
        shown, _, terminated, truncated, _ = vector.step(np.zeros(4, int))
        ended |= terminated | truncated
    np.testing.assert_array_equal(ended, first)
    with caplog.at_level(logging.WARNING, "twohot"):
        observation, *_, info = vector.step(np.array([0, toy_suite.DIE, 0, 0]))
    np.testing.assert_array_equal(info["interrupted"], [False, True, False, False])
    np.testing.assert_array_equal(observation["number"][0], shown["number"][0])


@pytest.fixture
def diary(monkeypatch, tmp_path):
    """What environments of all processes noted, as a function."""
    path = tmp_path / "diary"
    monkeypatch.setenv(toy_suite.DIARY, str(path))
    return lambda: sorted(path.read_text().split())


@pytest.mark.parametrize("workers", ["in-process", "processes"])
def test_every_environment_is_closed_at_the_end(make, diary, workers):
    vector = make(workers)
    vector.reset(seed=[1, 2, 3])
    vector.close()
    assert diary() == ["began"] * 3 + ["closed"] * 3


@pytest.mark.parametrize("workers", ["in-process", "processes"])
def test_an_evaluation_closes_its_environments(diary, workers):
    config = EnvironmentConfig(suite="counters", tasks=("2",))
    evaluate(UniformPolicy(spaces.Discrete(2)), config, trials=2, seed=0, workers=workers)
    assert diary() == ["began"] * 2 + ["closed"] * 2


def test_a_run_closes_its_environments(diary, tmp_path, monkeypatch):
    monkeypatch.setattr(toy_suite.Counter, "action_space", spaces.Discrete(2))
    config = small.with_epochs(1)
    environment = EnvironmentConfig(suite="counters", tasks=("3",))
    agent = dataclasses.replace(config.agent, excluded_keys=("image",))
    train(dataclasses.replace(config, environment=environment, agent=agent), tmp_path / "run", small.quiet())
    found = diary()
    assert found.count("began") > config.collect.environments
    assert found.count("closed") == found.count("began")
