"""docs/drop_in/dreamerv3.md: its edits run, and what they put in place equals the host's formulas, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from compare import assert_accurate
from drop_in import EXACT, FOLDER, STEPS, assert_same_training, blocks, descend, host, randoms
from drop_in_formulas import labels_between
from twohot.losses import ValueBins, symexp, two_hot

CLASS, CONSTRUCTION = blocks("dreamerv3", "dreamerv3-torch: the two-line")
IMPORT, CRITIC = blocks("dreamerv3", "dreamerv3-torch: one call")
(SHEEPRL,) = blocks("dreamerv3", "sheeprl")
(R2DREAMER,) = blocks("dreamerv3", "r2dreamer")
NAMES = itertools.count()
TIME, BATCH, WIDTH = 5, 4, 8


def given() -> dict[str, Tensor]:
    """What heads are trained on.

    They begin near the distribution of a value, so that the raw readout, over values up to 485 million, stays of the
    order of a return.
    """
    draw = randoms(1)
    features = draw(TIME + 1, BATCH, WIDTH)
    reward = draw(TIME, BATCH, 1, scale=30)
    target = draw(TIME, BATCH, 1, scale=300)
    target[0, 0] = 1e10
    weights = draw(TIME + 1, BATCH, 1).sigmoid()
    start = torch.linspace(-20, 20, 255).square() / -4
    heads = [draw(255, WIDTH, scale=0.1) for _ in range(2)]
    slow = draw(255, WIDTH, scale=0.1)
    names = {"features": features, "reward": reward, "target": target, "weights": weights}
    return names | {"start": start, "first": heads[0], "second": heads[1], "slow": slow}


def train_dreamerv3_torch(sources: list[str], folder: Path) -> Iterator[Tensor]:
    """The reward head of a world model, and a critic with two targets."""
    models = host("dreamerv3_torch", sources, folder / f"{next(NAMES)}", ("models",)).models
    x = SimpleNamespace(**given())
    world = models.WorldModel(x.first, x.start)
    behavior = models.ImagBehavior(SimpleNamespace(critic={"slow_target": True}), x.second, x.slow, x.start)
    slow = behavior._slow_value.mean_layer.weight
    target = x.target.requires_grad_()
    heads = [world.heads["reward"].mean_layer.weight, behavior.value.mean_layer.weight]
    for _ in range(STEPS):
        reward_loss, prediction = world._train(x.features[:-1], {"reward": x.reward.squeeze(-1)})
        assert reward_loss.shape == (TIME, BATCH)
        value_loss, value = behavior._train(x.features, target, x.weights)
        assert value.shape == (TIME, BATCH, 1)
        yield from (reward_loss, value_loss, value, prediction)
        (reward_loss.mean() + value_loss + 0.001 * value.mean()).backward()
        assert slow.grad is target.grad is None
        yield from descend(heads, rate=0.1)


def train_r2dreamer(sources: list[str], folder: Path) -> Iterator[Tensor]:
    """Two heads with the methods that the host calls."""
    networks = host("r2dreamer", sources, folder / f"{next(NAMES)}", ("networks",)).networks
    x = SimpleNamespace(**given())
    heads = [networks.MLPHead(weight, x.start) for weight in (x.first, x.second)]
    slow = networks.MLPHead(x.slow, x.start)
    for _ in range(STEPS):
        reward_loss = -heads[0](x.features[:-1]).log_prob(x.reward)
        value = heads[1](x.features[:-1])
        losses = value.log_prob(x.target) + value.log_prob(slow(x.features[:-1]).mode().detach())
        value_loss = -(x.weights[:-1] * losses.unsqueeze(-1)).mean()
        yield from (reward_loss, value_loss, value.mode())
        (reward_loss.mean() + value_loss + 0.001 * value.mode().mean()).backward()
        yield from descend([head.last.weight for head in heads], rate=0.1)


def train_sheeprl(sources: list[str], folder: Path) -> Iterator[Tensor]:
    """Logits of heads through the host's function."""
    name = "sheeprl.algos.dreamer_v3.dreamer_v3"
    function = host("sheeprl", sources, folder / f"{next(NAMES)}", (name,)).dreamer_v3.train
    x = SimpleNamespace(**given())
    weights = [x.first.requires_grad_(), x.second.requires_grad_()]
    for _ in range(STEPS):
        logits = [x.features[:-1] @ weight.T + x.start for weight in (*weights, x.slow)]
        reward_loss, value_loss, value, prediction = function(*logits, x.reward, x.target, x.weights[:-1])
        yield from (reward_loss, value_loss, value, prediction)
        (reward_loss.mean() + value_loss + 0.001 * value.mean()).backward()
        yield from descend(weights, rate=0.1)


CHECKS = {
    "two lines": (train_dreamerv3_torch, [CLASS, CONSTRUCTION]),
    "one call": (train_dreamerv3_torch, [CLASS, CONSTRUCTION, IMPORT, CRITIC]),
    "sheeprl": (train_sheeprl, [SHEEPRL]),
    "r2dreamer": (train_r2dreamer, [R2DREAMER]),
}


@pytest.mark.parametrize(("train", "sources"), CHECKS.values(), ids=CHECKS.keys())
def test_dreamerv3(train: Callable[..., Iterator[Tensor]], sources: list[str], tmp_path: Path) -> None:
    assert_same_training(lambda: train([], tmp_path), lambda: train(sources, tmp_path))


def test_what_the_page_says_of_the_classes(tmp_path: Path) -> None:
    tools = host("dreamerv3_torch", [CLASS], tmp_path / "a", ("tools",)).tools
    distributions = host("r2dreamer", [R2DREAMER], tmp_path / "b", ("distributions",)).distributions
    distribution = host("sheeprl", [SHEEPRL], tmp_path / "c", ("sheeprl.utils.distribution",)).distribution
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        empty = torch.zeros(3, 4, 255, dtype=dtype)
        for made in (tools.TwoHotDist(empty), distributions.symexp_twohot(empty, 255, device="cpu")):
            assert (made.mode() == 0).all()
            assert made.log_prob(torch.ones(3, 4, 1)).dtype == torch.promote_types(dtype, torch.float32)
        made = distribution.TwoHotEncodingDistribution(empty, dims=1)
        assert (made.mean == 0).all()
        assert (made.mode == 0).all()


def test_labels_between_values_and_in_symlog_space_differ_by_what_the_page_says() -> None:
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


WRONG = [
    ("two lines", 'readout="transformed"', 'readout="raw"'),
    ("two lines", 'ValueBins.dreamerv3(readout="transformed")', "ValueBins.amago2(255)"),
    ("two lines", "tools.TwoHotDist(mean)", "TwoHotDist(mean)"),
    ("two lines", "# tools.py", "# networks.py"),
    ("one call", "target.squeeze(-1), value.bins, weight=rows", "target.squeeze(-1), value.bins"),
    ("one call", "import two_hot_cross_entropy\n", "import bin_expectation\n"),
    ("sheeprl", 'readout="transformed"', 'readout="raw"'),
    ("sheeprl", "logits, dims=1", "logits"),
    ("sheeprl", "    @property\n", ""),
    ("r2dreamer", 'readout="raw"', 'readout="transformed"'),
    (
        "r2dreamer",
        'ValueBins.dreamerv3(readout="raw")',
        'ValueBins(-(2.718281828459045**20 - 1), 2.718281828459045**20 - 1, 255, readout="raw")',
    ),
    ("r2dreamer", "class RawTwoHotDist:", "class RawTwoHotDist(TwoHotDist):"),
    ("r2dreamer", ", **kwargs", ""),
]


@pytest.mark.parametrize(("name", "right", "wrong"), WRONG)
def test_a_wrong_page_is_seen(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    train, page = CHECKS[name]
    sources = [source.replace(right, wrong) for source in page]
    assert sources != page, "the page no longer says what this test changes"
    with pytest.raises((AssertionError, AttributeError, NameError, TypeError, ValueError)):
        assert_same_training(lambda: train([], tmp_path), lambda: train(sources, tmp_path))
