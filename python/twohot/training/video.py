"""Videos of an evaluation: an MP4 or an animated GIF for each task that draws images."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.data.rollout import Policy, Rollout, Start, seeded_generator
from twohot.envs import Layout, MissingExtraError, TrialEnvironments, get_suite, make_vector
from twohot.errors import TwohotError
from twohot.extras import here
from twohot.files import atomic_write
from twohot.text import file_stems
from twohot.training.evaluate import EVALUATION_STREAM

FRAMES = 1200
"""Frames of a video at most."""
DRAWING_SECONDS = 60
"""What the frames of a video may take to draw, about: where they take longer, steps are left out."""
FRAMES_A_SECOND = 15
MIN_SIDE = 256
"""Pixels of the shorter side, at least: smaller images are magnified by a whole factor."""
Container = Literal["auto", "gif", "mp4"]


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
    container: Container = "auto",
) -> Iterator[str]:
    """Play one trial of every task and write what it looked like to `directory/TASK.mp4` or `.gif` (see `file_stems`).

    Tasks held out, and the split "test" where it is evaluated, have videos of their own: `TASK-test.mp4`.

    Args:
        policy, environment, evaluation, layout, seed, device, greedy: as for `twohot.training.evaluate.evaluate_all`.
        directory: made where it is missing.
        container: format of the files; auto takes mp4 where the extra `video` is installed, else gif.

    Yields:
        A sentence for each task: its file, or why there is none.

    Raises:
        MissingExtraError: it is mp4, and the extra is not installed.
    """
    suffix = _suffix(container)
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo would ask for a window
    splits = get_suite(environment.suite).splits
    jobs = [(task, split) for split in evaluation.splits for task in environment.tasks]
    jobs += [(task, splits[-1]) for task in evaluation.held_out_tasks]
    stems = file_stems([task + ("-test" if split == "test" else "") for task, split in jobs])
    for (task, split), stem in zip(jobs, stems, strict=True):
        one = replace(environment, tasks=(task,), reward_multipliers=())
        try:
            frames = _film(policy, one, split, layout, seed, device, greedy, evaluation.step_limit)
        except DrawingError as error:
            yield f"{task}: {error}"
            continue
        directory.mkdir(parents=True, exist_ok=True)
        write = write_gif if suffix == "gif" else write_mp4
        yield str(write(frames, directory / f"{stem}.{suffix}"))


def _suffix(container: Container) -> str:
    there = find_spec("imageio_ffmpeg") is not None
    if container == "mp4" and not there:
        install = here("pip install 'twohot[video]'")
        raise MissingExtraError(f"MP4 needs imageio-ffmpeg, which is not installed: {install}; GIF needs nothing")
    return "mp4" if there and container != "gif" else "gif"


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
        **environment.vector_arguments(), environments=1, split=split, layout=layout, step_limit=step_limit, render=True
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


def _draw(vector: TrialEnvironments) -> list[np.ndarray]:
    try:
        pictures = vector.render()
    except Exception as error:  # of any graphics library
        cause = error.__cause__ or error
        raise DrawingError(f"cannot be drawn here ({type(cause).__name__}: {cause})") from error
    if pictures is None:
        raise DrawingError("draws no images")
    return [as_frame(picture) for picture in pictures]


def as_frame(picture: Any) -> np.ndarray:
    """What an environment drew as a frame of a video, uint8 [H, W, 3].

    Args:
        picture: integers from 0 to 255 [H, W], or [H, W, C] with C 1 (grey), 3 (red, green, blue) or 4 (and opacity,
            over black).

    Raises:
        DrawingError: it is something else.
    """
    if picture is None:
        raise DrawingError("draws no images")
    array = np.asarray(picture)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size or array.dtype.kind not in "biuf":
        raise DrawingError(
            f"draws no images: expected [H, W, 3] from `render()`, got {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise DrawingError(
            f"draws {array.dtype} from {array.min()} to {array.max()}: expected integers from 0 to 255 from "
            "`render()`: (255 * image).round().astype(np.uint8) where an image is in [0, 1]"
        )
    array = array.reshape(*array.shape[:2], channels).astype(np.uint8)
    if channels == 4:
        array = np.round(array[..., :3] * (array[..., 3:] / 255)).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if channels == 1 else array


def write_gif(frames: Sequence[np.ndarray], path: Path, frames_a_second: float = FRAMES_A_SECOND) -> Path:
    """Write an animation that is there whole or not at all.

    Args:
        frames: uint8 [H, W, 3] each; smaller ones are filled up with black, below and to the right. path: of the file.
        frames_a_second: speed.
    """
    images = [Image.fromarray(frame) for frame in _on_one_canvas(frames)]
    with atomic_write(path) as partial:
        milliseconds = round(1000 / frames_a_second)
        images[0].save(partial, format="GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return path


def write_mp4(frames: Sequence[np.ndarray], path: Path, frames_a_second: float = FRAMES_A_SECOND) -> Path:
    """Write a video (H.264, as browsers and slides play it) that is there whole or not at all; as `write_gif`.

    Raises:
        OSError: ffmpeg wrote none, saying why.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    filled = _on_one_canvas(frames, even=True)
    height, width, _ = filled[0].shape
    given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {frames_a_second} -i -".split()
    wanted = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", "-f", "mp4", "-y"]
    with atomic_write(path) as partial:
        command = [get_ffmpeg_exe(), "-loglevel", "error", *given, *wanted, str(partial)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
            assert encoder.stdin is not None
            assert encoder.stderr is not None
            with suppress(BrokenPipeError):  # it has ended, and says why
                for frame in filled:
                    encoder.stdin.write(np.ascontiguousarray(frame).data)
                encoder.stdin.close()
            said = encoder.stderr.read().decode(errors="replace").strip()
        if encoder.returncode != 0:
            raise OSError(errno.EIO, f"ffmpeg: {said}", str(path))
    return path


def _on_one_canvas(frames: Sequence[np.ndarray], *, even: bool = False) -> list[np.ndarray]:
    """The frames in one size, magnified to `MIN_SIDE`; `even`: with sides that a video's halved colours divide."""
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    factor = max(1, math.ceil(MIN_SIDE / min(height, width)))
    if even and factor % 2:
        height, width = height + height % 2, width + width % 2
    filled = (np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))) for frame in frames)
    return [frame.repeat(factor, 0).repeat(factor, 1) for frame in filled]
