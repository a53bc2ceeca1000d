"""`twohot envs --check` tells a newcomer what is wrong with an environment."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from twohot.cli import main as cli


class Good(gym.Env):
    """Ends after five steps, succeeds now and then, and draws."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space, action_space = spaces.Box(-9.0, 9.0, (3,), np.float32), spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), {}

    def show(self):
        return self.np_random.random(3).astype(np.float32)

    def step(self, action):
        self.steps += 1
        return self.show(), float(action), self.steps == 5, False, {"success": bool(action)}

    def render(self):
        return np.zeros((8, 6, 3), np.uint8)


class Unseeded(Good):
    """Draws random numbers that no seed sets."""

    draw = np.random.default_rng()

    def show(self):
        return self.draw.random(3).astype(np.float32)


class Reused(Good):
    """Shows the same array again, never ends or succeeds, gives no reward, and leaves its space."""

    def show(self):
        if not self.steps:
            self.shown = np.zeros(3, np.float32)
        self.shown += 1
        return self.shown

    def step(self, action):
        self.steps += 1
        return self.show(), 0.0, False, False, {}

    render = gym.Env.render


class Old(Good):
    """Resets in the old style."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class Words(Good):
    """Shows text, which no agent reads."""

    observation_space = spaces.Text(5)


class Raises(Good):
    """Raises after a while."""

    def step(self, action):
        if self.np_random.random() < 0.1:
            raise RuntimeError("out of\nmemory")
        return super().step(action)


class Exits(Good):
    """Ends the process."""

    def step(self, action):
        raise SystemExit(3)


class Both(Good):
    """Takes two actions at once."""

    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3)))


class Spaceless(gym.Env):
    """Says nothing of what it shows and takes."""


@pytest.fixture
def check(capsys):
    """check(kind) gives the exit code and the lines that are printed of an environment."""

    def run(kind):
        gym.register("Checked-v0", entry_point=kind)
        code = cli.main(["envs", "--check", "Checked-v0"])
        return code, capsys.readouterr().out

    yield run
    gym.registry.pop("Checked-v0", None)


def test_nothing_is_wrong_with_a_good_environment(check):
    code, out = check(Good)
    assert code == 0, out
    assert "wrong" not in out
    assert "note" not in out
    for line in (
        "an agent sees observation float32 3",
        "gymnasium's checker passes",
        "observations lie in their space",
    ):
        assert f"  ok     {line}" in out or line in out
    for line in ("steps a second", "the same seeds and actions give the same steps", "it draws images of 8 x 6"):
        assert line in out
    assert "trials ended: " in out
    assert "attempts succeeded, by info['success']" in out
    assert "rewards from 0 to 1" in out
    assert out.endswith("An agent can be trained on it.\n")


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            Unseeded,
            ["the same seeds and actions give other numbers from step 0 on: draw all random numbers from self.np"],
        ),
        (Old, ["gymnasium's checker: AssertionError: The result returned by `env.reset()`", "GymV21Environment-v0"]),
        (Words, ["Text(1, 5"]),
        (Raises, ["gym task 'Checked-v0' raised RuntimeError in `step`: out of\\nmemory"]),
        (Exits, ["gymnasium's checker: SystemExit: 3", "gym task 'Checked-v0' raised SystemExit in `step`: 3"]),
        (Both, ["gym task 'Checked-v0': expected an action space of Discrete"]),
        (Spaceless, ["gym task 'Checked-v0': expected its observation_space to be a space of gymnasium, got none"]),
    ],
)
def test_what_is_wrong_is_said(check, kind, lines):
    code, out = check(kind)
    assert code == 1
    for line in lines:
        assert any(line in said for said in out.splitlines() if said.startswith("  wrong  ")), out
    assert out.splitlines()[-1].endswith("wrong.")


def test_what_is_worth_knowing_is_said(check):
    _, out = check(Reused)
    notes = [said.removeprefix("  note   ") for said in out.splitlines() if said.startswith("  note   ")]
    for line in (
        "observations lie outside Box(-9.0, 9.0, (3,), float32): widen its bounds",
        "observations are one array that it writes again",
        "no trial ended in 300 steps",
        "rewards from 0 to 0 by random play",
        "no info['success'] was true",
        "draws no images, so there are no videos",
    ):
        assert any(line in said for said in notes), (line, out)


def test_which_environment_is_meant(capsys, tmp_path, monkeypatch):
    assert cli.main(["envs", "--check", "popgym", "RepeatFirstEasy"]) == 0
    assert capsys.readouterr().out.startswith("popgym task 'RepeatFirstEasy'\n  ok")
    assert cli.main(["envs", "popgym", "--check", "RepeatFirstEasy"]) == 0
    assert "popgym task" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert cli.main(["envs", "--check", "no_file:Thing-v0"]) == 1
    assert "a file of the working directory" in capsys.readouterr().out
    assert cli.main(["envs", "--check", "no_suite", "Thing-v0"]) == 1
    assert "there is no suite named 'no_suite'" in capsys.readouterr().out
    for arguments in (["--check"], ["--check", "popgym"], ["--check", "gym", "a", "b"]):
        assert cli.main(["envs", *arguments]) == 2
        assert "--check: expected one environment" in capsys.readouterr().err
