"""The replay under a single-file loop in CleanRL's style: a recurrent DQN that learns from windows of whole episodes.

    python examples/cleanrl_replay.py [--total-timesteps 60000] [--seed 0]

CartPole without its velocities, which a policy has to remember positions for. Episodes of eight environments are stored
as they are played; an update draws 32 windows of 32 steps, padded where an episode is shorter, and `batch.mask` says
where.
"""

from collections import deque
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from twohot.losses import td_targets
from twohot.replay import Field, Replay, Schema


@dataclass
class Args:
    seed: int = 0
    total_timesteps: int = 60_000
    num_envs: int = 8
    learning_rate: float = 1e-3
    buffer_steps: int = 50_000
    gamma: float = 0.98
    n_step: int = 3
    tau: float = 0.01
    batch_size: int = 32
    sequence: int = 32
    train_every: int = 4
    """Steps of all environments between updates."""
    learning_starts: int = 2_000
    end_epsilon: float = 0.05
    exploration_fraction: float = 0.4


class QNetwork(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(2, width), nn.ReLU())
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, seen: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, state = self.memory(self.embed(seen), state)  # [B, L, width]
        return self.head(h), state


def positions(observation: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(observation[:, [0, 2]], dtype=np.float32)


def main(args: Args) -> float:
    torch.set_num_threads(1)  # more do not pay for networks of this size
    torch.manual_seed(args.seed)
    random = np.random.default_rng(args.seed)
    envs = gym.make_vec(
        "CartPole-v1",
        num_envs=args.num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
    )
    schema = Schema(observation={"positions": Field("float32", (2,))}, action=Field("int64"))
    replay = Replay.create(schema, capacity_steps=args.buffer_steps, seed=args.seed)
    writer = replay.writer(environments=args.num_envs)
    q_network, target_network = QNetwork(), QNetwork()
    target_network.load_state_dict(q_network.state_dict())
    optimizer = torch.optim.Adam(q_network.parameters(), lr=args.learning_rate)
    out = replay.batch(args.batch_size, args.sequence, torch=True)  # filled again by each draw

    obs, _ = envs.reset(seed=args.seed)
    writer.begin({"positions": positions(obs)})
    state = torch.zeros(1, args.num_envs, 64)
    episodes: deque = deque(maxlen=50)
    lengths = np.zeros(args.num_envs)
    for global_step in range(args.num_envs, args.total_timesteps + 1, args.num_envs):
        progress = global_step / (args.exploration_fraction * args.total_timesteps)
        epsilon = max(args.end_epsilon, 1 - progress)
        with torch.no_grad():
            q, state = q_network(torch.from_numpy(positions(obs)).unsqueeze(1), state)
        explore = random.random(args.num_envs) < epsilon
        actions = np.where(explore, random.integers(2, size=args.num_envs), q.squeeze(1).argmax(-1).numpy())
        obs, rewards, terminations, truncations, _ = envs.step(actions)
        lengths += 1
        # What the step led to, the last observation of an episode included; no dummy step between episodes.
        writer.append(actions, rewards.astype(np.float32), terminations, truncations, {"positions": positions(obs)})
        done = terminations | truncations
        if done.any():
            episodes.extend(lengths[done])
            lengths[done] = 0
            state[:, torch.from_numpy(done)] = 0
            obs, _ = envs.reset(options={"reset_mask": done})
            writer.begin({"positions": positions(obs)}, mask=done)

        if global_step > args.learning_starts and (global_step // args.num_envs) % args.train_every == 0:
            batch = replay.sample(args.batch_size, args.sequence, out=out)
            q, _ = q_network(batch.observation["positions"][:, :-1])
            with torch.no_grad():
                online, _ = q_network(batch.observation["positions"])
                slow, _ = target_network(batch.observation["positions"])
                v_tp1 = slow[:, 1:].gather(-1, online[:, 1:].argmax(-1, keepdim=True)).squeeze(-1)
                target = td_targets(
                    batch.reward,
                    args.gamma,
                    v_tp1,
                    batch.terminated,
                    truncated_t=batch.truncated,
                    mask=batch.mask,
                    n=args.n_step,
                )
            error = nn.functional.smooth_l1_loss(
                q.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1), target, reduction="none"
            )
            loss = (error * batch.mask).sum() / batch.mask.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for slow_weight, weight in zip(target_network.parameters(), q_network.parameters(), strict=True):
                    slow_weight.lerp_(weight, args.tau)
        if episodes and global_step % (args.total_timesteps // 10 // args.num_envs * args.num_envs) == 0:
            print(f"global_step={global_step}, mean length of the last episodes={np.mean(episodes):.0f}", flush=True)
    print(replay)
    return float(np.mean(episodes))


if __name__ == "__main__":
    main(tyro.cli(Args))
