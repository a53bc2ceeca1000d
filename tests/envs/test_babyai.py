"""The BabyAI suite against minigrid's own environments and its scripted player."""

import warnings

import gymnasium as gym
import minigrid  # noqa: F401 (registers its ids)
import numpy as np
import pytest

import batched_envs
from twohot import envs
from twohot.envs.suites import babyai

OFFICIAL_BANNED = (
    *("GoToSeq", "OpenRedBlueDoorsDebug", "OpenTwoDoors", "OpenDoorsOrderN4Debug", "OpenDoorsOrder", "PutNextLocal"),
    *("PutNext", "MiniBossLevel", "BossLevel", "BossLevelNoUnlock", "SynthSeq", "SynthLoc", "Synth", "MoveTwoAcross"),
)


def bare(task):
    return gym.make(f"BabyAI-{task}-v{int(task == 'GoToObjS6')}", disable_env_checker=True).unwrapped


def decode(tokens):
    return " ".join(babyai.VOCABULARY[token - 1] for token in tokens if token)


def test_all_tasks_are_listed():
    registered = {name.removeprefix("BabyAI-")[:-3] for name in gym.registry if name.startswith("BabyAI-")}
    assert set(babyai.TASKS) == registered
    assert len(babyai.TASKS) == 96
    assert len(set(babyai.TRAIN_50)) == 50
    assert not set(babyai.TRAIN_50) & set(babyai.HELD_OUT)
    protocol = {name for name in registered if not any(banned in f"BabyAI-{name}-v0" for banned in OFFICIAL_BANNED)}
    assert set(babyai.TRAIN_50) | set(babyai.HELD_OUT) == protocol
    assert list(babyai.VOCABULARY) == sorted(babyai.VOCABULARY)


@pytest.mark.parametrize("task", ["GoToLocal", "OpenRedBlueDoors", "KeyCorridorS3R2", "GoToObjS6", "MiniBossLevel"])
def test_a_task_equals_the_bare_one(task):
    env, other = babyai.make(task), bare(task)
    draw = np.random.default_rng(0)
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        expected, _ = other.reset(seed=env.level)
        for _ in range(60):
            np.testing.assert_array_equal(observation["grid_image"], expected["image"])
            assert observation["direction"].tolist() == [float(i == expected["direction"]) for i in range(4)]
            assert decode(observation["tokens_mission"]) == expected["mission"].replace(",", "")
            action = int(draw.integers(7))
            observation, reward, done, cut, info = env.step(action)
            expected, expected_reward, terminated, truncated, _ = other.step(action)
            assert (reward, done, cut) == (expected_reward, terminated or truncated, False)
            assert info["success"] == (reward > 0)
            if done:
                break


@pytest.mark.parametrize("task", ["GoToLocal", "OpenDoorColor", "UnlockPickup", "PickupLoc"])
def test_the_scripted_player_succeeds(task):
    from minigrid.utils.baby_ai_bot import BabyAIBot

    env = babyai.make(task)
    for seed in range(5):
        env.reset(seed=seed)
        bot, action, steps, done = BabyAIBot(env.env), None, 0, False
        while not done:
            action = bot.replan(action)
            _, reward, done, _, info = env.step(action)
            steps += 1
        assert info["success"]
        assert reward == pytest.approx(1 - 0.9 * steps / env.env.max_steps)


def test_the_clock_terminates():
    env = babyai.make("GoToObjS4")
    env.reset(seed=0)
    ends = [env.step(6)[1:] for _ in range(env.env.max_steps)]
    assert [end[:3] for end in ends[:-1]] == [(0.0, False, False)] * (len(ends) - 1)
    assert ends[-1] == (0.0, True, False, {"success": False})


@pytest.mark.parametrize("split", ["train", "test"])
def test_attempts_share_a_level_and_splits_share_none(split):
    env = babyai.make("GoToLocal", split)
    levels = []
    for seed in range(300):
        first = env.reset(seed=seed)[0]
        levels.append(env.level)
        if seed < 10:
            second = env.reset(seed=seed + 1000, options={"attempt": 1})[0]
            assert env.level == levels[-1]
            for name, part in first.items():
                np.testing.assert_array_equal(part, second[name])
    low, high = (0, 5000) if split == "train" else (5000, 1_000_000)
    assert low <= min(levels) < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < max(levels) < high
    assert len(set(levels)) > 280


def test_a_trial_plays_one_level_twice(monkeypatch):
    env = envs.TrialEnv("babyai", ("GoToObjS4", "OpenRedDoor"), attempts=2, split="test")
    played = []
    reset = babyai.BabyAILevel.reset
    monkeypatch.setattr(
        babyai.BabyAILevel, "reset", lambda self, **options: (reset(self, **options), played.append(self.level))[0]
    )
    draw = np.random.default_rng(0)
    for _ in range(6):
        observation, _ = env.reset(seed=3 if not played else None)
        assert env.observation_space.contains(observation)
        assert observation["context"][1] == 0
        done = False
        while not done:
            observation, reward, done, truncated, info = env.step(draw.integers(7))
            assert not truncated
            assert 0 <= reward <= 1
        assert info["attempt_success"].tolist() == (info["attempt_returns"] > 0).tolist()
    assert played[0::2] == played[1::2]
    assert len(set(played)) == 6
    assert min(played) >= babyai.TRAIN_SEEDS


def test_level_generation_is_silent(capfd):
    for task in ("GoToImpUnlock", "OpenRedBlueDoors", "GoToObjMazeS4"):
        env = babyai.make(task)
        for seed in range(12):
            env.reset(seed=seed)
    assert capfd.readouterr().out == ""
    noisy = bare("GoToImpUnlock")
    for seed in range(12):
        noisy.reset(seed=seed)
    assert "Sampling rejected" in capfd.readouterr().out


def test_missions():
    assert decode(babyai.encode_mission("open the red door, then open the blue door", 9)).count("door") == 2
    with pytest.raises(KeyError, match="fly"):
        babyai.encode_mission("fly to the ball", 9)
    with pytest.raises(ValueError, match="at most 3 words"):
        babyai.encode_mission("go to the ball", 3)
    for task in babyai.TRAIN_50 + babyai.HELD_OUT:
        assert babyai.make(task).observation_space["tokens_mission"].shape == (9,)
    for task in babyai._LONG[::5]:
        env = babyai.make(task)
        assert env.observation_space["tokens_mission"].shape == (80,)
        for seed in range(5):
            assert env.reset(seed=seed)[0]["tokens_mission"].any()


def test_gymnasium_accepts_it():
    env = babyai.make("GoToLocal", render=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batched_envs.check(env)
    image = env.render()
    assert image.dtype == np.uint8
    assert image.ndim == 3
