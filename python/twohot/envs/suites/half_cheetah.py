"""HalfCheetahVel: run at a velocity that is hidden and only felt through the reward.

The meta-learning task of Finn et al., 2017 (arXiv 1703.03400), with the reward of VariBAD (arXiv 1910.08348) as in
AMAGO's example 12 (UT-Austin-RPL/amago, `amago/envs/builtin/half_cheetah_v4_vel.py`).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.registry import Suite

CONTROL_COST = 0.05
# Task: (largest target velocity in m/s, steps of an attempt).
TASKS: dict[str, tuple[float, int]] = {"vel": (3.0, 1000), "vel-200": (3.0, 200), "vel-10": (10.0, 1000)}
_LAST = 50  # steps over which an attempt's final velocity is taken


class TargetVelocity(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """The HalfCheetah with reward `-|v - target| - .05 |action|²`, both per step.

    The target is drawn uniformly from [0, `largest`] and shared by the attempts of a trial (`hidden_task`). The last
    info of an attempt holds `velocity_error`, the distance of the mean velocity of its last 50 steps from the target.

    Args:
        env: HalfCheetah-v5 with a time limit and `ctrl_cost_weight` .05.
        largest: largest target velocity.
    """

    hidden_task = True

    def __init__(self, env: gym.Env, largest: float) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, largest=largest)
        super().__init__(env)
        self.largest, self.target = largest, 0.0
        self.observation_space = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
        self._velocities: deque[float] = deque(maxlen=_LAST)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an attempt; `options={"attempt": i}` with i > 0 keeps the target."""
        observation, info = self.env.reset(seed=seed)
        if not (options or {}).get("attempt"):
            self.target = float(self.np_random.uniform(0.0, self.largest))
        self._velocities.clear()
        return observation.astype(np.float32), info

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        velocity = float(info["x_velocity"])
        self._velocities.append(velocity)
        if truncated:
            info = {**info, "velocity_error": abs(float(np.mean(self._velocities)) - self.target)}
        reward = float(info["reward_ctrl"]) - abs(velocity - self.target)
        return observation.astype(np.float32), reward, terminated, truncated, info


def make(task: str, split: str = "train", render: bool = False) -> gym.Env:
    """One of `TASKS`; the splits are one. Pictures need a display or `MUJOCO_GL=egl`."""
    largest, steps = TASKS[task]
    env = gym.make(
        "HalfCheetah-v5",
        max_episode_steps=steps,
        ctrl_cost_weight=CONTROL_COST,
        disable_env_checker=True,
        render_mode="rgb_array" if render else None,
    )
    return TargetVelocity(env, largest)


SUITE = Suite(
    name="half_cheetah",
    summary="HalfCheetahVel: run at a velocity that is hidden and felt only through the reward.",
    requires=("mujoco",),
    install="pip install 'twohot[mujoco]'",
    tasks=tuple(TASKS),
    make=make,
    uniform=True,
)
