"""Atari 2600 games (Bellemare et al., JAIR 2013, arXiv 1207.4708), unclipped: the games of ale-py, which brings ROMs.

Settings of Machado et al. (JAIR 2018, arXiv 1709.06009): all 18 actions, sticky actions, no end at a lost life.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite

__all__ = ["MULTI_GAME", "REFERENCE_SCORES", "TASKS", "Atari", "normalised_score"]

# The games that one player can play, as ale-py names their ROMs.
_ROMS = (
    "adventure air_raid alien amidar assault asterix asteroids atlantis2 atlantis backgammon bank_heist basic_math "
    "battle_zone beam_rider berzerk blackjack bowling boxing breakout carnival casino centipede chopper_command "
    "crazy_climber crossbow darkchambers defender demon_attack donkey_kong double_dunk earthworld elevator_action "
    "enduro entombed et fishing_derby flag_capture freeway frogger frostbite galaxian gopher gravitar hangman "
    "haunted_house hero human_cannonball ice_hockey jamesbond journey_escape kaboom kangaroo keystone_kapers "
    "king_kong klax koolaid krull kung_fu_master laser_gates lost_luggage mario_bros miniature_golf "
    "montezuma_revenge mr_do ms_pacman name_this_game othello pacman phoenix pitfall2 pitfall pong pooyan "
    "private_eye qbert riverraid road_runner robotank seaquest sir_lancelot skiing solaris space_invaders space_war "
    "star_gunner superman surround tennis tetris tic_tac_toe_3d time_pilot trondead turmoil tutankham up_n_down "
    "venture video_checkers video_chess video_cube video_pinball wizard_of_wor word_zapper yars_revenge zaxxon"
)
_ROM_OF = {rom.title().replace("_", ""): rom for rom in _ROMS.split()}
TASKS = tuple(_ROM_OF)

# The games of AMAGO-2's Multi-Game Atari.
MULTI_GAME = (
    *("Pong", "Boxing", "Breakout", "Gopher", "MsPacman", "ChopperCommand", "CrazyClimber", "BattleZone"),
    *("Qbert", "Seaquest"),
)

# Scores of a uniformly random player and of a human tester, by game: the "no-op starts" columns of Wang et al.
# (ICML 2016, arXiv 1511.06581), as DQN Zoo (google-deepmind/dqn_zoo, atari_data.py) collects them for 57 games.
REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "Asteroids": (719.1, 47388.7),
    "Atlantis": (12850.0, 29028.1),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "BeamRider": (363.9, 16926.5),
    "Berzerk": (123.7, 2630.4),
    "Bowling": (23.1, 160.7),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "Centipede": (2090.9, 12017.0),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "Defender": (2874.5, 18688.9),
    "DemonAttack": (152.1, 1971.0),
    "DoubleDunk": (-18.6, -16.4),
    "Enduro": (0.0, 860.5),
    "FishingDerby": (-91.7, -38.7),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Gravitar": (173.0, 3351.4),
    "Hero": (1027.0, 30826.4),
    "IceHockey": (-11.2, 0.9),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MontezumaRevenge": (0.0, 4753.3),
    "MsPacman": (307.3, 6951.6),
    "NameThisGame": (2292.3, 8049.0),
    "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "Riverraid": (1338.5, 17118.0),
    "RoadRunner": (11.5, 7845.0),
    "Robotank": (2.2, 11.9),
    "Seaquest": (68.4, 42054.7),
    "Skiing": (-17098.1, -4336.9),
    "Solaris": (1236.3, 12326.7),
    "SpaceInvaders": (148.0, 1668.7),
    "StarGunner": (664.0, 10250.0),
    "Surround": (-10.0, 6.5),
    "Tennis": (-23.8, -8.3),
    "TimePilot": (3568.0, 5229.2),
    "Tutankham": (11.4, 167.6),
    "UpNDown": (533.4, 11693.2),
    "Venture": (0.0, 1187.5),
    "VideoPinball": (16256.9, 17667.9),
    "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54576.9),
    "Zaxxon": (32.5, 9173.3),
}

FRAME_SKIP = 5
STICKY = 0.25
FRAMES = 108_000  # half an hour of play
_SIZE = 84


def normalised_score(game: str, score: float) -> float:
    """(score - random) / (human - random), by `REFERENCE_SCORES`: 0 is a random player, 1 a human tester.

    Raises:
        KeyError: the game has no reference scores.
    """
    random, human = REFERENCE_SCORES[game]
    return (score - random) / (human - random)


class Atari(gym.Env[np.ndarray, np.int64]):
    """One game. Rewards are the changes of its score, neither clipped nor scaled.

    Observation: Box, uint8, (84, 84, 3), the last frame of a step, shrunk by averaging over areas. Action:
    Discrete(18), which is held for 5 frames; on each of them the action of the frame before holds on with
    probability .25. An episode ends with the game, not with a life, and is truncated after 108 000 frames.

    The emulator itself is deterministic here; the sticky actions come from this environment's own generator, with
    the emulator's rule. The emulator's generator could be seeded only by loading the ROM again, at every episode.

    Args:
        task: one of `TASKS`.
        render: whether `render` returns frames as the console draws them, (210, 160, 3).
    """

    def __init__(self, task: str, *, render: bool = False) -> None:
        import ale_py
        import cv2
        from ale_py import roms

        cv2.setNumThreads(1)  # of the whole process: its threads cost more than so small an image takes
        self._resize, self._area = cv2.resize, cv2.INTER_AREA
        self.render_mode = "rgb_array" if render else None
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAME_SKIP}
        self.observation_space = spaces.Box(0, 255, (_SIZE, _SIZE, 3), np.uint8)
        self.action_space = spaces.Discrete(18)
        self._emulator = ale = ale_py.ALEInterface()
        ale.setLoggerMode(ale_py.LoggerMode.Error)
        ale.setInt("random_seed", 0)
        ale.setFloat("repeat_action_probability", 0.0)
        ale.setInt("max_num_frames_per_episode", FRAMES)
        rom = roms.get_rom_path(_ROM_OF[task])
        assert rom is not None, f"ale_py has no ROM of {task}"
        ale.loadROM(str(rom))
        self._actions = ale.getLegalActionSet()
        self._held = self._actions[0]
        self._screen = np.empty((*ale.getScreenDims(), 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._emulator.reset_game()
        self._held = self._actions[0]
        return self._observe(), {}

    def step(self, action):
        ale, chosen, reward = self._emulator, self._actions[action], 0.0
        for sticks in (self.np_random.random(FRAME_SKIP) < STICKY).tolist():
            if not sticks:
                self._held = chosen
            reward += ale.act(self._held)
        return self._observe(), reward, ale.game_over(with_truncation=False), ale.game_truncated(), {}

    def render(self):
        return self._emulator.getScreenRGB()

    def _observe(self) -> np.ndarray:
        self._emulator.getScreenRGB(self._screen)
        return self._resize(self._screen, (_SIZE, _SIZE), interpolation=self._area)


def make_atari(task: str, split: str = "train", render: bool = False) -> Atari:
    """One game; it has no splits."""
    return Atari(task, render=render)


SUITE = Suite(
    name="atari",
    summary="Atari 2600: 104 games with unclipped scores, all 18 actions, sticky actions.",
    requires=("ale_py", "cv2"),
    install="pip install 'twohot[atari]'",
    tasks=TASKS,
    make=make_atari,
    uniform=True,
    reference_scores=REFERENCE_SCORES,
)
