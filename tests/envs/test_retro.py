"""Retro: levels by split, the player's ROMs, one emulator a process; and Airstriker, which plays here."""

from types import SimpleNamespace

import numpy as np
import pytest
import stable_retro

from twohot import envs
from twohot.envs.suites import retro

FREE = "Airstriker-Genesis-v0"


@pytest.fixture
def console(monkeypatch):
    """A console with 9 buttons, in place of the emulator, for games whose ROMs are not here."""
    state = SimpleNamespace(loaded=[], pressed=[])

    class Console:
        num_buttons = 9

        def load_state(self, level):
            state.loaded.append(level)

        def reset(self):
            return np.full((224, 240, 3), 100, np.uint8), {}

        def step(self, pressed):
            state.pressed.append(pressed)
            return np.full((224, 240, 3), 100, np.uint8), 3.0, len(state.pressed) == 20, False, {}

        def close(self):
            pass

    monkeypatch.setattr(stable_retro.data, "get_romfile_path", lambda game: "")
    monkeypatch.setattr(stable_retro, "make", lambda game, state, render_mode: Console())
    return state


@pytest.fixture(autouse=True)
def no_emulator():
    yield
    if retro.Retro._holder is not None:
        retro.Retro._holder.close()


@pytest.mark.parametrize("game", retro.TASKS)
def test_levels_exist_and_are_held_out(game):
    train, test = retro.LEVELS[game]["train"], retro.LEVELS[game]["test"]
    assert set(train + test) <= set(stable_retro.data.list_states(game))
    assert game == FREE or not set(train) & set(test)


@pytest.mark.parametrize("game", retro.MARIO)
def test_a_missing_rom_says_how_to_import_it(game):
    with pytest.raises(retro.MissingRomError, match=rf"{game} needs its ROM.*python -m stable_retro\.import FOLDER"):
        envs.TrialEnv("retro", [game])


def test_airstriker_equals_the_bare_emulator():
    bare = stable_retro.make(FREE, render_mode=None)
    bare.reset()
    actions = np.random.default_rng(0).integers(2, size=(60, 12), dtype=np.int8)
    rewards, screen = [], None
    for action in actions:
        rewards.append(0.0)
        for _ in range(8):
            screen, reward, done, _, _ = bare.step(action)
            rewards[-1] += reward
        assert not done
    bare.close()
    env = envs.TrialEnv("retro", [FREE])
    assert env.action_space.n == 12
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for action, expected in zip(actions, rewards, strict=True):
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (reward, terminated, truncated) == (expected, False, False)
    image = observation["observation"]
    for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
        assert (edge == (8, 8, 201)).all()
    np.testing.assert_allclose(image[2:-2, 2:-2].mean((0, 1)), screen.mean((0, 1)), atol=4)
    assert max(rewards) > 1


def test_eight_minutes_truncate(monkeypatch):
    assert retro.STEPS == 3600
    monkeypatch.setattr(retro, "STEPS", 3)
    env = retro.Retro(FREE)
    env.reset(seed=0)
    assert [env.step(np.zeros(12, np.int8))[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]


def test_a_process_has_one_emulator():
    assert envs.get_suite("retro").one_per_process
    first, second = retro.Retro(FREE), retro.Retro(FREE)
    first.reset(seed=0)
    second.reset(seed=0)
    second.step(np.zeros(12, np.int8))
    with pytest.raises(retro.EmulatorTakenError, match="each environment in its own process"):
        first.step(np.zeros(12, np.int8))
    first.reset(seed=0)
    first.step(np.zeros(12, np.int8))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("game", retro.MARIO)
def test_the_level_stays_over_attempts_and_changes_between_trials(console, game, split):
    env = retro.Retro(game, split)
    for trial in range(120):
        env.reset(seed=trial, options={"attempt": 0})
        env.reset(seed=trial + 1, options={"attempt": 1})
        assert console.loaded[-1] == console.loaded[-2]
    assert set(console.loaded) == set(retro.LEVELS[game][split])


def test_a_console_with_fewer_buttons(console):
    env = retro.Retro("SuperMarioBros-Nes-v0")
    env.reset(seed=0)
    action = np.arange(12) % 2
    assert env.step(action)[1] == 24.0
    assert all((pressed == action[:9]).all() for pressed in console.pressed)
    env.step(action)
    image, reward, terminated, truncated, _ = env.step(action)
    assert (reward, terminated, truncated) == (12.0, True, False)
    assert (image[0] == (191, 40, 17)).all()
    assert (image[2:-2, 2:-2] == 100).all()
