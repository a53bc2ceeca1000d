"""Super Mario Bros by train and test levels, on emulated consoles (stable-retro), with the player's own ROMs.

stable-retro brings the ROM of one free game only, Airstriker, which needs nothing else and shows that all works.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite, UnknownEnvironmentError
from twohot.errors import TwohotError

# The levels where an episode may begin (names of saved states), by game and split.
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "SuperMarioBros-Nes-v0": {
        "train": ("Level1-1", "Level2-1-clouds-easy", "Level4-1", "Level5-1", "Level7-1", "Level8-1"),
        "test": ("Level1-4", "Level2-1", "Level2-1-clouds", "Level3-1", "Level6-1"),
    },
    "SuperMarioBros2Japan-Nes-v0": {
        "train": tuple(f"Level{level}" for level in ("1-1", "1-2", "3-1", "4-1", "5-1", "6-2", "7-1", "8-1")),
        "test": ("Level2-1", "Level6-1"),
    },
    "SuperMarioBros3-Nes-v0": {
        "train": ("1Player.World1.Fortress", "1Player.World1.FortressBoss", "1Player.World1.Level3"),
        "test": ("1Player.World1.Castle", "1Player.World1.Level1", "1Player.World1.Level1.HammerBros"),
    },
    "SuperMarioWorld-Snes-v0": {
        "train": (
            *("Bridges1", "Bridges2", "ChocolateIsland1", "ChocolateIsland2", "ChocolateIsland3"),
            *("DonutPlains1", "DonutPlains2", "DonutPlains3", "DonutPlains4", "DonutPlains5"),
            *("Forest1", "Forest2", "Forest3", "Forest4", "Forest5", "Start"),
            *("VanillaDome2", "VanillaDome3", "VanillaDome4", "VanillaDome5"),
            *("YoshiIsland1", "YoshiIsland2", "YoshiIsland4"),
        ),
        "test": ("VanillaDome1", "YoshiIsland3"),
    },
    "Airstriker-Genesis-v0": {"train": ("Level1",), "test": ("Level1",)},
}
TASKS = tuple(LEVELS)
MARIO = TASKS[:4]

# A frame of two pixels around the image tells the consoles, and with them the meaning of the buttons, apart.
_CONSOLE_COLOURS = {"Nes": (191, 40, 17), "Snes": (18, 196, 65), "Genesis": (8, 8, 201)}

BUTTONS = 12
FRAME_SKIP = 8
MINUTES = 8
STEPS = MINUTES * 60 * 60 // FRAME_SKIP
_SIZE = 84


class MissingRomError(TwohotError, FileNotFoundError):
    """A game whose ROM the player has not imported."""


class EmulatorTakenError(TwohotError, RuntimeError):
    """A second retro environment began to play in this process, which can hold one emulator only."""


class Retro(gym.Env[np.ndarray, np.ndarray]):
    """One game; its hidden task is the level where it begins.

    Observation: Box, uint8, (84, 84, 3), shrunk by averaging over areas, in a frame of the console's colour. Action:
    MultiBinary(12), a console's buttons (a Nes has 9 and ignores the rest), held for 8 frames. Reward: the game's own
    of stable-retro, summed over the frames. An episode is truncated after 8 minutes of play, 3600 steps.

    A process holds one emulator. An episode's first reset takes it from the environment that held it, whose own
    episode is over then.

    Args:
        task: one of `TASKS`.
        split: "train" or "test", which have other levels (Airstriker has one for both).
        render: whether `render` returns frames as the console draws them.

    Raises:
        MissingRomError: the game's ROM has not been imported.
    """

    hidden_task = True
    _holder: ClassVar[Retro | None] = None

    def __init__(self, task: str, split: str = "train", *, render: bool = False) -> None:
        if split not in LEVELS[task]:
            raise UnknownEnvironmentError(f"expected a split of {tuple(LEVELS[task])}, got {split!r}")
        import cv2
        from stable_retro.data import get_romfile_path

        try:
            get_romfile_path(task)
        except FileNotFoundError as error:
            raise MissingRomError(
                f"{task} needs its ROM, which you supply: put the file of a game that you own in a folder and import "
                "it with `python -m stable_retro.import FOLDER`, which knows it by its checksum"
            ) from error
        cv2.setNumThreads(1)  # of the whole process: its threads cost more than so small an image takes
        self._resize, self._area = cv2.resize, cv2.INTER_AREA
        self.task, self.levels = task, LEVELS[task][split]
        self.level: str | None = None
        self.render_mode = "rgb_array" if render else None
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAME_SKIP}
        self.observation_space = spaces.Box(0, 255, (_SIZE, _SIZE, 3), np.uint8)
        self.action_space = spaces.MultiBinary(BUTTONS)
        self._colour = _CONSOLE_COLOURS[task.split("-")[1]]
        self._emulator: Any = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; `options={"attempt": 0}`, or none, draws a level, a later attempt keeps it."""
        super().reset(seed=seed)
        if self.level is None or not (options or {}).get("attempt", 0):
            self.level = self.levels[int(self.np_random.integers(len(self.levels)))]
        if self._emulator is None:
            self._emulator = self._start()
        self._emulator.load_state(self.level)
        frame, _ = self._emulator.reset()
        self._steps = 0
        return self._observe(frame), {}

    def step(self, action):
        emulator = self._emulator
        if emulator is None:
            raise EmulatorTakenError(
                f"expected to play {self.task} on, but another retro environment of this process took its emulator, of "
                "which a process can hold one: play each environment in its own process"
            )
        pressed, reward = action[: emulator.num_buttons], 0.0
        for _ in range(FRAME_SKIP):
            frame, gained, terminated, _, _ = emulator.step(pressed)
            reward += gained
            if terminated:
                break
        self._steps += 1
        return self._observe(frame), reward, terminated, not terminated and self._steps >= STEPS, {}

    def render(self):
        return self._emulator.get_screen()

    def close(self) -> None:
        if self._emulator is not None:
            self._emulator.close()
            self._emulator = None
        if Retro._holder is self:
            Retro._holder = None

    def _start(self) -> Any:
        import stable_retro

        if Retro._holder is not None:
            Retro._holder.close()
        emulator = stable_retro.make(
            self.task,
            state=self.level,  # pyright: ignore[reportArgumentType]  # annotated by its default alone; takes names
            render_mode=None,
        )
        Retro._holder = self
        return emulator

    def _observe(self, frame: np.ndarray) -> np.ndarray:
        image = self._resize(frame, (_SIZE, _SIZE), interpolation=self._area)
        image[:2] = image[-2:] = self._colour
        image[:, :2] = image[:, -2:] = self._colour
        return image


def make_retro(task: str, split: str = "train", render: bool = False) -> Retro:
    """One game; arguments as for `Retro`. Starts no emulator yet."""
    return Retro(task, split, render=render)


SUITE = Suite(
    name="retro",
    summary="Super Mario Bros 1, 2 (Japan), 3 and World by levels, with your own ROMs; and Airstriker, which is free.",
    requires=("stable_retro", "cv2"),
    install="pip install 'twohot[retro]'",
    tasks=TASKS,
    make=make_retro,
    splits=("train", "test"),
    one_per_process=True,
)
