"""Atari: rewards as they are, sticky actions by the emulator's rule, and what ends an episode."""

import ale_py
import numpy as np
import pytest
from ale_py.env import AtariEnv

from twohot import envs
from twohot.envs.suites import atari


def actions(count, seed=0):
    return np.random.default_rng(seed).integers(18, size=count).tolist()


def play(env, steps, seed=0):
    """Observations and what came with them, in one row each."""
    seen = []
    for action in actions(steps, seed):
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation.tobytes(), reward, terminated, truncated))
    return seen


class Recorder:
    """An emulator that only remembers the actions of every frame."""

    def __init__(self, emulator):
        self.emulator, self.frames = emulator, []

    def act(self, action):
        self.frames.append(action)
        return 0

    def __getattr__(self, name):
        return getattr(self.emulator, name)


def test_the_games_are_those_of_ale_py():
    for_two = {"combat", "joust", "maze_craze", "warlords"}
    assert {atari._ROM_OF[task] for task in atari.TASKS} == set(ale_py.roms.get_all_rom_ids()) - for_two
    assert {"MsPacman", "TicTacToe3D", "Qbert"} <= set(atari.TASKS)
    assert set(atari.MULTI_GAME) <= set(atari.REFERENCE_SCORES) <= set(atari.TASKS)
    assert len(atari.MULTI_GAME) == 10
    assert len(atari.REFERENCE_SCORES) == 57


def test_normalised_scores():
    for game, (random, human) in atari.REFERENCE_SCORES.items():
        assert human > random
        assert atari.normalised_score(game, random) == 0
        assert atari.normalised_score(game, human) == 1
    assert atari.normalised_score("Pong", 21) == pytest.approx(1.181, abs=1e-3)
    with pytest.raises(KeyError):
        atari.normalised_score("Othello", 1)


@pytest.mark.parametrize(("game", "largest"), [("Seaquest", 20), ("CrazyClimber", 100), ("BattleZone", 1000)])
def test_rewards_are_the_emulators_unclipped(game, largest, monkeypatch):
    monkeypatch.setattr(atari, "STICKY", 0.0)
    env = envs.TrialEnv("atari", [game])
    bare = AtariEnv(
        atari._ROM_OF[game], obs_type="rgb", frameskip=5, repeat_action_probability=0.0, full_action_space=True
    )
    env.reset(seed=0)
    bare.reset(seed=0)
    rewards = []
    for action in actions(600):
        observation, reward, terminated, truncated, _ = env.step(action)
        screen, expected, ended, timed_out, _ = bare.step(action)
        assert (reward, terminated, truncated) == (expected, ended, timed_out)
        image = observation["observation"]
        assert abs(image.mean(dtype=float) - screen.mean(dtype=float)) < 2
        rewards.append(reward)
        if terminated:
            break
    assert max(rewards) >= largest


def area_weights(many, few):
    """A matrix that averages `many` pixels over the areas of `few`."""
    edges = np.arange(few + 1)[:, None] * many / few
    covered = np.clip(edges - np.arange(many), 0, 1)
    return (covered[1:] - covered[:-1]) * few / many


def test_an_observation_is_the_last_frame_averaged_over_areas():
    env = atari.Atari("Breakout", render=True)
    image, _ = env.reset(seed=0)
    for _ in range(2):
        assert env.observation_space.contains(image)
        screen = env.render()
        assert screen.shape == (210, 160, 3)
        expected = np.einsum("ah,hwc,bw->abc", area_weights(210, 84), screen, area_weights(160, 84), optimize=True)
        np.testing.assert_allclose(image, expected, atol=0.51)
        image, *_ = env.step(1)


def test_an_action_sticks_as_in_the_emulator():
    env = atari.Atari("Pong")
    env.reset(seed=0)
    env._emulator = recorder = Recorder(env._emulator)
    count = 4000
    chosen = actions(count)
    for action in chosen:
        env.step(action)
    frames = np.array([action.value for action in recorder.frames]).reshape(count, 5)
    before = np.append(frames[0, 0], frames[:-1, -1])
    wanted = np.array(chosen)
    differs = before != wanted
    # A frame keeps the action of the one before with probability .25; once an action has begun, it stays.
    for frame in range(5):
        held = (frames[:, frame] == before)[differs].mean()
        expected = atari.STICKY ** (frame + 1)
        assert abs(held - expected) < 5 * np.sqrt(expected * (1 - expected) / differs.sum())
    begun = frames == wanted[:, None]
    assert (np.maximum.accumulate(begun, 1) == begun).all()
    assert (begun | (frames == before[:, None])).all()


def test_no_action_sticks_over_a_reset(monkeypatch):
    env = atari.Atari("Pong")
    env.reset(seed=0)
    monkeypatch.setattr(atari, "STICKY", 0.0)
    env.step(2)
    env.reset()
    monkeypatch.setattr(atari, "STICKY", 1.0)
    env._emulator = recorder = Recorder(env._emulator)
    env.step(3)
    assert [action.value for action in recorder.frames] == [0] * 5


def test_nothing_but_the_seed_decides():
    env = atari.Atari("MsPacman")
    env.reset(seed=1)
    expected = play(env, 150)
    env.reset(seed=2)
    assert play(env, 150) != expected
    env.reset(seed=1)
    assert play(env, 150) == expected
    other = atari.Atari("MsPacman")
    other.reset(seed=1)
    assert play(other, 150) == expected


def test_a_lost_life_ends_nothing():
    env = atari.Atari("Breakout")
    env.reset(seed=0)
    lives = []
    while not lives or lives[-1] > 0:
        *_, terminated, truncated, _ = env.step(1)  # serves, and never moves
        lives.append(env._emulator.lives())
        assert (terminated, truncated) == (lives[-1] == 0, False)
    assert sorted(set(lives), reverse=True) == [5, 4, 3, 2, 1, 0]


def test_half_an_hour_truncates(monkeypatch):
    assert atari.FRAMES == 30 * 60 * 60
    monkeypatch.setattr(atari, "FRAMES", 100)
    env = atari.Atari("Pong")
    env.reset(seed=0)
    assert [step[2:] for step in play(env, 20)] == [(False, False)] * 19 + [(False, True)]


def test_trials_of_many_games():
    env = envs.TrialEnv("atari", atari.MULTI_GAME[:3])
    assert env.action_space.n == 18
    seen = set()
    for trial in range(16):
        observation, info = env.reset(seed=trial)
        assert env.observation_space.contains(observation)
        seen.add(info["task"])
        env.step(0)
    assert seen == {0, 1, 2}
