"""AMAGO-2 as one file to fork, of the package's parts: replay, attention, losses. Half a minute on one core.

    python examples/own_loop.py [--epochs 60] [--seed 0]

At the first step of a trial a card is turned, and each step that names it pays: 1 point if its back is red, 1000 if it
is blue. Only the back is seen from then on. One agent learns both from memory, with no task labels and no reward
clipping; who has no memory names the card in a quarter of the steps.
"""

import argparse
import copy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.losses import (
    ValueBins,
    bin_expectation,
    filtered_behavior_cloning,
    symlog,
    td_targets,
    two_hot_cross_entropy,
)
from twohot.replay import Field, Replay, Schema

CARDS, STEPS, SCALES = 4, 12, np.float32([1.0, 1000.0])  # of a colour; of a trial; by colour
TRIALS, BATCH, UPDATES = 32, 32, 8  # at once; of a batch; after each round of trials
WIDTH, HEADS, LAYERS, CRITICS = 64, 4, 1, 2
DISCOUNT, N_STEP, TARGET_RATE, RATE = 0.5, STEPS, 0.05, 2e-3  # the paper's targets are of one step: slower here
BINS = ValueBins.amago2(count=96)


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 2 * WIDTH), nn.LeakyReLU(), nn.Linear(2 * WIDTH, outputs))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out, self.mlp = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), mlp(WIDTH, WIDTH)

    def forward(self, x: Tensor, attend) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).unbind(-3)
        x = x + self.out(attend(q, k, v).flatten(-2))
        return x + self.mlp(self.norms[1](x))


class Agent(nn.Module):
    """A memory of what has happened so far, an actor and critics on top of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(mlp(len(SCALES) + 2 * CARDS + 2, WIDTH), nn.LayerNorm(WIDTH))
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        self.actor, self.critics = mlp(WIDTH, CARDS), mlp(WIDTH, CRITICS * CARDS * BINS.count)

    def encode(self, card: Tensor, action: Tensor, reward: Tensor, time: Tensor, attend) -> Tensor:
        last = nn.functional.one_hot(action, CARDS) * (time > 0).unsqueeze(-1)
        x = self.embed(torch.cat((card, last, symlog(reward).unsqueeze(-1), time.unsqueeze(-1) / STEPS), -1))
        for index, layer in enumerate(self.layers):
            x = layer(x, partial(attend, layer=index))
        return self.norm(x)

    def logits(self, h: Tensor) -> Tensor:  # [..., C, cards, N]
        return self.critics(h).unflatten(-1, (CRITICS, CARDS, BINS.count))


def play(agent: Agent, writer, random: np.random.Generator, explore: float) -> np.ndarray:
    """A trial in each environment; of each colour, the share of steps that paid."""
    card, back = random.integers(CARDS, size=TRIALS), np.arange(TRIALS) % len(SCALES)
    face, no_face = np.eye(CARDS, dtype=np.float32)[card], np.zeros((TRIALS, CARDS), np.float32)
    shown, hidden = (np.concatenate((np.eye(2, dtype=np.float32)[back], seen), 1) for seen in (face, no_face))
    action, reward, paid = np.zeros(TRIALS, np.int64), np.zeros(TRIALS, np.float32), np.zeros(TRIALS)
    cache, never = KVCache(LAYERS, TRIALS, HEADS, WIDTH // HEADS, STEPS), np.zeros(TRIALS, bool)
    if writer:
        writer.begin({"card": shown})
    for step in range(STEPS):
        now = torch.full((TRIALS,), float(step))
        with torch.no_grad():
            seen = torch.from_numpy(hidden if step else shown), torch.from_numpy(action), torch.from_numpy(reward), now
            h = agent.encode(*seen, partial(decode_attention, cache=cache))
            action = agent.actor(h).softmax(-1).multinomial(1).squeeze(-1).numpy()
        cache.advance()
        action = np.where(random.random(TRIALS) < explore, random.integers(CARDS, size=TRIALS), action)
        reward = SCALES[back] * (action == card).astype(np.float32)
        paid += action == card
        if writer:
            writer.append(action, reward, never | (step == STEPS - 1), never, {"card": hidden})
    return np.array([paid[back == index].mean() / STEPS for index in range(len(SCALES))])


def learn(agent: Agent, target: Agent, optimizer: torch.optim.Optimizer, batch) -> None:
    """One update on a batch of windows: [B, L] steps, and [B, L + 1] rows of what was seen."""

    def attend(q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        return causal_attention(q, k, v, batch.mask.sum(-1) + 1)

    time = batch.time.float()
    h = agent.encode(batch.observation["card"], batch.previous_action, batch.previous_reward, time, attend)
    h_t, h_tp1, a_t = h[:, :-1], h[:, 1:].detach(), batch.action.unsqueeze(-1)
    with torch.no_grad():  # the critics' targets: what the target heads expect of their own policy
        q_tp1 = bin_expectation(target.logits(h_tp1), BINS).mean(-2)
        v_tp1 = (target.actor(h_tp1).softmax(-1) * q_tp1).sum(-1)
        ends = {"terminated_t": batch.terminated, "truncated_t": batch.truncated, "mask": batch.mask}
        y_t = td_targets(batch.reward, DISCOUNT, v_tp1, **ends, n=N_STEP)
    logits = agent.logits(h_t)
    chosen = logits.take_along_dim(a_t[..., None, None], -2).squeeze(-2)  # [B, L, C, N]
    critic_loss = two_hot_cross_entropy(chosen, y_t.unsqueeze(-1), BINS, mask=batch.mask.unsqueeze(-1))

    policy = torch.distributions.Categorical(logits=agent.actor(h_t))
    with torch.no_grad():  # how much better the stored action is than the policy's own
        q_t = bin_expectation(logits, BINS).mean(-2)
        advantage = (q_t.take_along_dim(a_t, -1) - (policy.probs * q_t).sum(-1, keepdim=True)).squeeze(-1)
    actor_loss = filtered_behavior_cloning(policy.log_prob(batch.action), advantage, "binary", batch.mask)
    optimizer.zero_grad()
    (critic_loss + actor_loss).backward()
    nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), agent.parameters(), strict=True):
            slow.lerp_(fast, TARGET_RATE)


def main(argv: list[str] | None = None) -> np.ndarray:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # more do not pay for networks of this size
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)
    agent = Agent()
    target = copy.deepcopy(agent).requires_grad_(False)
    optimizer = torch.optim.AdamW(agent.parameters(), lr=RATE)
    schema = Schema(observation={"card": Field("float32", (len(SCALES) + CARDS,))}, action=Field("int64"))
    replay = Replay.create(schema, capacity_trajectories=2000, seed=arguments.seed)
    writer = replay.writer(environments=TRIALS)
    for epoch in range(arguments.epochs):
        play(agent, writer, random, explore=max(0.05, 1 - 2 * epoch / arguments.epochs))
        for batch in replay.loader(BATCH, STEPS, batches=UPDATES, torch=True):
            learn(agent, target, optimizer, batch)
        if (epoch + 1) % 10 == 0 or epoch + 1 == arguments.epochs:
            one, thousand = share = play(agent, None, random, explore=0)
            print(f"epoch {epoch + 1:3}: named in {one:.2f} of the steps for 1 and {thousand:.2f} for 1000", flush=True)
    return share


if __name__ == "__main__":
    main()
