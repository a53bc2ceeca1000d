"""Videos of an evaluation: one animated GIF for each task that draws images."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.envs import Layout, TrialVector, get_suite, make_vector
from twohot.errors import TwohotError
from twohot.evaluate import EVALUATION_STREAM
from twohot.files import replacing
from twohot.rollout import Policy, Rollout, Start, seeded_generator

FRAMES = 1200
"""Frames of a video at most."""
DRAWING_SECONDS = 60
"""What the frames of a video may take to draw, about: where they take longer, only every so many steps is drawn."""
FRAMES_A_SECOND = 15
SMALLEST_SIDE = 256
"""Pixels of the shorter side, at least: smaller images are magnified by a whole factor."""


class DrawingError(TwohotError):
    """An environment that should draw images failed to."""


def record(
    policy: Policy,
    environment: EnvironmentConfig,
    evaluation: EvaluateConfig,
    directory: Path,
    *,
    layout: Layout,
    seed: int,
    device: str = "cpu",
    greedy: bool = False,
) -> Iterator[str]:
    """Play one trial of every task and write what it looked like to `directory/TASK.gif`.

    Tasks held out, and the split "test" where it is evaluated, have videos of their own: `TASK-test.gif`.

    Args:
        policy, environment, evaluation, layout, seed, device, greedy: as for `twohot.evaluate.evaluate_all`.
        directory: made where it is missing.

    Yields:
        A sentence for each task: its file, or why there is none.
    """
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo would ask for a window
    splits = get_suite(environment.suite).splits
    jobs = [(task, split) for split in evaluation.splits for task in environment.tasks]
    jobs += [(task, splits[-1]) for task in evaluation.held_out_tasks]
    for task, split in jobs:
        one = replace(environment, tasks=(task,), reward_multipliers=())
        try:
            frames = _film(policy, one, split, layout, seed, device, greedy, evaluation.step_limit)
        except DrawingError as error:
            yield f"{task}: {error}"
            continue
        directory.mkdir(parents=True, exist_ok=True)
        name = task.replace("/", "-") + ("-test" if split == "test" else "")
        yield str(write_gif(frames, directory / f"{name}.gif"))


def _film(
    policy: Policy,
    environment: EnvironmentConfig,
    split: str,
    layout: Layout,
    seed: int,
    device: str,
    greedy: bool,
    step_limit: int,
) -> list[np.ndarray]:
    """The frames of one trial.

    Raises:
        DrawingError: the suite draws no images, or fails to.
    """
    vector = make_vector(
        **asdict(environment), environments=1, split=split, layout=layout, step_limit=step_limit, render=True
    )
    standing = Start(np.zeros(1, bool))
    generator = seeded_generator(seed, EVALUATION_STREAM)
    rollout = Rollout(vector, policy, generator=generator, device=device, greedy=greedy, follow=lambda ended: standing)
    try:
        rollout.restart([seed])
        frames, over, stride = _draw(vector), False, 1
        while not over and len(frames) < FRAMES:
            over = bool(rollout.collect(stride))
            start = time.perf_counter()
            frames += _draw(vector)
            if len(frames) == 2:  # the first one opened the graphics library
                stride = max(1, math.ceil((time.perf_counter() - start) * FRAMES / DRAWING_SECONDS))
        return frames
    finally:
        vector.close()


def _draw(vector: TrialVector) -> list[np.ndarray]:
    try:
        frames = [*vector.render()]
    except Exception as error:  # of any graphics library
        raise DrawingError(f"cannot be drawn here ({type(error).__name__}: {error})") from error
    if frames[0] is None:
        raise DrawingError("draws no images")
    return frames


def write_gif(frames: Sequence[np.ndarray], path: Path, frames_a_second: float = FRAMES_A_SECOND) -> Path:
    """Write an animation that is there whole or not at all.

    Args:
        frames: uint8 [H, W, 3] each. path: file to write.
        frames_a_second: speed.
    """
    factor = max(1, math.ceil(SMALLEST_SIDE / min(frames[0].shape[:2])))
    images = [Image.fromarray(frame.repeat(factor, 0).repeat(factor, 1)) for frame in frames]
    with replacing(path) as partial:
        milliseconds = round(1000 / frames_a_second)
        images[0].save(partial, format="GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return path
