"""Evaluations play every trial once, on what they are told to, and disturb nobody."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import toy_suite
from twohot import envs
from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.data.rollout import UniformPolicy
from twohot.data.spaces import agent_layout
from twohot.envs import registry
from twohot.envs.vector import make as vector_module
from twohot.training import video
from twohot.training.evaluate import evaluate, evaluate_all
from twohot.training.video import record

ENVIRONMENT = EnvironmentConfig(suite="counters", tasks=("2", "3"), attempts=2)


class Ones(UniformPolicy):
    """Always action 1, which succeeds."""

    def act(self, state, observation, previous_action, previous_reward, **options):
        return torch.ones(len(previous_reward), dtype=torch.int64)


POLICY = Ones(toy_suite.Counter.action_space)


@pytest.fixture(autouse=True)
def counters(monkeypatch):
    """Everything that is made of the suite, as (task, split)."""
    made = []

    def make(task, split, render=False):
        made.append((task, split))
        env = toy_suite.Counter(task, render)
        steps.append(env)
        return env

    steps = []
    suite = dataclasses.replace(toy_suite.COUNTERS, make=make, reference_scores={"2": (1.0, 2.0)})
    monkeypatch.setattr(registry, "_SUITES", {**registry.registered_suites(), "counters": suite})
    return made


def test_every_task_has_its_trials(monkeypatch):
    monkeypatch.setattr("twohot.training.evaluate.ENVIRONMENTS", 4)
    two, three = evaluate(POLICY, ENVIRONMENT, trials=7, seed=3)
    for score, length in ((two, 2), (three, 3)):
        assert score.returns.shape == (7, 2)
        np.testing.assert_array_equal(score.lengths, length)
        assert score.successes.all()
        # Each attempt's return is length x (its random number + 1).
        assert len(set(score.returns.ravel().tolist())) == 14
    assert two.references == (1.0, 2.0)
    assert three.references is None


def test_trials_do_not_depend_on_how_many_are_side_by_side(monkeypatch):
    wide = evaluate(POLICY, ENVIRONMENT, trials=5, seed=3)
    monkeypatch.setattr("twohot.training.evaluate.ENVIRONMENTS", 3)
    narrow = evaluate(POLICY, ENVIRONMENT, trials=5, seed=3)
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(one.returns, other.returns)
    assert (evaluate(POLICY, ENVIRONMENT, trials=5, seed=4)[0].returns != wide[0].returns).all()


def test_rows_that_are_done_stand_still(monkeypatch):
    environment = dataclasses.replace(ENVIRONMENT, tasks=("2", "50"))
    stepped = []
    step = toy_suite.Counter.step
    monkeypatch.setattr(
        toy_suite.Counter, "step", lambda self, action: (stepped.append(self.length), step(self, action))[1]
    )
    evaluate(POLICY, environment, trials=3, seed=0)
    assert (stepped.count(2), stepped.count(50)) == (3 * 4, 3 * 100)


def test_a_task_that_never_ends_is_cut_off():
    environment = dataclasses.replace(ENVIRONMENT, tasks=("50",))
    (score,) = evaluate(POLICY, environment, trials=2, seed=0, step_limit=70)
    np.testing.assert_array_equal(score.lengths, [[50, 20]] * 2)


def test_splits_and_held_out_tasks_are_played_apart(counters):
    evaluation = EvaluateConfig(held_out_tasks=("50",), splits=("train", "test"))
    scores = evaluate_all(POLICY, ENVIRONMENT, evaluation, trials=2, seed=0)
    assert [(score.task, score.split, score.kind) for score in scores] == [
        ("2", "train", "evaluation"),
        ("3", "train", "evaluation"),
        ("2", "test", "held_out"),
        ("3", "test", "held_out"),
        ("50", "test", "held_out"),
    ]
    assert {("50", "test"), ("2", "test"), ("2", "train")} <= set(counters)
    assert ("50", "train") not in counters
    random = evaluate_all(POLICY, ENVIRONMENT, evaluation, trials=2, seed=0, kind="random")
    assert [(score.task, score.kind) for score in random] == [(task, "random") for task in ("2", "3", "50")]


def test_the_layout_fits_what_is_held_out(monkeypatch):
    calls = []
    monkeypatch.setattr("twohot.data.spaces.common_layout", lambda *arguments: calls.append(arguments))
    agent_layout(dataclasses.replace(ENVIRONMENT, actions=7), EvaluateConfig(held_out_tasks=("50",)))
    assert calls == [("counters", ("2", "3", "50"), 0, 7)]


def test_a_trial_whose_worker_died_is_played_again(monkeypatch):
    rows = {}

    class Dying(envs.TrialVector):
        def step(self, actions):
            observation, reward, terminated, truncated, info = super().step(actions)
            rows["steps"] = rows.get("steps", 0) + 1
            if rows["steps"] == 2:  # what a worker's death looks like: another trial, at a task drawn anew
                task = ["3", "3"]
                observation, info = self.reset(seed=[9, 9], options={"task": task})
                info["interrupted"] = np.ones(2, bool)
                return observation, reward * 0, terminated & False, truncated & False, info
            return observation, reward, terminated, truncated, info

    monkeypatch.setattr(vector_module, "TrialVector", Dying)
    scores = evaluate(POLICY, ENVIRONMENT, trials=1, seed=0)
    assert [score.lengths.tolist() for score in scores] == [[[2, 2]], [[3, 3]]]


def test_videos_show_a_trial_of_each_task(tmp_path):
    evaluation = EvaluateConfig(held_out_tasks=("50",))
    layout = agent_layout(ENVIRONMENT, evaluation)
    lines = list(record(POLICY, ENVIRONMENT, evaluation, tmp_path / "videos", layout=layout, seed=0, container="gif"))
    assert [line.rpartition("/")[2] for line in lines] == ["2.gif", "3.gif", "50-test.gif"]
    with Image.open(tmp_path / "videos" / "3.gif") as video:
        assert video.size == (256, 256)
        assert video.n_frames == 1 + 2 * 3
        assert video.info["duration"] > 0


def test_a_suite_without_images_says_so(tmp_path, monkeypatch):
    suite = dataclasses.replace(toy_suite.COUNTERS, make=lambda task, split, render: toy_suite.Counter(task))
    monkeypatch.setitem(registry._SUITES, "counters", suite)
    layout = agent_layout(ENVIRONMENT, EvaluateConfig())
    lines = list(record(POLICY, ENVIRONMENT, EvaluateConfig(), tmp_path / "videos", layout=layout, seed=0))
    assert lines == ["2: draws no images", "3: draws no images"]
    assert not (tmp_path / "videos").exists()


def test_a_suite_that_fails_to_draw_says_why(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no display")

    monkeypatch.setattr(toy_suite.Counter, "render", fail)
    layout = agent_layout(ENVIRONMENT, EvaluateConfig())
    lines = list(record(POLICY, ENVIRONMENT, EvaluateConfig(), tmp_path / "videos", layout=layout, seed=0))
    assert lines == [f"{task}: cannot be drawn here (OSError: no display)" for task in ("2", "3")]


def test_where_drawing_is_slow_some_steps_are_not_drawn(tmp_path, monkeypatch):
    clock, counts = itertools.count(step=0.125), []
    monkeypatch.setattr(video.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(video, "write_gif", lambda frames, path: counts.append(len(frames)))
    layout = agent_layout(ENVIRONMENT, EvaluateConfig())
    list(record(POLICY, ENVIRONMENT, EvaluateConfig(), tmp_path, layout=layout, seed=0, container="gif"))
    assert counts == [3, 4]  # of 4 and 6 steps the first, and then every third
