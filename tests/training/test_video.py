"""Videos: what environments draw, in every form, as the frames that they drew."""

from __future__ import annotations

import re
import subprocess

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.data.rollout import UniformPolicy
from twohot.data.spaces import agent_layout
from twohot.envs import MissingExtraError, TrialEnv
from twohot.training import video
from twohot.training.video import DrawingError, as_frame, record, write_gif, write_mp4

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.stack([GREY, GREY + 20, GREY + 40], axis=2)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (COLOUR, COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
        (COLOUR.tolist(), COLOUR),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),
        (GREY, np.stack([GREY] * 3, axis=2)),
        (GREY[..., None], np.stack([GREY] * 3, axis=2)),
        (np.concatenate([COLOUR, np.full((3, 4, 1), 255, np.uint8)], axis=2), COLOUR),
        (np.concatenate([COLOUR, np.zeros((3, 4, 1), np.uint8)], axis=2), 0 * COLOUR),
        (Image.fromarray(COLOUR), COLOUR),
    ],
)
def test_a_picture_is_a_frame(picture, expected):
    frame = as_frame(picture)
    np.testing.assert_array_equal(frame, expected)
    assert frame.dtype == np.uint8


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "draws no images"),
        (COLOUR / 255, r"draws float64 from 0.0 to .*\(255 \* image\).round\(\)"),
        (COLOUR > 9, "draws bool"),
        (COLOUR.astype(np.int16) - 1, "draws int16 from -1 to"),
        (COLOUR.astype(np.int16) + 255, "draws int16 from 255 to"),
        (np.zeros((3, 4, 2), np.uint8), "got uint8 of shape"),
        (np.zeros((2, 3, 4, 3), np.uint8), "got uint8 of shape"),
        (np.zeros((0, 4, 3), np.uint8), "got uint8 of shape"),
        ("a board", "draws no images"),
    ],
)
def test_what_is_no_picture_is_said(picture, message):
    with pytest.raises(DrawingError, match=message):
        as_frame(picture)


class Draws(gym.Env):
    """Draws into one array of its own, of a size that may change; an episode of six steps."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, grows=False, nothing_at=None, render_mode=None):
        self.render_mode, self.grows, self.nothing_at = render_mode, grows, nothing_at
        self.screen = np.zeros((16, 16, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 0.0, self.steps == 6, False, {}

    def render(self):
        if self.steps == self.nothing_at:
            return None
        self.screen[:] = 0
        self.screen[:, : 2 * self.steps + 1] = 255
        return self.screen[: 16 - self.steps] if self.grows else self.screen


def lines_of(tmp_path, container="gif", **options):
    gym.register("Draws-v0", entry_point=Draws, kwargs=options)
    try:
        environment, evaluation = EnvironmentConfig(suite="gym", tasks=("Draws-v0",)), EvaluateConfig()
        layout = agent_layout(environment, evaluation)
        policy = UniformPolicy(layout.action)
        return list(record(policy, environment, evaluation, tmp_path, layout=layout, seed=0, container=container))
    finally:
        del gym.registry["Draws-v0"]


def means(path):
    with Image.open(path) as video:
        frames = [np.asarray(video.convert("L")).mean() for frame in range(video.n_frames) if video.seek(frame) is None]
        return video.size, [round(16 * mean / 255, 1) for mean in frames]


def test_frames_of_one_array_are_those_that_were_drawn(tmp_path):
    (path,) = lines_of(tmp_path)
    assert means(path) == ((256, 256), [1, 3, 5, 7, 9, 11, 13])


def test_a_picture_is_the_caller_s_own():
    gym.register("Draws-v0", entry_point=Draws)
    try:
        trial = TrialEnv("gym", ("Draws-v0",), render=True)
        trial.reset(seed=0)
        first = trial.render()
        kept = first.copy()
        trial.step(0)
        assert not np.array_equal(trial.render(), kept)
        np.testing.assert_array_equal(first, kept)
    finally:
        del gym.registry["Draws-v0"]


def test_frames_of_several_sizes_share_a_canvas(tmp_path):
    (path,) = lines_of(tmp_path, grows=True)
    size, found = means(path)
    assert size == (256, 256)
    np.testing.assert_allclose(found, [(2 * step + 1) * (16 - step) / 16 for step in range(7)], atol=0.06)
    wide = write_gif([np.full((4, 2, 3), 255, np.uint8), np.full((2, 8, 3), 255, np.uint8)], tmp_path / "wide.gif")
    assert means(wide) == ((512, 256), [4, 8])


def test_a_frame_that_is_missing_is_said(tmp_path):
    assert lines_of(tmp_path, nothing_at=3) == ["Draws-v0: draws no images"]


def played(path):
    """Size of an MP4, and the mean of each of its frames as sixteenths of white."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    how = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    found = subprocess.run([program, "-i", str(path), *how], capture_output=True, check=True)
    (width, height), *_ = re.findall(r"Video: h264.*yuv420p.*? (\d+)x(\d+)", found.stderr.decode())
    size = int(width), int(height)
    frames = np.frombuffer(found.stdout, np.uint8).reshape(-1, size[0] * size[1] * 3)
    return size, 16 * frames.mean(1) / 255


def test_what_ffmpeg_says_is_an_error(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(OSError, match=r"ffmpeg: .+"):
        write_mp4([np.zeros((256, 256, 3), np.uint8)], tmp_path / "none.mp4", frames_a_second=-1)
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_shows_what_was_drawn(tmp_path):
    (path,) = lines_of(tmp_path, "mp4")
    assert path == str(tmp_path / "Draws-v0.mp4")
    size, found = played(path)
    assert size == (256, 256)
    np.testing.assert_allclose(found, [1, 3, 5, 7, 9, 11, 13], atol=0.2)  # H.264 is not exact
    assert [file.name for file in tmp_path.iterdir()] == ["Draws-v0.mp4"]


def test_an_mp4_of_odd_sides_is_filled_up(tmp_path):
    size, found = played(write_mp4([np.full((261, 301, 3), 255, np.uint8)] * 3, tmp_path / "odd.mp4"))
    assert size == (302, 262)
    assert len(found) == 3


def test_without_the_extra_videos_are_gifs(tmp_path, monkeypatch):
    (there,) = lines_of(tmp_path, "auto")
    assert there.endswith(".mp4")
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    (without,) = lines_of(tmp_path, "auto")
    assert without.endswith(".gif")
    with pytest.raises(MissingExtraError, match=r"pip install .*\[video\]'; GIF needs nothing"):
        lines_of(tmp_path, "mp4")
