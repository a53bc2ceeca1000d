"""The pages of docs/drop_in run, and what they put in place of other code equals its formulas, step by step.

The host codes are not installed: each has a stand-in here, in our own lines, with the names and shapes that its page
states.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compare import assert_accurate
from twohot.losses import ValueBins, bin_expectation, hl_gauss, symexp, two_hot

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "drop_in"
PAGES = sorted(FOLDER.glob("*.md"))
STEPS = 4
EXACT = 1e-12 / torch.finfo(torch.float64).eps


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(), re.DOTALL)


def executed(sources: list[str], **names: Any) -> dict[str, Any]:
    """The namespace that the blocks leave, run in order in one that holds `names`."""
    namespace = {"__name__": "drop_in"} | names
    for source in sources:
        exec(compile(source, "docs/drop_in", "exec"), namespace)
    return namespace


# The formulas of the host codes, of float32 or float64.


def plain_symlog(x: Tensor) -> Tensor:
    return x.sign() * x.abs().log1p()


def plain_symexp(x: Tensor) -> Tensor:
    return x.sign() * (x.abs().exp() - 1)


def labels_between(x: Tensor, points: Tensor) -> Tensor:
    """[..., N] two-hot labels of x [...] among ascending points [N]; beyond the ends is the end."""
    right = torch.searchsorted(points, x.contiguous()).clamp(1, len(points) - 1)
    share = ((x - points[right - 1]) / (points[right] - points[right - 1])).clamp(0, 1)
    labels = torch.zeros(*x.shape, len(points), dtype=x.dtype)
    labels.scatter_(-1, (right - 1).unsqueeze(-1), (1 - share).unsqueeze(-1))
    return labels.scatter_(-1, right.unsqueeze(-1), share.unsqueeze(-1))


def gaussian_labels(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """[..., N] HL-Gauss labels of x [...] among evenly spaced points [N], sigma in their distance."""
    width = points[1] - points[0]
    edges = torch.cat((points - width / 2, points[-1:] + width / 2))
    below = 0.5 * (1 + torch.erf((edges - x.unsqueeze(-1)) / (sigma * width * math.sqrt(2))))
    mass = below.diff(dim=-1)
    return mass / mass.sum(-1, keepdim=True).clamp(min=1e-8)


def dense_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -(labels * logits.log_softmax(-1)).sum(-1)


def randoms(seed: int) -> Callable[..., Tensor]:
    """Normal random numbers that float32 holds, in the default dtype; the same for each dtype."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        numbers = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers.to(torch.float32).to(torch.get_default_dtype())

    return draw


def traced(train: Callable[[], Iterator[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return [x.detach().clone() for x in train()]
    finally:
        torch.set_default_dtype(before)


def assert_same_training(plain: Callable[[], Iterator[Tensor]], dropped: Callable[[], Iterator[Tensor]]) -> None:
    """Each tensor that training yields is that of the plain form, as exactly as the pages say."""
    truth, rough = traced(plain, torch.float64), traced(plain, torch.float32)
    same, actual = traced(dropped, torch.float64), traced(dropped, torch.float32)
    assert len(truth) == len(same) == len(actual) >= STEPS
    assert max(x.abs().amax() for x in truth) < 1e9
    for exact, reference, tensor, expected in zip(same, rough, actual, truth, strict=True):
        assert_accurate(exact, expected, floor=EXACT)
        assert_accurate(tensor, expected, reference, floor=64)


def descend(parameters: list[Tensor], rate: float) -> Iterator[Tensor]:
    """One SGD step; yields the gradients."""
    for parameter in parameters:
        yield parameter.grad
        with torch.no_grad():
            parameter.sub_(rate * parameter.grad)
        parameter.grad = None


# TD-MPC2


def plain_tdmpc2() -> SimpleNamespace:
    """soft_ce and two_hot_inv as TD-MPC2 defines them."""

    def points() -> Tensor:
        return torch.linspace(-10, 10, 101)

    def soft_ce(pred: Tensor, target: Tensor, cfg: Any) -> Tensor:
        return dense_cross_entropy(pred, labels_between(plain_symlog(target.squeeze(-1)), points())).unsqueeze(-1)

    def two_hot_inv(x: Tensor, cfg: Any) -> Tensor:
        return plain_symexp((x.softmax(-1) * points()).sum(-1, keepdim=True))

    return SimpleNamespace(soft_ce=soft_ce, two_hot_inv=two_hot_inv)


def train_tdmpc2(math_: SimpleNamespace, update: str | None) -> Iterator[Tensor]:
    """Rewards, an ensemble of critics and a policy, as TDMPC2._update and update_pi train them.

    `update`: the source of a block in place of the loops over the horizon and the critics.
    """
    draw = randoms(0)
    cfg = SimpleNamespace(horizon=3, num_q=5, rho=0.5, num_bins=101)
    batch, latent, actions = 6, 8, 2
    zs = draw(cfg.horizon + 1, batch, latent)
    action = draw(cfg.horizon, batch, actions).tanh()
    reward = draw(cfg.horizon, batch, 1, scale=1000)
    reward[0, 0] = 1e6
    critics = draw(cfg.num_q, 101, latent + actions, scale=0.5)
    model = draw(101, latent + actions, scale=0.5)
    policy = draw(actions, latent, scale=0.3)
    target_critics = draw(cfg.num_q, 101, latent + actions, scale=0.5)
    parameters = [critics, model, policy]
    for parameter in parameters:
        parameter.requires_grad_()

    def q(weight: Tensor, z: Tensor, a: Tensor) -> Tensor:
        return torch.einsum("qne,...e->q...n", weight, torch.cat((z, a), -1))

    for _ in range(STEPS):
        with torch.no_grad():
            values = math_.two_hot_inv(q(target_critics, zs[1:], torch.tanh(zs[1:] @ policy.T))[[3, 1]], cfg)
            td_targets = reward + 0.99 * values.amin(0)
        qs = q(critics, zs[:-1], action)
        reward_preds = torch.cat((zs[:-1], action), -1) @ model.T
        if update is None:
            reward_loss = value_loss = 0
            for t in range(cfg.horizon):
                reward_loss = reward_loss + cfg.rho**t * math_.soft_ce(reward_preds[t], reward[t], cfg).mean()
                for c in range(cfg.num_q):
                    value_loss = value_loss + cfg.rho**t * math_.soft_ce(qs[c, t], td_targets[t], cfg).mean()
            reward_loss, value_loss = reward_loss / cfg.horizon, value_loss / (cfg.horizon * cfg.num_q)
        else:
            names = {"qs": qs, "reward_preds": reward_preds, "reward": reward, "td_targets": td_targets}
            given = {name: vars(math_)[name] for name in ("BINS", "two_hot_cross_entropy")}
            after = executed([update], self=SimpleNamespace(cfg=cfg), torch=torch, **names, **given)
            reward_loss, value_loss = after["reward_loss"], after["value_loss"]
        yield from (td_targets, reward_loss, value_loss)
        (reward_loss + value_loss).backward()
        frozen = critics.detach()
        average = math_.two_hot_inv(q(frozen, zs, torch.tanh(zs @ policy.T))[[0, 4]], cfg).sum(0) / 2
        assert average.shape == (cfg.horizon + 1, batch, 1)
        yield average
        (-average.mean()).backward()
        yield from descend(parameters, rate=0.1)


def check_tdmpc2(sources: list[str]) -> None:
    functions, update = sources
    dropped = SimpleNamespace(**executed([functions]))
    plain = plain_tdmpc2()
    assert_same_training(lambda: train_tdmpc2(plain, None), lambda: train_tdmpc2(dropped, None))
    assert_same_training(lambda: train_tdmpc2(plain, None), lambda: train_tdmpc2(dropped, update))
    rows = dropped.soft_ce(torch.randn(6, 101), torch.randn(6, 1), None)
    assert rows.shape == (6, 1)
    half = torch.randn(2, 6, 101, dtype=torch.bfloat16)
    assert dropped.two_hot_inv(half, None).dtype == torch.float32
    assert dropped.soft_ce(half[0], torch.randn(6, 1), None).dtype == torch.float32
    assert (dropped.two_hot_inv(torch.zeros(2, 6, 101), None) == 0).all()
    one_broken = dropped.soft_ce(torch.zeros(3, 101), torch.tensor([[1.0], [torch.nan], [1e30]]), None)
    assert one_broken.squeeze(-1).isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match="broadcasts to the rows"):
        dropped.two_hot_cross_entropy(torch.zeros(6, 101), torch.zeros(6, 1), dropped.BINS)


def test_tdmpc2() -> None:
    check_tdmpc2(blocks("tdmpc2"))


def test_derivative_at_zero_is_what_the_pages_say() -> None:
    dropped = SimpleNamespace(**executed(blocks("tdmpc2")[:1]))
    logits = torch.zeros(1, 101, dtype=torch.float64, requires_grad=True)
    dropped.two_hot_inv(logits, None).sum().backward()
    assert_accurate(logits.grad[0], torch.linspace(-10, 10, 101, dtype=torch.float64) / 101)
    zero = torch.zeros((), requires_grad=True)
    plain_symexp(zero).backward()
    assert zero.grad == 0


def test_tdmpc2_compiles_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = ModuleType("drop_in_math")
    monkeypatch.setitem(sys.modules, dropped.__name__, dropped)
    exec(blocks("tdmpc2")[0], vars(dropped))

    def loss(pred: Tensor, target: Tensor) -> Tensor:
        return dropped.soft_ce(pred, target, None).mean() + dropped.two_hot_inv(pred, None).mean()

    logits, target = torch.randn(6, 101), 100 * torch.randn(6, 1)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert compiled(logits, target) == loss(logits, target)


# DreamerV3


class PlainDistribution:
    """The distribution of the ports of 2023: labels and readout among the centers, in symlog space."""

    raw = False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        centers = torch.linspace(-20, 20, 255, dtype=logits.dtype)
        self.points = plain_symexp(centers) if self.raw else centers

    def log_prob(self, x: Tensor) -> Tensor:
        x = x.squeeze(-1) if x.dim() == self.logits.dim() else x
        labels = labels_between(x if self.raw else plain_symlog(x), self.points)
        return -dense_cross_entropy(self.logits, labels)

    def mode(self) -> Tensor:
        mean = (self.logits.softmax(-1) * self.points).sum(-1, keepdim=True)
        return mean if self.raw else plain_symexp(mean)

    mean = mode


class PlainRawDistribution(PlainDistribution):
    """The distribution of 2024: labels and readout among the values of the bins."""

    raw = True


def train_dreamerv3(distribution: Callable[[Tensor], Any], critic: str | None = None, **names: Any) -> Iterator[Tensor]:
    """A reward head and a critic with two targets; `critic`: the source of the block in place of its loss.

    The heads begin near the distribution of a value, so that the raw readout, over values up to 485 million, stays of
    the order of a return.
    """
    draw = randoms(1)
    time, batch, width = 5, 4, 8
    features = draw(time, batch, width)
    reward = draw(time, batch, scale=30)
    target = draw(time, batch, 1, scale=300)
    target[0, 0] = 1e10
    weights = draw(time + 1, batch, 1).sigmoid()
    start = torch.linspace(-20, 20, 255).square() / -4
    heads = [draw(255, width, scale=0.1).requires_grad_() for _ in range(2)]
    slow = draw(255, width, scale=0.1)
    for _ in range(STEPS):
        prediction = distribution(features @ heads[0].T + start)
        reward_loss = -prediction.log_prob(reward)
        assert reward_loss.shape == (time, batch)
        value = distribution(features @ heads[1].T + start)
        slow_target = distribution(features @ slow.T + start)
        assert value.mode().shape == (time, batch, 1)
        if critic is None:
            value_loss = -value.log_prob(target) - value.log_prob(slow_target.mode().detach())
            value_loss = (weights[:-1] * value_loss[:, :, None]).mean()
        else:
            given = {"value": value, "target": target, "slow_target": slow_target, "weights": weights}
            config = SimpleNamespace(critic={"slow_target": True})
            after = executed([critic], self=SimpleNamespace(_config=config), **given, **names)
            value_loss = after["value_loss"]
        yield from (reward_loss, value_loss, value.mode(), prediction.mean())
        (reward_loss.mean() + value_loss).backward(retain_graph=True)
        (0.001 * value.mode().mean()).backward()
        yield from descend(heads, rate=0.1)


def check_dreamerv3(sources: list[str]) -> None:
    old, new, critic = sources
    page = executed([old, new])
    function = page["two_hot_cross_entropy"]
    for name, distribution in (("TwoHotDist", PlainDistribution), ("RawTwoHotDist", PlainRawDistribution)):
        assert_same_training(lambda d=distribution: train_dreamerv3(d), lambda name=name: train_dreamerv3(page[name]))
    assert_same_training(
        lambda: train_dreamerv3(PlainDistribution),
        lambda: train_dreamerv3(page["TwoHotDist"], critic, two_hot_cross_entropy=function),
    )
    for name in ("TwoHotDist", "RawTwoHotDist"):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            empty = page[name](torch.zeros(3, 4, 255, dtype=dtype))
            assert (empty.mode() == 0).all()
            assert (empty.mean() == 0).all()
            assert empty.log_prob(torch.ones(3, 4)).dtype == torch.promote_types(dtype, torch.float32)


def test_dreamerv3() -> None:
    check_dreamerv3(blocks("dreamerv3"))


def test_dreamerv3_labels_between_values_and_in_symlog_space_differ_by_what_the_page_says() -> None:
    bins = ValueBins.dreamerv3("raw")
    target = symexp(torch.linspace(12, 13, 10_001, dtype=torch.float64))
    values = bins.values(torch.float64)
    excess = (two_hot(target, replace(bins, labels="transformed")) @ values / target - 1).amax().item()
    assert f"{100 * excess:.2f} %" == "0.31 %"
    assert "0.31 %" in (FOLDER / "dreamerv3.md").read_text()
    exact = two_hot(target, bins) @ values
    assert_accurate(exact / target, torch.ones_like(target), floor=EXACT)
    assert "to about 2e-5" in (FOLDER / "dreamerv3.md").read_text()
    assert (two_hot(target.float(), bins) - labels_between(target.float().double(), values)).abs().amax() < 2e-5


# AMAGO


class PlainEnsemble(nn.Module):
    """C two-layer networks: [B, L, D] -> outputs [B, L, C, N], and what the last layer saw."""

    def __init__(self, critics: int, inputs: int, hidden: int, outputs: int, seed: int) -> None:
        super().__init__()
        draw = randoms(seed)
        self.first = nn.Parameter(draw(critics, hidden, inputs, scale=0.5))
        self.last = nn.Parameter(draw(critics, outputs, hidden, scale=0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        phi = torch.einsum("chd,bld->blch", self.first, x).tanh()
        return torch.einsum("coh,blch->blco", self.last, phi), phi


def gammas_as_input_seq(gammas: Tensor, batch_size: int, length: int) -> Tensor:
    """[batch_size * G, length, 1]: what the critics see of the discounts."""
    feature = plain_symlog(1 / (1 - gammas).clamp(1e-6, 1))
    return feature.repeat(batch_size).reshape(-1, 1, 1).expand(-1, length, 1)


class NCriticsTwoHot(nn.Module):
    """A stand-in with the interface of amago.nets.actor_critic.NCriticsTwoHot."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        gammas: Tensor,
        discrete: bool,
        num_critics: int,
        d_hidden: int = 256,
        min_return: float | None = None,
        max_return: float | None = None,
        output_bins: int = 128,
        use_symlog: bool = True,
        label_type: str = "twohot",
        sigma: float = 0.75,
    ) -> None:
        super().__init__()
        self.gammas, self.num_gammas, self.num_critics = gammas, len(gammas), num_critics
        self.num_bins, self.label_type, self.sigma = output_bins, label_type, sigma
        self.transform_values = plain_symlog if use_symlog else torch.clone
        self.invert_bins = plain_symexp if use_symlog else torch.clone
        low = -100_000.0 if min_return is None else min_return
        high = 100_000.0 if max_return is None else max_return
        ends = self.transform_values(torch.tensor([low, high], dtype=torch.float32)).tolist()
        self.bin_vals = torch.linspace(*ends, output_bins)
        self.net = PlainEnsemble(num_critics, state_dim + 1 + action_dim, d_hidden, output_bins, seed=3)

    def __len__(self) -> int:
        return self.num_critics

    def forward(self, state: Tensor, action: Tensor, log_dict: dict | None = None) -> Any:
        assert state.dim() == 3
        assert action.dim() == 5
        return self.critic_network_forward(state=state, action=action, log_dict=log_dict)

    def critic_network_forward(self, state: Tensor, action: Tensor, log_dict: dict | None = None) -> Any:
        K, B, L, G, A = action.shape
        discount = gammas_as_input_seq(self.gammas, K * B, L)
        state = state.unsqueeze(1).expand(B, G, L, -1).repeat(K, 1, 1, 1).flatten(0, 1)
        action = action.clamp(-0.999, 0.999).transpose(2, 3).reshape(K * B * G, L, A)
        outputs, _ = self.net(torch.cat((state, discount, action), -1))
        outputs = outputs.unflatten(0, (K, B, G)).permute(0, 1, 3, 4, 2, 5)
        return torch.distributions.Categorical(logits=outputs, validate_args=False)

    def bin_dist_to_raw_vals(self, bin_dist: Any) -> Tensor:
        return self.invert_bins((bin_dist.probs * self.bin_vals).sum(-1, keepdim=True))

    def raw_vals_to_labels(self, raw_td_target: Tensor) -> Tensor:
        x = self.transform_values(raw_td_target.squeeze(-1))
        hl = self.label_type == "hlgauss"
        return gaussian_labels(x, self.bin_vals, self.sigma) if hl else labels_between(x, self.bin_vals)


class MultiTaskAgent:
    """A stand-in for the critic's part of amago.agent.MultiTaskAgent."""

    def __init__(self, critic_type: type = NCriticsTwoHot, **arguments: Any) -> None:
        self.critics, self.target_critics = critic_type(**arguments), critic_type(**arguments)

    def critic_loss(self, s: Tensor, a: Tensor, a_prime: Tensor, reward: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The masked loss, the losses [B, L - 1, C, G, 1], and the values of the actions taken.

        s [B, L, D]; a [B, L, G, A]; a_prime [K, B, L, G, A]; reward [B, L - 1, 1], multiplied; mask [B, L - 1, 1] bool.
        """
        (B, L, _), (G, C, N) = s.shape, (a.shape[2], len(self.critics), self.critics.num_bins)
        with torch.no_grad():
            following = self.target_critics(s[:, 1:], a_prime[:, :, 1:])
            assert following.probs.shape == (len(a_prime), B, L - 1, C, G, N)
            values = self.target_critics.bin_dist_to_raw_vals(following).mean(0).mean(2, keepdim=True)
            target = reward[:, :, None, None] + self.critics.gammas[:, None] * values
            assert target.shape == (B, L - 1, 1, G, 1)
            labels = self.target_critics.raw_vals_to_labels(target)
            # These calls are what einops makes of repeat "b l 1 g n -> b l C g n" and of rearrange to rows.
            labels = torch.unsqueeze(labels.reshape([B, L - 1, G, N]), 2).expand([-1, -1, C, -1, -1])
            assert labels.shape == (B, L - 1, C, G, N)
        prediction = self.critics(s, a.unsqueeze(0), log_dict=None)
        assert prediction.probs.shape == (1, B, L, C, G, N)
        rows = prediction.logits[0, :, :-1].reshape(-1, N)
        losses = functional.cross_entropy(rows, labels.reshape([len(rows), N]), reduction="none")
        losses = losses.reshape(B, L - 1, C, G, 1)
        counted = mask[:, :, None, None].expand(losses.shape).to(losses.dtype)
        return (losses * counted).sum() / (counted.sum() + 1e-5), losses, self.critics.bin_dist_to_raw_vals(prediction)


def train_amago(critic_type: type, **options: Any) -> Iterator[Tensor]:
    draw = randoms(2)
    B, L, D, A, K, C, G = 2, 5, 4, 3, 3, 4, 2
    gammas = torch.tensor([0.9, 0.99])
    agent = MultiTaskAgent(
        critic_type, state_dim=D, action_dim=A, gammas=gammas, discrete=True, num_critics=C, d_hidden=6, **options
    )
    states, actions, primes = draw(B, L, D), draw(B, L, G, A), draw(K, B, L, G, A)
    reward = draw(B, L - 1, 1, scale=20)
    mask = torch.ones(B, L - 1, 1, dtype=torch.bool)
    mask[1, 2:] = False
    for _ in range(STEPS):
        states.requires_grad_()
        loss, losses, values = agent.critic_loss(states, actions, primes, reward, mask)
        yield from (loss, losses, values)
        loss.backward()
        # A policy climbs the values.
        (0.001 * agent.critics.bin_dist_to_raw_vals(agent.critics(states, primes)).mean()).backward()
        yield from descend([states, *agent.critics.parameters()], rate=0.1)
        states = states.detach()


@pytest.fixture
def amago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that the page imports, made of the stand-ins."""
    contents: dict[str, dict[str, Any]] = {
        "amago": {},
        "amago.nets": {},
        "amago.agent": {"MultiTaskAgent": MultiTaskAgent},
        "amago.nets.actor_critic": {"NCriticsTwoHot": NCriticsTwoHot, "gammas_as_input_seq": gammas_as_input_seq},
        "amago.nets.utils": {"symlog": plain_symlog},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    # The compiler would take minutes and change nothing here.
    monkeypatch.setattr(torch, "compile", lambda function: function)


OPTIONS = (
    {"min_return": -500.0, "max_return": 1000.0, "output_bins": 16},
    {"output_bins": 17, "label_type": "hlgauss", "sigma": 1.5},
    {"min_return": -200.0, "max_return": 200.0, "output_bins": 33, "use_symlog": False},
    {"min_return": -400.0, "max_return": 400.0, "output_bins": 32, "use_symlog": False, "label_type": "hlgauss"},
)


def check_amago(sources: list[str]) -> None:
    fused = executed(sources[:1])["FusedCritics"]
    for options in OPTIONS:
        assert_same_training(
            lambda options=options: train_amago(NCriticsTwoHot, **options),
            lambda options=options: train_amago(fused, **options),
        )


@pytest.mark.usefixtures("amago")
def test_amago() -> None:
    check_amago(blocks("amago"))


@pytest.mark.usefixtures("amago")
def test_amago_labels_are_written_where_anything_but_the_loss_reads_them() -> None:
    page = executed(blocks("amago")[:1])
    arguments = {"state_dim": 4, "action_dim": 3, "gammas": torch.tensor([0.9]), "discrete": True, "num_critics": 2}
    for label_type in ("twohot", "hlgauss"):
        critics = page["FusedCritics"](**arguments, label_type=label_type)
        assert critics.bins.count == 128
        assert critics.bins.transformed_ends == pytest.approx(ValueBins.amago2().transformed_ends, rel=1e-7)
        target = 100 * torch.randn(2, 3, 1, 1, 1)
        labels = critics.raw_vals_to_labels(target)
        expected = (hl_gauss if label_type == "hlgauss" else two_hot)(target.squeeze(-1), critics.bins)
        assert labels.shape == expected.shape
        for function in (
            lambda x: x + 0,
            lambda x: x.sum(-1),
            lambda x: x.argmax(-1),
            lambda x: x[..., 3],
            lambda x: x.reshape(-1),
            lambda x: x.reshape([-1]),
            lambda x: x.unsqueeze(-1),
            lambda x: torch.unsqueeze(x, -1),
            lambda x: x.float(),
            lambda x: functional.kl_div(torch.zeros(2, 3, 1, 1, 128), x, reduction="sum"),
        ):
            result = function(labels)
            assert type(result) is Tensor
            assert torch.equal(result, function(expected))
        moved = torch.unsqueeze(labels.reshape([6, 128]), 1).expand([-1, 4, -1])
        assert type(moved) is page["TargetLabels"]
        assert moved.target.data_ptr() == target.data_ptr()
        assert torch.equal(moved + 0, expected.reshape(6, 1, 128).expand(-1, 4, -1))
        with pytest.raises(TypeError):
            torch.cat([labels, labels])


@pytest.mark.usefixtures("amago")
def test_amago_hlgauss_beyond_the_ends_is_what_the_page_says() -> None:
    page = executed(blocks("amago")[:1])
    arguments = {"state_dim": 4, "action_dim": 3, "gammas": torch.tensor([0.9]), "discrete": True, "num_critics": 2}
    arguments |= {"min_return": -10.0, "max_return": 10.0, "output_bins": 21, "use_symlog": False}
    arguments |= {"label_type": "hlgauss"}
    far, end = torch.full((1, 1, 1, 1, 1), 20.0), torch.full((1, 1, 1, 1, 1), 10.0)
    logits = torch.randn(1, 21)
    plain, fused = NCriticsTwoHot(**arguments), page["FusedCritics"](**arguments)
    assert dense_cross_entropy(logits, plain.raw_vals_to_labels(far).flatten(0, -2)) == 0
    losses = [
        functional.cross_entropy(logits, fused.raw_vals_to_labels(target).reshape([1, 21]), reduction="none")
        for target in (far, end)
    ]
    assert losses[0] == losses[1] > 1


@pytest.mark.usefixtures("amago")
def test_amago_registers_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    gin = pytest.importorskip("gin")
    official = gin.configurable(type("NCriticsTwoHot", (NCriticsTwoHot,), {}), module="amago.nets.actor_critic")
    agent = gin.configurable(type("MultiTaskAgent", (MultiTaskAgent,), {}), module="amago.agent")
    monkeypatch.setattr(sys.modules["amago.nets.actor_critic"], "NCriticsTwoHot", official)
    arguments = {"state_dim": 4, "action_dim": 3, "gammas": torch.tensor([0.9]), "discrete": True, "num_critics": 2}
    try:
        gin.bind_parameter("amago.nets.actor_critic.NCriticsTwoHot.output_bins", 16)
        assert type(agent(**arguments).critics) is NCriticsTwoHot
        fused = executed(blocks("amago"))["FusedCritics"]
        made = agent(**arguments)
        assert type(made.critics) is type(made.target_critics) is fused
        assert made.critics.bins.count == 16
        made.critics.load_state_dict(official(**arguments).state_dict())
        gin.clear_config()
        (written,) = re.findall(r"```gin\n(.*?)```", (FOLDER / "amago.md").read_text(), re.DOTALL)
        gin.parse_config(f"{written}\nNCriticsTwoHot.output_bins = 16\nFusedCritics.output_bins = 32")
        assert issubclass(type(agent(**arguments).critics), fused)
        assert agent(**arguments).critics.bins.count == 32
    finally:
        gin.clear_config()


# DQN and SAC


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
        return plain_symexp((x.softmax(-1) * points).sum(-1))

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
            critic_loss = sum(dense_cross_entropy(one, labels_between(plain_symlog(y), points)).mean() for one in taken)
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


def check_dqn_sac(sources: list[str]) -> None:
    page = executed(sources)
    assert_same_training(lambda: train_dqn(None), lambda: train_dqn(page))
    assert_same_training(lambda: train_sac(None), lambda: train_sac(page))


def test_dqn_sac() -> None:
    check_dqn_sac(blocks("dqn_sac"))


def test_dqn_head() -> None:
    page = executed(blocks("dqn_sac"))
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


# The checks see a page that is wrong.

WRONG = [
    (check_tdmpc2, "tdmpc2", "ValueBins.tdmpc2()", "ValueBins(-22025.0, 22025.0, 101)"),
    (check_tdmpc2, "tdmpc2", "ValueBins.tdmpc2()", "ValueBins.amago2(101)"),
    (check_tdmpc2, "tdmpc2", 'reduction="none")', 'reduction="mean")'),
    (check_tdmpc2, "tdmpc2", ", target.squeeze(-1), BINS", ", target.squeeze(-1).arcsinh(), BINS"),
    (check_tdmpc2, "tdmpc2", "td_targets.squeeze(-1), BINS, weight=rho", "td_targets.squeeze(-1), BINS"),
    (check_dreamerv3, "dreamerv3", 'readout="transformed"', 'readout="raw"'),
    (check_dreamerv3, "dreamerv3", 'readout="raw"', 'readout="transformed"'),
    (
        check_dreamerv3,
        "dreamerv3",
        'ValueBins.dreamerv3(readout="raw")',
        'ValueBins(TwoHotDist.bins.low, TwoHotDist.bins.high, 255, readout="raw")',
    ),
    (check_dreamerv3, "dreamerv3", 'ValueBins.dreamerv3(readout="transformed")', "ValueBins.amago2(255)"),
    (check_dreamerv3, "dreamerv3", "target.squeeze(-1), value.bins, weight=rows", "target.squeeze(-1), value.bins"),
    (check_amago, "amago", 'readout="transformed"', 'readout="raw"'),
    (check_amago, "amago", '"symlog" if self.transform_values is symlog else "linear"', '"symlog"'),
    (check_amago, "amago", "self.bins, self.sigma, reduction", "self.bins, reduction"),
    (check_amago, "amago", "ValueBins(low, high,", "ValueBins(-100_000.0, 100_000.0,"),
    (check_amago, "amago", ".transpose(3, 4)\n\n    def bin_dist", ".transpose(3, 4).flip(3)\n\n    def bin_dist"),
    (check_dqn_sac, "dqn_sac", "ValueBins.from_edges(-10.0, 10.0, 51)", 'ValueBins(-10.0, 10.0, 51, "linear")'),
    (check_dqn_sac, "dqn_sac", "ValueBins.amago2(count=128)", "ValueBins.c51(-100_000.0, 100_000.0, 128)"),
    (check_dqn_sac, "dqn_sac", "sigma=0.75", "sigma=0.5"),
    (check_dqn_sac, "dqn_sac", "weight=importance, ", ""),
    (check_dqn_sac, "dqn_sac", "len(logits) * ", ""),
    (check_dqn_sac, "dqn_sac", "truncated_t=truncated, ", ""),
]


@pytest.mark.usefixtures("amago")
@pytest.mark.parametrize(("check", "page", "right", "wrong"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_a_wrong_page_is_seen(check: Callable[[list[str]], None], page: str, right: str, wrong: str) -> None:
    sources = [source.replace(right, wrong) for source in blocks(page)]
    assert sources != blocks(page), "the page no longer says what this test changes"
    with pytest.raises((AssertionError, ValueError)):
        check(sources)


# The pages


def test_there_is_a_page_for_each_host() -> None:
    assert {page.stem for page in PAGES} == {"README", "amago", "dqn_sac", "dreamerv3", "tdmpc2"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_line_widths(page: Path) -> None:
    text = page.read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text) if "://" not in target]
    assert not [target for target in linked if not (page.parent / target).exists()]
    assert not [line for line in text.splitlines() if len(line) > 120]
