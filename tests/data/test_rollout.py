"""What a rollout stores is what the environments did: no dummy transition, no observation of another trial."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from twohot.data.rollout import Rollout, UniformPolicy, seeded_generator
from twohot.data.spaces import replay_schema
from twohot.envs import make_vector, reset_seeds
from twohot.replay import Replay
from twohot.spaces import as_dict_space

TASKS = ("PositionOnlyCartPoleEasy", "RepeatPreviousEasy")


class Recorder:
    """Wraps a vector environment and keeps every transition that it gave, by row, trial after trial."""

    def __init__(self, environments) -> None:
        self.inner = environments
        self.single_action_space = environments.single_action_space
        self.num_envs = environments.num_envs
        self.trials: list[list[dict]] = [[] for _ in range(self.num_envs)]

    def reset(self, *, seed=None, options=None):
        mask = np.ones(self.num_envs, bool) if options is None else options["reset_mask"].copy()
        observation, info = self.inner.reset(seed=seed, options=options)
        for row in np.flatnonzero(mask):
            trial = {"observation": [observation[row].copy()], "action": [], "reward": [], "terminated": []}
            self.trials[row].append({**trial, "task": int(info["task"][row])})
        return observation, info

    def step(self, actions):
        result = observation, reward, terminated, _, _ = self.inner.step(actions)
        for row in range(self.num_envs):
            trial = self.trials[row][-1]
            trial["observation"].append(observation[row].copy())
            trial["action"].append(int(actions[row]))
            trial["reward"].append(float(reward[row]))
            trial["terminated"].append(bool(terminated[row]))
        return result


class Spy(UniformPolicy):
    """Keeps what the policy was shown, and where its memory was reset."""

    class State:
        def __init__(self) -> None:
            self.resets: list[np.ndarray] = []

        def reset(self, mask: torch.Tensor) -> None:
            self.resets.append(mask.numpy().copy())

    def __init__(self, action_space: gym.Space) -> None:
        super().__init__(action_space)
        self.shown: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def initial_state(self, environments: int):
        self.state = self.State()
        return self.state

    def act(self, state, observation, previous_action, previous_reward, **options):
        assert state is self.state
        self.shown.append(
            tuple(x.numpy().copy() for x in (observation["observation"], previous_action, previous_reward))
        )
        return super().act(state, observation, previous_action, previous_reward, **options)


@pytest.fixture
def played():
    environments = Recorder(make_vector("popgym", TASKS, environments=4, reward_multipliers=(3.0, 0.5)))
    policy = Spy(environments.single_action_space)
    schema = replay_schema(as_dict_space(environments.inner.single_observation_space), policy.action_space)
    replay = Replay.create(schema, capacity_steps=10_000)
    rollout = Rollout(environments, policy, generator=seeded_generator(0, 0), writer=replay.writer(4))
    rollout.restart(reset_seeds(0, 0, 4))
    trials = rollout.collect(90)
    return environments, policy, replay, rollout, trials


def test_replay_holds_exactly_the_finished_trials(played) -> None:
    environments, _, replay, _, trials = played
    finished = [
        trial for row in environments.trials for trial in row if trial["terminated"] and trial["terminated"][-1]
    ]
    assert len(finished) == len(trials) == replay.stats().trajectories > 8
    stored = [replay.get(index) for index in range(len(finished))]
    key = lambda reward, action: (tuple(np.float32(reward)), tuple(action))  # noqa: E731
    by_content = {key(item["reward"], item["action"]): item for item in stored}
    assert len(by_content) == len(stored)
    for trial in finished:
        item = by_content[key(trial["reward"], trial["action"])]
        np.testing.assert_array_equal(item["observation"]["observation"], np.stack(trial["observation"]))
        np.testing.assert_array_equal(item["terminated"], trial["terminated"])
        assert not item["truncated"].any()


def test_policy_sees_the_previous_action_and_reward_of_its_own_trial(played) -> None:
    environments, policy, _, _, _ = played
    clock = [0] * 4
    position = [0] * 4
    for observation, action, reward in policy.shown:
        for row in range(4):
            trial = environments.trials[row][position[row]]
            step = clock[row]
            np.testing.assert_array_equal(observation[row], trial["observation"][step])
            assert action[row] == (trial["action"][step - 1] if step else 0)
            assert reward[row] == np.float32(trial["reward"][step - 1] if step else 0)
            clock[row] += 1
            if trial["terminated"][step]:
                clock[row], position[row] = 0, position[row] + 1
    assert np.sum(policy.state.resets) == 4 + sum(position) > 12


def test_trials_report_raw_returns(played) -> None:
    environments, _, _, _, trials = played
    for row in range(4):
        mine = [trial for trial in trials if trial.env_index == row]
        for trial, seen in zip(mine, environments.trials[row], strict=False):
            assert trial.task == seen["task"]
            multiplier = (3.0, 0.5)[trial.task]
            assert trial.attempt_returns.sum() * multiplier == pytest.approx(sum(seen["reward"]), abs=1e-5)
            assert trial.attempt_lengths.sum() == len(seen["reward"])


def test_restart_keeps_open_trials_as_truncated(played) -> None:
    environments, _, replay, rollout, _ = played
    unfinished = [row[-1] for row in environments.trials if not (row[-1]["terminated"] or [True])[-1]]
    assert unfinished
    before = replay.stats().trajectories
    rollout.restart(reset_seeds(0, 1, 4))
    assert replay.stats().trajectories == before + len(unfinished)
    last = replay.get(before)
    assert last["truncated"][-1]
    assert not last["terminated"].any()


def test_restart_plays_the_tasks_asked_for() -> None:
    environments = make_vector("popgym", TASKS, environments=4)
    rollout = Rollout(environments, UniformPolicy(environments.single_action_space), generator=seeded_generator(0, 0))
    wanted = [TASKS[1], TASKS[0], TASKS[1], TASKS[1]]
    rollout.restart(reset_seeds(3, 0, 4), wanted)
    first: dict[int, int] = {}
    for trial in rollout.collect(120):
        first.setdefault(trial.env_index, trial.task)
    assert [TASKS[first[row]] for row in range(4)] == wanted
