"""A trained policy, used without the training stack."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import twohot
import twohot.losses
from network_formulas import all_logits
from small import quiet, with_epochs
from twohot.envs import reset_where
from twohot.inference.agent import ActingError, load_networks
from twohot.runs import checkpoint
from twohot.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mine"
    train(with_epochs(2), path, quiet())
    return path


def played(agent, rows=3, steps=70, greedy=False):
    """Actions of a loop that a user would write."""
    environments = agent.make_environments(rows)
    observation, _ = environments.reset(seed=0)
    agent.reset(rows)
    reward, actions, ends = None, [], 0
    for _ in range(steps):
        action = agent.act(observation, reward, greedy=greedy)
        actions.append(action)
        observation, reward, terminated, truncated, _ = environments.step(action)
        done = terminated | truncated
        if done.any():
            observation, _ = reset_where(environments, done)
            agent.reset(where=done)
            ends += int(done.sum())
    assert ends > rows
    return np.stack(actions)


def test_the_readme_lines_play(run):
    actions = played(twohot.Agent.from_checkpoint(run))
    assert actions.dtype == twohot.Agent.from_checkpoint(run).action_space.dtype
    assert len(np.unique(actions)) > 1
    np.testing.assert_array_equal(actions, played(twohot.Agent.from_checkpoint(run)))
    assert not np.array_equal(actions, played(twohot.Agent.from_checkpoint(run, seed=1)))


def test_it_acts_as_the_networks_do_on_the_whole_trial(run):
    agent = twohot.Agent.from_checkpoint(checkpoint.latest(run))
    _, networks = load_networks(run)
    environments = agent.make_environments(2)
    observation, _ = environments.reset(seed=1)
    agent.reset(2)
    seen, actions, rewards, reward = [observation], [np.zeros(2, np.int64)], [np.zeros(2, np.float32)], None
    for step in range(12):
        action = agent.act(observation, reward, greedy=True)
        inputs = [torch.from_numpy(np.stack(x, 1)) for x in (seen, actions, rewards)]
        with torch.no_grad():
            h = networks.encode({"observation": inputs[0]}, *inputs[1:], torch.arange(step + 1).expand(2, -1))
            expected = networks.actor.acting(h[:, -1]).mode()
        assert action.tolist() == expected.tolist()
        observation, reward, terminated, truncated, _ = environments.step(action)
        if (terminated | truncated).any():
            break
        seen, actions, rewards = [*seen, observation], [*actions, action], [*rewards, np.float32(reward)]
    assert step > 5


def test_rows_that_begin_anew_forget_and_the_others_do_not(run):
    agent = twohot.Agent.from_checkpoint(run)
    noise = np.random.default_rng(0).standard_normal((3, 2, *agent.observation_space["observation"].shape))

    def seen(where, reward):
        agent.reset(2)
        agent.act(noise[0])
        agent.act(noise[1], np.ones(2))
        agent.reset(where=where)
        agent.act(noise[2], reward)
        return agent._state.time.tolist(), agent._state.cache

    times, cache = seen(np.array([False, True]), np.array([1.0, np.nan]))
    assert times == [3, 1]
    kept = cache.cache_position.tolist()
    assert kept == [3, 1]
    assert seen(None, np.full(2, np.nan))[0] == [1, 1]  # whoever has just begun has no reward
    assert seen(np.zeros(2, bool), np.ones(2))[0] == [3, 3]


def test_what_does_not_fit_is_said(run):
    agent = twohot.Agent.from_checkpoint(run)
    size = agent.observation_space["observation"].shape[0]
    with pytest.raises(ActingError, match=r"expected reset\(environments\) first"):
        agent.act(np.zeros((2, size)))
    with pytest.raises(ActingError, match="a number of environments at first"):
        agent.reset()
    with pytest.raises(ActingError, match="from 1 on"):
        agent.reset(0)
    agent.reset(2)
    with pytest.raises(ActingError, match=r"of 2 environments: expected the shape \(2, \d+\), got \(3, \d+\)"):
        agent.act(np.zeros((3, size)))
    with pytest.raises(ActingError, match=r"expected observations \['observation'\], got \['image'\]"):
        agent.act({"image": np.zeros((2, size))})
    agent.act(np.zeros((2, size)))
    with pytest.raises(ActingError, match="expected the reward of the last actions"):
        agent.act(np.zeros((2, size)))
    with pytest.raises(ActingError, match=r"reward of 2 environments: expected the shape \(2,\), got \(3,\)"):
        agent.act(np.zeros((2, size)), np.zeros(3))
    with pytest.raises(ActingError, match=r"expected `where` bool \(2,\), got int64 \(2,\)"):
        agent.reset(where=np.array([0, 1]))
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint here"):
        twohot.Agent.from_checkpoint(run.parent)


def test_acting_needs_no_training_stack(run):
    program = (
        "import sys, twohot; twohot.Agent.from_checkpoint(sys.argv[1]);"
        "wanted = {'twohot.training.train', 'twohot.learning', 'tyro', 'rich', 'tensorboard', 'matplotlib'};"
        "print(sorted(wanted & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_values_of_a_trajectory_are_those_of_one_full_pass(run):
    agent = twohot.Agent.from_checkpoint(run)
    networks = agent.networks
    stream = np.random.default_rng(0)
    size, actions = agent.observation_space["observation"].shape[0], int(agent.action_space.n)
    trajectories = [
        {
            "observation": {"observation": stream.standard_normal((length + 1, size), np.float32)},
            "action": stream.integers(actions, size=length),
            "reward": stream.standard_normal(length),
        }
        for length in (7, 12, 1)
    ]
    found = agent.get_values(trajectories)
    for values, trajectory in zip(found, trajectories, strict=True):
        length = len(trajectory["action"])
        seen = torch.from_numpy(trajectory["observation"]["observation"][None, :length])
        action = torch.from_numpy(trajectory["action"])
        reward = torch.from_numpy(trajectory["reward"]).float()
        before = torch.cat((torch.zeros(1, dtype=torch.int64), action[:-1]))[None]
        gained = torch.cat((torch.zeros(1), reward[:-1]))[None]
        with torch.no_grad():
            h = networks.encode({"observation": seen}, before, gained, torch.arange(length)[None])[0]
            logits = all_logits(networks.critics, networks.critics.state_features(h))
            q = twohot.losses.bin_expectation(logits, agent.config.agent.bins)  # [C, T, G, A]
            log_pi = networks.actor(h).log_pi
        state = (q.mean(0) * log_pi.exp()).sum(-1)
        index = action[:, None, None].expand(*log_pi.shape[:-1], 1)
        taken = q.gather(-1, index.expand(len(q), *index.shape)).squeeze(-1)
        scale = q.abs().max().item()
        for column, expected in (
            (values.action, taken.mean(0)),
            (values.spread, taken.std(0, correction=0)),
            (values.state, state),
            (values.advantage, taken.mean(0) - state),
        ):
            assert column.shape == (length, 2)
            assert np.abs(column - expected.numpy()).max() < 1e-4 * scale
        assert np.abs(values.log_prob - log_pi.gather(-1, index).squeeze(-1).numpy()).max() < 1e-4
    assert agent.get_values([]) == []
    with pytest.raises(ValueError, match="trajectory 0: expected at least 7 rows of 'reward', got 3"):
        agent.get_values([{**trajectories[0], "reward": np.zeros(3)}])
