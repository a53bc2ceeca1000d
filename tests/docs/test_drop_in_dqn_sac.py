"""docs/drop_in/dqn_sac.md: its blocks run, and what they put in place equals plain formulas, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from drop_in import STEPS, assert_same_training, blocks, descend, randoms
from drop_in_formulas import cross_entropy as dense_cross_entropy
from drop_in_formulas import gaussian_labels, labels_between, symexp, symlog
from twohot.losses import bin_expectation, hl_gauss


def train_dqn(page: dict[str, Any] | None) -> Iterator[Tensor]:
    """A double network with prioritised replay, then the same on windows with a mask; `page` None is the plain form."""
    draw = randoms(4)
    batch, width, actions, length = 6, 5, 3, 4
    observation, following = draw(batch, width), draw(batch, width)
    windows, behind = draw(batch, length, width), draw(batch, length, width)
    action = torch.arange(batch) % actions
    reward = draw(batch, scale=4)
    rewards = draw(batch, length, scale=2)
    ended = torch.tensor([True, False, False, False, True, False])
    terminated = torch.zeros(batch, length, dtype=torch.bool)
    terminated[0, 1] = True
    truncated = torch.zeros_like(terminated)
    truncated[1, 2] = True
    mask = torch.ones_like(terminated)
    mask[2, 2:] = False
    importance = draw(batch).sigmoid()
    choices = (action[:, None] + torch.arange(length)) % actions
    weight = torch.zeros(actions * 51, width).requires_grad_()
    targets = draw(actions * 51, width, scale=0.5)
    # 51 bins that fill -10 .. 10.
    points = (torch.arange(51) - 25) * (20 / 51)

    def net(x: Tensor) -> Tensor:
        return (x @ weight.T).unflatten(-1, (actions, 51))

    def target_net(x: Tensor) -> Tensor:
        return (x @ targets.T).unflatten(-1, (actions, 51))

    def readout(logits: Tensor) -> Tensor:
        return (logits.softmax(-1) * points).sum(-1)

    def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
        return dense_cross_entropy(logits, gaussian_labels(y.clamp(points[0], points[-1]), points, 0.75))

    for _ in range(STEPS):
        if page is None:
            y = reward + 0.9 * (~ended) * readout(target_net(following)).amax(-1).detach()
            chosen = net(observation)[torch.arange(batch), action]
            loss = (importance * cross_entropy(chosen, y)).mean()
            priority = (y - readout(chosen)).abs()
            v = readout(target_net(behind)).amax(-1).detach()
            y = torch.zeros(batch, length)
            for b in range(batch):
                for t in range(length):
                    factor = 1.0
                    for i in range(t, min(t + 3, length)):
                        y[b, t] += factor * rewards[b, i]
                        factor *= 0.9
                        last = i + 1 == length or not mask[b, i + 1] or truncated[b, i] or i == t + 2
                        if terminated[b, i] or last:
                            y[b, t] += 0 if terminated[b, i] else factor * v[b, i]
                            break
            taken = net(windows).take_along_dim(choices[..., None, None], -2).squeeze(-2)
            windowed = cross_entropy(taken[mask], y[mask]).mean()
        else:
            loss, priority = page["dqn_loss"](
                net, target_net, observation, action, reward, ended, following, 0.9, importance
            )
            v_tp1 = bin_expectation(target_net(behind), page["bins"]).amax(-1)
            broken = torch.where(mask, rewards, torch.nan)
            windowed = page["sequence_dqn_loss"](
                net, windows, choices, broken, terminated, truncated, v_tp1, mask, 0.9, 3
            )
        yield from (loss, priority, windowed)
        (loss + windowed).backward()
        yield from descend([weight], rate=1.0)


def train_sac(page: dict[str, Any] | None) -> Iterator[Tensor]:
    """Two critics and a policy with a fixed standard deviation."""
    draw = randoms(5)
    batch, width, actions = 6, 5, 2
    observation, following, action = draw(batch, width), draw(batch, width), draw(batch, actions).tanh()
    noise, later = draw(batch, actions), draw(batch, actions)
    reward = draw(batch, scale=300)
    ended = torch.tensor([True, False, False, False, True, False])
    critics = draw(2, 128, width + actions, scale=0.5)
    targets = draw(2, 128, width + actions, scale=0.5)
    policy = draw(actions, width, scale=0.5)
    parameters = [critics, policy]
    for parameter in parameters:
        parameter.requires_grad_()
    end = math.log1p(100_000)
    points = torch.linspace(-end, end, 128)

    def logits(weight: Tensor, x: Tensor, a: Tensor) -> Tensor:
        return torch.einsum("cne,be->cbn", weight, torch.cat((x, a), -1))

    def act(x: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.tanh(x @ policy.T + 0.3 * epsilon)
        return a, -(epsilon.square() / 2).sum(-1) - (1 - a.square() + 1e-6).log().sum(-1)

    def readout(x: Tensor) -> Tensor:
        return symexp((x.softmax(-1) * points).sum(-1))

    for _ in range(STEPS):
        with torch.no_grad():
            a_tp1, log_prob_tp1 = act(following, later)
            behind = logits(targets, following, a_tp1)
            if page is None:
                y = reward + 0.99 * (~ended) * (readout(behind).amin(0) - 0.2 * log_prob_tp1)
            else:
                y = page["sac_target"](behind, reward, ended, log_prob_tp1, 0.2, 0.99)
        taken = logits(critics, observation, action)
        if page is None:
            critic_loss = sum(dense_cross_entropy(one, labels_between(symlog(y), points)).mean() for one in taken)
        else:
            critic_loss = page["sac_critic_loss"](taken, y)
        a, log_prob = act(observation, noise)
        own = logits(critics.detach(), observation, a)
        if page is None:
            actor_loss = (0.2 * log_prob - readout(own).amin(0)).mean()
        else:
            actor_loss = page["sac_actor_loss"](own, log_prob, 0.2)
        yield from (y, critic_loss, actor_loss)
        (critic_loss + actor_loss).backward()
        yield from descend(parameters, rate=0.1)


def executed(sources: list[str]) -> dict[str, Any]:
    """The namespace of a module of these blocks, which has nothing else in it."""
    namespace: dict[str, Any] = {"__name__": "drop_in"}
    for source in sources:
        exec(compile(source, "docs/drop_in", "exec"), namespace)
    return namespace


HEAD, DQN, SAC = (blocks("dqn_sac", section) for section in ("The head", "DQN", "SAC"))


def check(sources: list[str]) -> None:
    page = executed(sources)
    if "dqn_loss" in page:
        assert_same_training(lambda: train_dqn(None), lambda: train_dqn(page))
    if "sac_target" in page:
        assert_same_training(lambda: train_sac(None), lambda: train_sac(page))


@pytest.mark.parametrize("sources", [HEAD + DQN, HEAD + SAC, HEAD + DQN + SAC], ids=["DQN", "SAC", "both"])
def test_dqn_sac(sources: list[str]) -> None:
    check(sources)


def test_columns_and_numbers_in_place_of_rows_and_booleans_are_refused() -> None:
    page = executed(HEAD + DQN + SAC)
    net = page["BinHead"](5, 3, page["bins"])
    x, action, reward, ended = (
        torch.randn(6, 5),
        torch.zeros(6).long(),
        torch.randn(6),
        torch.zeros(6, dtype=torch.bool),
    )
    page["dqn_loss"](net, net, x, action, reward, ended, x, 0.9)
    for wrong in ((action, reward[:, None], ended), (action, reward, ended.float()), (action[:, None], reward, ended)):
        with pytest.raises((RuntimeError, ValueError)):
            page["dqn_loss"](net, net, x, *wrong, x, 0.9)
    logits = torch.randn(2, 6, 128)
    with pytest.raises(ValueError, match="broadcasts to the rows"):
        page["sac_critic_loss"](logits, page["sac_target"](logits, reward[:, None], ended[:, None], reward, 0.2, 0.9))


def test_dqn_head() -> None:
    page = executed(HEAD + DQN + SAC)
    bins = page["bins"]
    head = page["BinHead"](5, 3, bins)
    logits = head(torch.randn(7, 5))
    assert logits.shape == (7, 3, 51)
    assert (bin_expectation(logits, bins) == 0).all()
    with torch.no_grad():
        head.layer.bias[1 * 51 + 50] = 20
    assert (page["greedy_action"](head, torch.randn(7, 5)) == 1).all()
    chosen = torch.zeros(3, 51, requires_grad=True)
    loss = page["hl_gauss_cross_entropy"](chosen, torch.tensor([1e6, bins.high, -1e6]), bins, reduction="none")
    loss.sum().backward()
    assert loss[0] == loss[1]
    assert (chosen.grad.abs().sum(-1) <= 2).all()
    # 0.75 widths in units of the return, and how far inside of the end a label at the end reads.
    width = bins.high - bins.values(torch.float64)[-2].item()
    assert f"{0.75 * width:.2f}" == "0.29"
    read = hl_gauss(torch.tensor(10.0, dtype=torch.float64), bins) @ bins.values(torch.float64)
    assert f"{(bins.high - read.item()) / width:.1f}" == "0.4"


WRONG = [
    ("ValueBins.from_edges(-10.0, 10.0, 51)", 'ValueBins(-10.0, 10.0, 51, "linear")'),
    ("ValueBins.amago2(count=128)", "ValueBins.c51(-100_000.0, 100_000.0, 128)"),
    ("sigma=0.75", "sigma=0.5"),
    ("weight=importance, ", ""),
    ("len(logits) * ", ""),
    ("truncated_t=truncated, ", ""),
    (", td_targets", ""),
    ("import torch\n", ""),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_a_wrong_page_is_seen(right: str, wrong: str) -> None:
    page = HEAD + DQN + SAC
    sources = [source.replace(right, wrong) for source in page]
    assert sources != page, "the page no longer says what this test changes"
    with pytest.raises((AssertionError, NameError, ValueError)):
        check(sources)
