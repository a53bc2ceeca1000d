"""A DQN whose critic is a classifier over bins: one loss and one readout in place of a squared error and a number.

    python examples/dqn.py [--steps 20000] [--seed 0]

CartPole by a plain loop with a plain buffer; the lines that differ from any other DQN are marked. `--scalar` trains the
same network with the Huber loss of a number instead.
"""

import argparse
import copy
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from twohot.losses import ValueBins, bin_expectation, hl_gauss_cross_entropy

DISCOUNT, BATCH, UPDATE_EVERY, TARGET_EVERY, BEGIN = 0.99, 64, 2, 250, 500
BINS = ValueBins.from_edges(0.0, 100.0, 51)  # returns of at most 1 / (1 - .99)


def network(inputs: int, actions: int, scalar: bool) -> nn.Module:
    outputs = (actions,) if scalar else (actions, BINS.count)  # differs: N logits for each action
    layers = (nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, int(np.prod(outputs))))
    return nn.Sequential(*layers, nn.Unflatten(-1, outputs))


def values(output: Tensor, scalar: bool) -> Tensor:  # [B, actions]
    return output if scalar else bin_expectation(output, BINS)  # differs


def loss(chosen: Tensor, target: Tensor, scalar: bool) -> Tensor:
    if scalar:
        return nn.functional.smooth_l1_loss(chosen, target)
    return hl_gauss_cross_entropy(chosen, target, BINS)  # differs


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scalar", action="store_true")
    arguments = parser.parse_args(argv)
    scalar = arguments.scalar
    torch.set_num_threads(1)  # more do not pay for networks of this size
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)
    env = gym.make("CartPole-v1")
    net = network(4, 2, scalar)
    target_net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    buffer: deque = deque(maxlen=10_000)
    returns: deque = deque(maxlen=20)
    total = 0.0
    observation, _ = env.reset(seed=arguments.seed)
    for step in range(1, arguments.steps + 1):
        epsilon = max(0.05, 1 - step / (0.25 * arguments.steps))
        if random.random() < epsilon:
            action = int(random.integers(2))
        else:
            with torch.no_grad():
                action = int(values(net(torch.from_numpy(observation)), scalar).argmax())
        following, reward, terminated, truncated, _ = env.step(action)
        buffer.append((observation, action, np.float32(reward), terminated, following))
        observation, total = following, total + float(reward)
        if terminated or truncated:
            returns.append(total)
            total = 0.0
            observation, _ = env.reset()
        if step >= BEGIN and step % UPDATE_EVERY == 0:
            rows = (buffer[i] for i in random.integers(len(buffer), size=BATCH))
            o_t, a_t, r_t, end_t, o_tp1 = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
            with torch.no_grad():
                v_tp1 = values(target_net(o_tp1), scalar).amax(-1)
                y_t = r_t + DISCOUNT * torch.where(end_t, 0, v_tp1)  # [B], in units of the return
            chosen = net(o_t)[torch.arange(BATCH), a_t]
            optimizer.zero_grad()
            loss(chosen, y_t, scalar).backward()
            optimizer.step()
        if step % TARGET_EVERY == 0:
            target_net.load_state_dict(net.state_dict())
        if step % max(1, arguments.steps // 10) == 0 and returns:
            print(f"step {step:6}: mean return of the last {len(returns)} episodes {np.mean(returns):.0f}", flush=True)
    return float(np.mean(returns)) if returns else 0.0


if __name__ == "__main__":
    main()
