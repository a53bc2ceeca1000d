"""docs/drop_in/tdmpc2.md: its edits run, and what they put in place equals the host's formulas, step by step."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from compare import assert_accurate
from drop_in import STEPS, assert_same_training, blocks, descend, host, randoms
from drop_in_formulas import symexp

FUNCTIONS, IMPORT, UPDATE = blocks("tdmpc2")
NAMES = itertools.count()


def train(sources: list[str], folder: Path) -> Iterator[Tensor]:
    """Rewards, an ensemble of critics and a policy, as the host trains them with these blocks in it."""
    modules = host("tdmpc2", sources, folder / f"{next(NAMES)}", ("common.math", "tdmpc2"))
    draw = randoms(0)
    cfg = SimpleNamespace(horizon=3, num_q=5, rho=0.5, num_bins=101, vmin=-10, vmax=10)
    assert modules.math.soft_ce(torch.zeros(6, 101), torch.zeros(6, 1), cfg).shape == (6, 1)
    batch, latent, actions = 6, 8, 2
    zs = draw(cfg.horizon + 1, batch, latent)
    action = draw(cfg.horizon, batch, actions).tanh()
    reward = draw(cfg.horizon, batch, 1, scale=1000)
    reward[0, 0] = 1e6
    critics = draw(cfg.num_q, 101, latent + actions, scale=0.5)
    model = draw(101, latent + actions, scale=0.5)
    policy = draw(actions, latent, scale=0.3)
    target = draw(cfg.num_q, 101, latent + actions, scale=0.5)
    agent = modules.tdmpc2.TDMPC2(cfg, critics=critics, target_critics=target, reward=model, policy=policy)
    for _ in range(STEPS):
        td_targets, reward_loss, value_loss = agent._update(zs, action, reward)
        yield from (td_targets, reward_loss, value_loss)
        (reward_loss + value_loss).backward()
        policy_loss, average = agent.update_pi(zs)
        assert average.shape == (cfg.horizon + 1, batch, 1)
        yield average
        yield agent._estimate_value(zs[0], action)
        policy_loss.backward()
        yield from descend([agent.model._Qs, agent.model._reward, agent.model._pi], rate=0.1)


def check(sources: list[str], folder: Path) -> None:
    for part in (sources[:1], sources):
        assert_same_training(lambda: train([], folder), lambda part=part: train(part, folder))


def test_tdmpc2(tmp_path: Path) -> None:
    check([FUNCTIONS, IMPORT, UPDATE], tmp_path)


def test_what_the_page_says_of_the_functions(tmp_path: Path) -> None:
    dropped = host("tdmpc2", [FUNCTIONS], tmp_path, ("common.math",)).math
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


def test_derivative_at_zero_is_what_the_pages_say(tmp_path: Path) -> None:
    dropped = host("tdmpc2", [FUNCTIONS], tmp_path, ("common.math",)).math
    logits = torch.zeros(1, 101, dtype=torch.float64, requires_grad=True)
    dropped.two_hot_inv(logits, None).sum().backward()
    assert_accurate(logits.grad[0], torch.linspace(-10, 10, 101, dtype=torch.float64) / 101)
    zero = torch.zeros((), requires_grad=True)
    symexp(zero).backward()
    assert zero.grad == 0


def test_it_compiles_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = ModuleType("drop_in_math")
    monkeypatch.setitem(sys.modules, dropped.__name__, dropped)
    exec(FUNCTIONS, vars(dropped))

    def loss(pred: Tensor, target: Tensor) -> Tensor:
        return dropped.soft_ce(pred, target, None).mean() + dropped.two_hot_inv(pred, None).mean()

    logits, target = torch.randn(6, 101), 100 * torch.randn(6, 1)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert compiled(logits, target) == loss(logits, target)


WRONG = [
    ("ValueBins.tdmpc2()", "ValueBins(-22025.0, 22025.0, 101)"),
    ("ValueBins.tdmpc2()", "ValueBins.amago2(101)"),
    ('reduction="none")', 'reduction="mean")'),
    (", target.squeeze(-1), BINS", ", target.squeeze(-1).arcsinh(), BINS"),
    ("td_targets.squeeze(-1), BINS, weight=rho", "td_targets.squeeze(-1), BINS"),
    ("import BINS, two_hot_cross_entropy", "import BINS"),
    ("import BINS, two_hot_cross_entropy", "import two_hot_cross_entropy"),
    ("# common/math.py", "# common/maths.py"),
    ("in TDMPC2._update", "in TDMPC2.update_pi"),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_a_wrong_page_is_seen(right: str, wrong: str, tmp_path: Path) -> None:
    page = [FUNCTIONS, IMPORT, UPDATE]
    sources = [source.replace(right, wrong) for source in page]
    assert sources != page, "the page no longer says what this test changes"
    with pytest.raises((AssertionError, ImportError, KeyError, NameError, ValueError)):
        check(sources, tmp_path)
