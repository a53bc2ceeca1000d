"""The loss in TD-MPC2's loop: a latent model whose reward and value heads are classifiers over 101 bins.

    python examples/tdmpc2_loss.py [--episodes 30]

The update of TD-MPC2 (Hansen et al. 2024, arXiv 2310.16828) on Pendulum, small and without planning: encoder, latent
dynamics, reward head, an ensemble of critics and a policy prior, unrolled over a horizon. `docs/drop_in/tdmpc2.md` has
the edit of the official code; here is what it looks like as a whole.
"""

import argparse
import copy

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from twohot.losses import ValueBins, bin_expectation, two_hot_cross_entropy
from twohot.replay import Field, Replay, Schema

HORIZON, BATCH, CRITICS, LATENT, DISCOUNT, RHO, TAU = 3, 128, 3, 64, 0.97, 0.5, 0.01
BINS = ValueBins.tdmpc2()


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 128), nn.LayerNorm(128), nn.Mish(), nn.Linear(128, outputs))


class WorldModel(nn.Module):
    def __init__(self, observation: int, action: int) -> None:
        super().__init__()
        self.encoder = mlp(observation, LATENT)
        self.dynamics = mlp(LATENT + action, LATENT)
        self.reward = mlp(LATENT + action, BINS.count)
        self.critics = nn.ModuleList(mlp(LATENT + action, BINS.count) for _ in range(CRITICS))
        self.policy = mlp(LATENT, action)

    def encode(self, observation: Tensor) -> Tensor:
        return simnorm(self.encoder(observation))

    def step(self, z: Tensor, a: Tensor) -> Tensor:
        return simnorm(self.dynamics(torch.cat((z, a), -1)))

    def q_logits(self, z: Tensor, a: Tensor) -> Tensor:  # [C, ..., N]
        return torch.stack([critic(torch.cat((z, a), -1)) for critic in self.critics])

    def act(self, z: Tensor, noise: float) -> Tensor:
        mean = self.policy(z).tanh()
        return (mean + noise * torch.randn_like(mean)).clamp(-1, 1)


def simnorm(z: Tensor) -> Tensor:
    return z.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2)


def update(model: WorldModel, target: WorldModel, optimizers, batch) -> dict[str, float]:
    observation = batch.observation["state"].transpose(0, 1)  # [H + 1, B, ...]
    action, reward = batch.action.transpose(0, 1), batch.reward.transpose(0, 1)
    with torch.no_grad():
        z_tp1 = model.encode(observation[1:])
        q = bin_expectation(target.q_logits(z_tp1, model.act(z_tp1, 0.2)), BINS)
        td_target = reward + DISCOUNT * q[torch.randperm(CRITICS)[:2]].amin(0)  # [H, B], in units of the return
    rho = (RHO ** torch.arange(HORIZON)).unsqueeze(-1)
    z = [model.encode(observation[0])]
    consistency = torch.zeros(())
    for t in range(HORIZON):
        z.append(model.step(z[-1], action[t]))
        consistency = consistency + RHO**t * nn.functional.mse_loss(z[-1], z_tp1[t]) / HORIZON
    zs = torch.stack(z)
    reward_logits = model.reward(torch.cat((zs[:-1], action), -1))
    reward_loss = two_hot_cross_entropy(reward_logits, reward, BINS, weight=rho)
    value_loss = two_hot_cross_entropy(model.q_logits(zs[:-1], action), td_target, BINS, weight=rho)
    optimizers[0].zero_grad()
    (20 * consistency + 0.1 * reward_loss + 0.1 * value_loss).backward()
    optimizers[0].step()

    zs = zs.detach()
    policy_q = bin_expectation(model.q_logits(zs, model.act(zs, 0.2)), BINS).mean(0)
    optimizers[1].zero_grad()
    (-policy_q.mean() / policy_q.detach().std().clamp(min=1)).backward()
    optimizers[1].step()
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, TAU)
    return {"consistency": consistency.item(), "reward": reward_loss.item(), "value": value_loss.item()}


def episode(env: gym.Env, model: WorldModel, writer, noise: float, seed: int, length: int) -> float:
    """One episode, noisy to collect it or without noise and a writer to judge; its return."""
    state, _ = env.reset(seed=seed)
    total, never = 0.0, np.zeros(1, bool)
    if writer:
        writer.begin({"state": state[None]})
    for step in range(length):
        with torch.no_grad():
            action = model.act(model.encode(torch.from_numpy(state)), noise).numpy()
        state, reward, *_ = env.step(2 * action)
        total += float(reward)
        if writer:
            ends = never | (step == length - 1)
            writer.append(action[None], np.float32([reward]), never, ends, {"state": state[None]})
    return total


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--updates", type=int, default=100, help="after each episode")
    parser.add_argument("--length", type=int, default=200, help="of an episode")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    env = gym.make("Pendulum-v1")
    model = WorldModel(3, 1)
    target = copy.deepcopy(model).requires_grad_(False)
    policy = list(model.policy.parameters())
    others = [each for name, each in model.named_parameters() if not name.startswith("policy")]
    optimizers = torch.optim.Adam(others, lr=1e-3), torch.optim.Adam(policy, lr=1e-3)
    schema = Schema(observation={"state": Field("float32", (3,))}, action=Field("float32", (1,)))
    replay = Replay.create(schema, capacity_steps=100_000, seed=0)
    writer = replay.writer(environments=1)
    result = 0.0
    for index in range(arguments.episodes):
        episode(env, model, writer, 1.0 if index < 3 else 0.3, index, arguments.length)
        losses: dict[str, float] = {}
        for batch in replay.loader(BATCH, HORIZON, batches=arguments.updates, by="step", torch=True):
            losses = update(model, target, optimizers, batch)
        if (index + 1) % 5 == 0 or index + 1 == arguments.episodes:
            result = float(np.mean([episode(env, model, None, 0, 1000 + i, arguments.length) for i in range(3)]))
            words = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"episode {index + 1}: return {result:.0f}; losses: {words}", flush=True)
    return result


if __name__ == "__main__":
    main()
