"""The replay under Stable-Baselines3: a replay buffer class that its off-policy algorithms take. A minute on one core.

    pip install stable-baselines3
    python examples/sb3_replay.py [--steps 20000] [--directory data/cart]

Whole episodes are stored, without each next observation, in memory or in a directory that other processes may read
while it trains; a batch is drawn from it as windows of one step.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from twohot.replay import Field, Replay, Schema


class TrajectoryBuffer(BaseBuffer):
    """`replay_buffer_class` for DQN, SAC, TD3 and DDPG with vector or image observations (no dictionaries)."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: Any,
        action_space: Any,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        directory: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        del optimize_memory_usage  # no observation is stored twice anyway
        super().__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.fields = {"observation": Field(str(observation_space.dtype), observation_space.shape)}
        discrete = not action_space.shape
        self.action_field = Field("int64") if discrete else Field("float32", action_space.shape)
        self.options = {"capacity_steps": buffer_size, "directory": directory, "seed": seed}
        self.reset()

    def reset(self) -> None:
        self.replay = Replay.create(Schema(self.fields, self.action_field), **self.options)
        self.writer = self.replay.writer(environments=self.n_envs)
        self.begun, self.drawn = np.zeros(self.n_envs, bool), None

    def size(self) -> int:
        return self.replay.stats().steps

    def add(self, obs, next_obs, action, reward, done, infos) -> None:
        """SB3 hands over the last observation of an episode as `next_obs`, and the next one's first as `obs`."""
        if not self.begun.all():
            self.writer.begin({"observation": self.array(obs)}, mask=~self.begun)
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        ends = np.asarray(done, bool)
        action = np.ascontiguousarray(
            np.reshape(action, (self.n_envs, *self.action_field.shape)), self.action_field.dtype
        )
        reward = np.ascontiguousarray(reward, np.float32)
        self.writer.append(action, reward, ends & ~timeouts, ends & timeouts, {"observation": self.array(next_obs)})
        self.begun = ~ends

    def sample(self, batch_size: int, env=None) -> ReplayBufferSamples:
        if self.drawn is None or len(self.drawn.reward) != batch_size:
            self.drawn = self.replay.batch(batch_size, 1, torch=True)
        batch = self.replay.sample(batch_size, 1, by="step", out=self.drawn)  # the same memory each time
        seen = batch.observation["observation"]
        columns = seen[:, 0], batch.action.reshape(batch_size, -1), seen[:, 1], batch.terminated.float(), batch.reward
        return ReplayBufferSamples(*(column.to(self.device) for column in columns))

    def _get_samples(self, batch_inds, env=None) -> ReplayBufferSamples:
        raise NotImplementedError("windows are drawn by the replay: call sample")

    def array(self, observation: np.ndarray) -> np.ndarray:
        field = self.fields["observation"]
        return np.ascontiguousarray(observation, field.dtype).reshape(self.n_envs, *field.shape)


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--directory", help="keep the replay in files; a new directory")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        replay_buffer_class=TrajectoryBuffer,
        replay_buffer_kwargs={"directory": arguments.directory},
        buffer_size=20_000,
        learning_rate=1e-3,
        learning_starts=500,
        train_freq=4,
        target_update_interval=250,
        exploration_fraction=0.2,
        exploration_final_eps=0.05,
        policy_kwargs={"net_arch": [128, 128]},
        seed=0,
        device="cpu",
    )
    model.learn(arguments.steps)
    mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
    print(model.replay_buffer.replay)
    print(f"mean return {mean:.0f}, deviation {deviation:.0f}")
    return float(mean)


if __name__ == "__main__":
    main()
