"""A success is shown wherever an info tells of one, whatever the suite said of it beforehand."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from twohot import envs
from twohot.config import EnvironmentConfig
from twohot.data.rollout import UniformPolicy
from twohot.envs import registry
from twohot.envs.wrappers.attempts import told_success
from twohot.runs.scores import report, score_metrics
from twohot.training.evaluate import evaluate

VALUES = [
    ({"success": True}, True),
    ({"success": np.True_}, True),
    ({"success": 1.0}, True),
    ({"success": np.float32(1)}, True),
    ({"success": np.array([True])}, True),
    ({"success": np.array(1)}, True),
    ({"is_success": 1}, True),
    ({"success": None, "is_success": np.array([[1.0]])}, True),
    ({"success": False, "is_success": True}, False),
    ({"success": False}, False),
    ({"success": np.array([0.0])}, False),
    ({"success": float("nan")}, False),
    ({"is_success": np.False_}, False),
    ({"successes": True}, None),
    ({"success": None}, None),
    ({}, None),
]


class Ends(gym.Env):
    """Ends after three steps, with a given info in the last one, and reports a reset's info that means nothing."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, info, render_mode=None):
        self.info, self.render_mode = info, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {"success": self.info.get("success") is False}

    def step(self, action):
        self.time += 1
        info = self.info if self.time == 3 else {}
        return np.full(1, self.time, np.float32), 1.0, self.time == 3, False, info


class OldInfos(SyncVectorEnv):
    """`final_info` as an array of dicts."""

    def step(self, actions):
        *step, info = super().step(actions)
        if "final_info" in info:
            final = np.full(self.num_envs, None, object)
            final[:] = [self.envs[0].unwrapped.info] * self.num_envs
            info = {**info, "final_info": final}
        return *step, info


@pytest.fixture
def start(monkeypatch):
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))

    def begin(way, info, **options):
        def rows(num_envs):
            kind, mode = (OldInfos, "SAME_STEP") if way == "old" else (SyncVectorEnv, way)
            return kind([lambda: Ends(info)] * num_envs, autoreset_mode=AutoresetMode[mode])

        gym.register("Ends-v0", entry_point=lambda **_: Ends(info), vector_entry_point=rows)
        suite = "gym" if way in ("loop", "rows") else "gym_vector"
        return envs.make_vector(suite, ("Ends-v0",), environments=2, render=way == "rows", **options)

    return begin


@pytest.mark.parametrize(("info", "told"), VALUES)
@pytest.mark.parametrize("way", ["loop", "rows", "NEXT_STEP", "SAME_STEP", "DISABLED", "old"])
def test_successes_are_found_in_every_way_of_playing(start, way, info, told):
    assert told_success(info) is told
    attempts = 2 if way in ("loop", "rows", "DISABLED") else 1
    vector = start(way, info, attempts=attempts)
    vector.reset(seed=[0, 1])
    for _ in range(3 * attempts):
        results = vector.step(np.zeros(2, np.int64))[4]
    assert results["success_told"].tolist() == [told is not None] * 2
    np.testing.assert_array_equal(results["attempt_success"], np.full((2, attempts), bool(told)))
    if way != "loop":
        return
    vector.reset(seed=[0, 1])  # nothing is left of the trial before
    assert not vector._told.any()


@pytest.mark.parametrize("value", ["yes", [True, False], [[True], [True, False]], np.array([]), {}])
@pytest.mark.parametrize("way", ["loop", "rows", "NEXT_STEP"])
def test_what_is_no_truth_value_is_refused(start, way, value):
    vector = start(way, {"success": value})
    vector.reset(seed=0)
    vector.step(np.zeros(2, np.int64))
    vector.step(np.zeros(2, np.int64))
    with pytest.raises(envs.InfoError, match=r"info\['success'\]"):
        vector.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("told", [True, False, None])
def test_an_evaluation_shows_what_tasks_tell(start, told):
    start("loop", {} if told is None else {"success": told}).close()
    gym.register("Silent-v0", entry_point=lambda **_: Ends({}))
    environment = EnvironmentConfig(suite="gym", tasks=("Ends-v0", "Silent-v0"), attempts=2)
    assert not registry.get_suite("gym").reports_success
    scores = evaluate(UniformPolicy(spaces.Discrete(2)), environment, trials=3, seed=0)
    metrics = score_metrics(scores)
    assert "evaluation/success/Silent-v0" not in metrics
    assert metrics.get("evaluation/success/Ends-v0") == (None if told is None else float(told))
    assert metrics.get("evaluation/success/Ends-v0/attempt_2") == (None if told is None else float(told))
    first, second = report({"run": scores})["tasks"]
    assert ("success" in first, "success" in second) == (told is not None, False)
    json.dumps(report({"run": scores}))
