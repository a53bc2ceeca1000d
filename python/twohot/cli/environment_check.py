"""`twohot envs --check`: what an agent would meet in an environment, and what is wrong with it."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env

from twohot.data.rollout import UniformPolicy, seeded_generator
from twohot.envs import (
    ACTION_MASK,
    Layout,
    TrialEnvironments,
    common_layout,
    get_suite,
    make_task,
    make_vector,
    reset_where,
)
from twohot.envs.checked import FAILURES
from twohot.envs.wrappers.actions import common_action_space, legal_sample, pad_actions
from twohot.errors import TwohotError
from twohot.spaces import as_dict, as_dict_space, check_action_mask, check_action_space, shape_of

ENVIRONMENTS, STEPS, ATTEMPTS = 4, 300, 2
"""Environments side by side, steps of each, and attempts of a trial, in which one is played as in training."""
OK, NOTE, WRONG = "ok", "note", "wrong"


class Found(NamedTuple):
    """A line of the check: a note is worth knowing, what is wrong has to be fixed."""

    kind: Literal["ok", "note", "wrong"]
    text: str


class _Played(NamedTuple):
    """What a few hundred steps came to: bytes of each step, rewards [steps, environments], and counts of episodes."""

    steps: list[bytes]
    rewards: np.ndarray
    terminated: int
    truncated: int
    successes: int
    seconds: float


def check(suite: str, task: str) -> Iterator[Found]:
    """Look at an environment as gymnasium's checker does, and play it as training does.

    Args:
        suite, task: as for `twohot.envs.make_task`.

    Yields:
        What was found, line by line; nothing more where it cannot be made.

    Raises:
        UnknownEnvironmentError, MissingExtraError: as `make_task`.
    """
    try:
        env = make_task(suite, task)
        layout = common_layout(suite, (task,))
        seen = as_dict_space(layout.observation)
        check_action_space(layout.action)
        check_action_mask(seen, layout.action)
    except (TwohotError, ValueError) as error:
        yield Found(WRONG, str(error))
        return
    yield Found(OK, f"it is made: observation {env.unwrapped.observation_space}, action {env.unwrapped.action_space}")
    parts = (f"{name} {part.dtype} {'x'.join(map(str, shape_of(part)))}" for name, part in seen.items())
    yield Found(OK, f"an agent sees {', '.join(parts)}")
    yield from _gymnasium_says(env)
    try:
        yield from _alone(env)
        yield from _as_trained(suite, task, layout)
    except (TwohotError, ValueError) as error:
        yield Found(WRONG, str(error))
    else:
        yield _drawing(suite, task)
    finally:
        env.close()


def _gymnasium_says(env: gym.Env) -> Iterator[Found]:
    """The findings of gymnasium's own checker."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
            failed = None
        except FAILURES as error:  # assertions, and whatever the environment raises
            failed = error
    for text in dict.fromkeys(_plain(str(warning.message)) for warning in said):
        yield Found(NOTE, f"gymnasium's checker: {text}")
    if failed is None:
        yield Found(OK, "gymnasium's checker passes")
    else:
        yield Found(WRONG, f"gymnasium's checker: {type(failed).__name__}: {_plain(str(failed))}")


def _plain(text: str) -> str:
    """A message of gymnasium without colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[\d+m", "", text).removeprefix("WARN: ").split())


def _alone(env: gym.Env) -> Iterator[Found]:
    """Steps of one environment: observations in their space, and whether each is a new array."""
    env = pad_actions(env, common_action_space([env.action_space]))
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    outside, reused = 0, False
    for _ in range(STEPS):
        outside += not env.observation_space.contains(observation)
        kept, before = observation, {name: np.copy(part) for name, part in as_dict(observation).items()}
        action = legal_sample(env.action_space, as_dict(observation).get(ACTION_MASK))
        observation, _, terminated, truncated, _ = env.step(action)
        reused |= any(not np.array_equal(as_dict(kept)[name], part, equal_nan=True) for name, part in before.items())
        if terminated or truncated:
            observation, _ = env.reset()
    if outside:
        yield Found(NOTE, f"{outside} of {STEPS} observations lie outside {env.observation_space}: widen its bounds")
    else:
        yield Found(OK, f"{STEPS} observations lie in their space")
    if reused:
        yield Found(NOTE, "observations are one array that it writes again: copied here, a trap elsewhere")


def _as_trained(suite: str, task: str, layout: Layout) -> Iterator[Found]:
    """Steps of trials side by side, as training takes them: seeds, ends, rewards, successes and speed."""
    attempts = ATTEMPTS
    try:
        vector = make_vector(suite, (task,), environments=ENVIRONMENTS, attempts=attempts, layout=layout)
    except ValueError:  # environments that begin by autoreset have one
        attempts = 1
        vector = make_vector(suite, (task,), environments=ENVIRONMENTS, layout=layout)
    try:
        first, again = _play(vector), _play(vector)
    finally:
        vector.close()
    speed = f"{ENVIRONMENTS * STEPS / first.seconds:,.0f} steps a second"
    yield Found(OK, f"{STEPS} steps of {ENVIRONMENTS} environments with {attempts} attempts a trial: {speed}")
    differs = next(
        (step for step, pair in enumerate(zip(first.steps, again.steps, strict=True)) if len({*pair}) > 1), None
    )
    if differs is None:
        yield Found(OK, "the same seeds and actions give the same steps")
    else:
        yield Found(
            WRONG,
            f"the same seeds and actions give other numbers from step {differs} on: draw all random numbers from "
            "self.np_random, which super().reset(seed=seed) makes, and keep nothing between episodes",
        )
    if first.terminated + first.truncated:
        yield Found(OK, f"trials ended: {first.terminated} terminated, {first.truncated} truncated")
    else:
        yield Found(
            NOTE,
            f"no trial ended in {STEPS} steps: an episode that never ends is cut by max_episode_steps of gym.register",
        )
    low, high = first.rewards.min(), first.rewards.max()
    yield Found(
        OK if low < high else NOTE, f"rewards from {low:g} to {high:g}" + ("" if low < high else " by random play")
    )
    if first.successes:
        yield Found(OK, f"{first.successes} attempts succeeded, by info['success']")
    elif not get_suite(suite).reports_success:
        yield Found(NOTE, "no info['success'] was true by random play: there are no success rates without one")


def _play(vector: TrialEnvironments) -> _Played:
    """Random steps of all environments from fixed seeds; trials that end begin again."""
    policy, generator = UniformPolicy(vector.single_action_space), seeded_generator(0, 0)
    observation, _ = vector.reset(seed=list(range(ENVIRONMENTS)))
    steps, rewards, counts = [_bytes(observation)], [], np.zeros(3, int)
    seconds = 0.0
    for _ in range(STEPS):
        shown = {name: torch.from_numpy(part) for name, part in as_dict(observation).items()}
        actions = policy.act(None, shown, None, torch.zeros(ENVIRONMENTS), generator=generator).numpy()
        start = time.perf_counter()
        observation, reward, terminated, truncated, info = vector.step(actions)
        seconds += time.perf_counter() - start
        steps.append(_bytes(observation, reward, terminated, truncated))
        rewards.append(reward)
        if (done := terminated | truncated).any():
            counts += terminated.sum(), truncated.sum(), info["attempt_success"][done].sum()
            observation, _ = reset_where(vector, done)
    terminated, truncated, successes = counts.tolist()
    return _Played(steps, np.array(rewards), terminated, truncated, successes, seconds)


def _bytes(observation: Any, *arrays: np.ndarray) -> bytes:
    return b"".join(part.tobytes() for part in (*as_dict(observation).values(), *arrays))


def _drawing(suite: str, task: str) -> Found:
    """Whether there can be videos."""
    from twohot.training.video import DrawingError, as_frame

    try:
        env = make_task(suite, task, render=True)
        try:
            env.reset(seed=0)
            height, width, _ = as_frame(env.render() if env.render_mode == "rgb_array" else None).shape
        finally:
            env.close()
    except DrawingError as error:
        return Found(NOTE, f"{error}, so there are no videos: `render()` where it is made with render_mode='rgb_array'")
    except Exception as error:  # of any graphics library
        return Found(NOTE, f"it cannot be drawn here, so there are no videos: {error}")
    return Found(OK, f"it draws images of {height} x {width}")
