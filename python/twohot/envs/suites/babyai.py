"""BabyAI (Chevalier-Boisvert et al., ICLR 2019, arXiv 1810.08272): instructions in words, seen through a small window.

The multi-task protocol, two attempts at one level of one of 50 tasks, is AMAGO-2's (UT-Austin-RPL/amago,
`examples/10_babyai.py`). `docs/benchmarks/babyai.md` has it, and the differences.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite

__all__ = ["HELD_OUT", "MULTITASK_PROTOCOL", "TRAIN_50", "BabyAILevel", "encode_mission"]

# The ids without "BabyAI-" and the version.
TRAIN_50 = (
    *("GoToRedBall", "GoToRedBallNoDists", "GoToRedBlueBall", "GoToObjS6", "GoToLocal", "GoToLocalS7N5"),
    *(
        "GoToLocalS8N4",
        "GoToLocalS8N5",
        "GoToLocalS8N6",
        "GoTo",
        "GoToOpen",
        "GoToImpUnlock",
        "GoToDoor",
        "GoToObjDoor",
    ),
    *("GoToObjMaze", "GoToObjMazeOpen", "GoToObjMazeS4R2", "GoToObjMazeS4", "GoToObjMazeS5", "GoToObjMazeS6"),
    *("Open", "OpenRedDoor", "OpenDoor", "OpenDoorDebug", "OpenDoorColor", "OpenRedBlueDoors"),
    *("Pickup", "UnblockPickup", "PickupLoc", "PickupDist", "PickupDistDebug", "PickupAbove"),
    *("Unlock", "UnlockLocal", "KeyInBox", "UnlockPickup", "BlockedUnlockPickup", "UnlockToUnlock"),
    *("FindObjS6", "FindObjS7", "KeyCorridor", "KeyCorridorS3R1", "KeyCorridorS3R2", "KeyCorridorS3R3"),
    *("KeyCorridorS4R3", "KeyCorridorS5R3", "OneRoomS8", "OneRoomS12", "OneRoomS16", "OneRoomS20"),
)
HELD_OUT = (
    *("GoToRedBallGrey", "GoToObj", "GoToObjS4", "GoToLocalS5N2", "GoToLocalS6N2", "GoToLocalS6N3", "GoToLocalS6N4"),
    *("GoToLocalS7N4", "GoToLocalS8N2", "GoToLocalS8N3", "GoToLocalS8N7", "GoToObjMazeS7", "OpenDoorLoc"),
    *("UnlockLocalDist", "UnlockPickupDist", "ActionObjDoor", "FindObjS5", "KeyCorridorS6R3"),
)
"""Tasks of the kinds that are trained, in sizes and settings that are not."""
# None of the protocol's tasks; most have instructions of several parts.
_LONG = (
    *("GoToSeq", "GoToSeqS5R2", "OpenTwoDoors", "OpenDoorsOrderN2", "OpenDoorsOrderN4", "OpenDoorsOrderN2Debug"),
    *("OpenDoorsOrderN4Debug", "PutNextLocal", "PutNextLocalS5N3", "PutNextLocalS6N4", "PutNextS4N1", "PutNextS5N1"),
    *("PutNextS5N2", "PutNextS6N3", "PutNextS7N4", "PutNextS5N2Carrying", "PutNextS6N3Carrying", "PutNextS7N4Carrying"),
    *("MoveTwoAcrossS5N2", "MoveTwoAcrossS8N9", "Synth", "SynthS5R2", "SynthLoc", "SynthSeq", "MiniBossLevel"),
    *("BossLevel", "BossLevelNoUnlock", "OpenRedBlueDoorsDebug"),
)
TASKS = (*TRAIN_50, *HELD_OUT, *_LONG)
VOCABULARY = (
    *(
        "a",
        "after",
        "and",
        "ball",
        "behind",
        "blue",
        "box",
        "door",
        "front",
        "go",
        "green",
        "grey",
        "in",
        "key",
        "left",
    ),
    *("next", "object", "of", "on", "open", "pick", "purple", "put", "red", "right", "the", "then", "to", "up"),
    *("yellow", "you", "your"),
)
"""All words of all missions; word i is token i + 1, and 0 is padding."""
_TOKENS = {word: token for token, word in enumerate(VOCABULARY, start=1)}
WORDS, LONG_WORDS = 9, 80
"""Tokens of a mission: enough for the protocol's tasks, and for the long ones."""
TRAIN_SEEDS, ALL_SEEDS = 5_000, 1_000_000
"""Levels have the seeds from 0 to below 5000 in training, and those from 5000 to below 1 000 000 in tests."""

# Arguments of `make_vector` for the benchmark.
MULTITASK_PROTOCOL: Mapping[str, Any] = MappingProxyType({"suite": "babyai", "tasks": TRAIN_50, "attempts": 2})


class BabyAILevel(gym.Env[dict[str, np.ndarray], np.int64]):
    """A BabyAI level whose seed is the hidden task: attempts play one level again.

    Observation: "grid_image" uint8 [7, 7, 3], the object, colour and state of what the agent sees; "tokens_mission"
    uint8 [WORDS] (long instructions: [LONG_WORDS]); "direction" float32 [4], one-hot. Actions: left, right, forward,
    pick up, drop, toggle, done. Reward: minigrid's, 1 - .9 steps / limit at the end of a success, which shows the
    clock: its end terminates.

    Args:
        env: a minigrid environment. words: tokens of a mission.
        first, last: the range of seeds, without `last`. render: whether `render()` returns pictures.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own way)
    observation_space: spaces.Dict
    hidden_task = True

    def __init__(self, env: gym.Env, words: int, first: int, last: int, render: bool) -> None:
        self.env, self.words, self.first, self.last = env, words, first, last
        self.render_mode = "rgb_array" if render else None
        self.observation_space = spaces.Dict(
            {
                "grid_image": spaces.Box(0, 255, (7, 7, 3), np.uint8),
                "tokens_mission": spaces.Box(0, len(VOCABULARY), (words,), np.uint8),
                "direction": spaces.Box(0.0, 1.0, (4,), np.float32),
            }
        )
        self.action_space = spaces.Discrete(7)
        self.level = first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an attempt; `options={"attempt": i}` with i > 0 keeps the level."""
        super().reset(seed=seed)
        if not (options or {}).get("attempt"):
            self.level = int(self.np_random.integers(self.first, self.last))
        with redirect_stdout(StringIO()):  # it tells of every draw that it rejects
            observation, _ = self.env.reset(seed=self.level)
        self._mission = encode_mission(observation["mission"], self.words)
        return self._observe(observation), {}

    def step(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(int(action))
        info = {"success": float(reward) > 0}
        return self._observe(observation), float(reward), terminated or truncated, False, info

    def render(self) -> np.ndarray | None:
        return np.asarray(self.env.render()) if self.render_mode else None

    def close(self) -> None:
        self.env.close()

    def _observe(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        direction = np.zeros(4, np.float32)
        direction[observation["direction"]] = 1.0
        return {"grid_image": observation["image"], "tokens_mission": self._mission.copy(), "direction": direction}


def encode_mission(mission: str, words: int) -> np.ndarray:
    """uint8 [words]: the tokens of a mission without its commas, then zeros.

    Raises:
        KeyError: for a word that is not in VOCABULARY.
        ValueError: for more than `words` words.
    """
    tokens = [_TOKENS[word] for word in mission.replace(",", "").split()]
    if len(tokens) > words:
        raise ValueError(f"expected a mission of at most {words} words, got {mission!r}")
    return np.array(tokens + [0] * (words - len(tokens)), np.uint8)


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS` at the levels of a split."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # which minigrid imports
    import minigrid  # noqa: F401 (registers the ids)

    (name,) = [name for name in (f"BabyAI-{task}-v0", f"BabyAI-{task}-v1") if name in gym.registry]
    with redirect_stdout(StringIO()):
        env = gym.make(name, disable_env_checker=True, render_mode="rgb_array" if render else None).unwrapped
    seeds = (0, TRAIN_SEEDS) if split == "train" else (TRAIN_SEEDS, ALL_SEEDS)
    return BabyAILevel(env, LONG_WORDS if task in _LONG else WORDS, *seeds, render)


SUITE = Suite(
    name="babyai",
    summary="BabyAI: follow instructions in words through rooms, doors and keys; 96 tasks.",
    requires=("minigrid",),
    install="pip install 'twohot[babyai]'",
    tasks=TASKS,
    make=make,
    splits=("train", "test"),
    reports_success=True,
)
