"""docs/drop_in/amago.md: its edits run, and what they put in place equals the host's formulas, step by step."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from drop_in import FOLDER, STEPS, assert_same_training, blocks, descend, host, randoms
from drop_in_formulas import cross_entropy
from twohot.losses import ValueBins, hl_gauss, two_hot

gin = pytest.importorskip("gin")
CLASS, IMPORT, SCRIPT, BINDING = blocks("amago")
NAMES = itertools.count()
ARGUMENTS = {"state_dim": 4, "action_dim": 3, "gammas": torch.tensor([0.9]), "discrete": True, "num_critics": 2}
MODULES = ("train", "amago.agent", "amago.nets.actor_critic")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No binding or registration stays; the compiler would take minutes and change nothing here."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    with gin.config.interactive_mode():  # the stand-ins are imported many times
        yield
        gin.clear_config()


def hosted(sources: list[str], folder: Path, *more: str) -> SimpleNamespace:
    return host("amago", sources, folder / f"{next(NAMES)}", (*MODULES, *more))


def train(sources: list[str], folder: Path, **options: Any) -> Iterator[Tensor]:
    """The critics of the script's agent with these blocks in it, and a policy that maximises them."""
    gin.clear_config()
    agent_type = hosted(sources, folder).train.main()
    draw = randoms(2)
    B, L, D, A, K, C, G = 2, 5, 4, 3, 3, 4, 2
    gammas = torch.tensor([0.9, 0.99])
    agent = agent_type(state_dim=D, action_dim=A, gammas=gammas, discrete=True, num_critics=C, **options)
    states, actions, primes = draw(B, L, D), draw(B, L, G, A), draw(K, B, L, G, A)
    reward = draw(B, L - 1, 1, scale=20)
    mask = torch.ones(B, L - 1, 1, dtype=torch.bool)
    mask[1, 2:] = False
    for _ in range(STEPS):
        states.requires_grad_()
        loss, losses, values = agent.critic_loss(states, actions, primes, reward, mask)
        yield from (loss, losses, values)
        loss.backward()
        # A policy maximises the values.
        (0.001 * agent.critics.bin_dist_to_raw_vals(agent.critics(states, primes)).mean()).backward()
        yield from descend([states, *agent.critics.parameters()], rate=0.1)
        states = states.detach()


OPTIONS = (
    {"min_return": -500.0, "max_return": 1000.0, "output_bins": 16},
    {"output_bins": 17, "label_type": "hlgauss", "sigma": 1.5},
    {"min_return": -200.0, "max_return": 200.0, "output_bins": 33, "use_symlog": False},
    {"min_return": -400.0, "max_return": 400.0, "output_bins": 32, "use_symlog": False, "label_type": "hlgauss"},
)


def check(sources: list[str], folder: Path) -> None:
    for options in OPTIONS:
        assert_same_training(
            lambda options=options: train([], folder, **options),
            lambda options=options: train(sources, folder, **options),
        )


def test_amago(tmp_path: Path) -> None:
    check([CLASS, IMPORT, SCRIPT], tmp_path)


def test_the_script_and_the_binding_put_the_class_in(tmp_path: Path) -> None:
    for sources, module in (([CLASS, IMPORT, SCRIPT], "train"), ([CLASS, BINDING], "fused_critics")):
        modules = hosted(sources, tmp_path, module)
        gin.bind_parameter("amago.nets.actor_critic.NCriticsTwoHot.output_bins", 16)
        made = modules.train.main()(**ARGUMENTS)
        assert type(made.critics).__name__ == type(made.target_critics).__name__ == "FusedCritics"
        assert made.critics.bins.count == 16
        official = modules.actor_critic.NCriticsTwoHot(**ARGUMENTS)
        made.critics.load_state_dict(official.state_dict())
        official.load_state_dict(made.critics.state_dict())
        gin.clear_config()
        assert type(modules.agent.MultiTaskAgent(**ARGUMENTS).critics).__name__ == "NCriticsTwoHot"


def test_the_gin_file_puts_the_class_in(tmp_path: Path) -> None:
    modules = hosted([CLASS, BINDING], tmp_path, "fused_critics")
    gin.clear_config()
    (written,) = re.findall(r"```gin\n(.*?)```", (FOLDER / "amago.md").read_text(), re.DOTALL)
    gin.parse_config(f"{written}\nNCriticsTwoHot.output_bins = 16\nFusedCritics.output_bins = 32")
    made = modules.agent.MultiTaskAgent(**ARGUMENTS)
    assert isinstance(made.critics, modules.fused_critics.FusedCritics)
    assert made.critics.bins.count == 32


def test_labels_are_written_where_anything_but_the_loss_reads_them(tmp_path: Path) -> None:
    modules = hosted([CLASS], tmp_path, "fused_critics")
    page = vars(modules.fused_critics)
    for label_type in ("twohot", "hlgauss"):
        critics = page["FusedCritics"](**ARGUMENTS, label_type=label_type)
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


def test_hlgauss_beyond_the_ends_is_what_the_page_says(tmp_path: Path) -> None:
    modules = hosted([CLASS], tmp_path, "fused_critics")
    page = vars(modules.fused_critics)
    arguments = ARGUMENTS | {"min_return": -10.0, "max_return": 10.0, "output_bins": 21, "use_symlog": False}
    arguments |= {"label_type": "hlgauss"}
    far, end = torch.full((1, 1, 1, 1, 1), 20.0), torch.full((1, 1, 1, 1, 1), 10.0)
    logits = torch.randn(1, 21)
    plain, fused = modules.actor_critic.NCriticsTwoHot(**arguments), page["FusedCritics"](**arguments)
    assert cross_entropy(logits, plain.raw_vals_to_labels(far).flatten(0, -2)) == 0
    losses = [
        functional.cross_entropy(logits, fused.raw_vals_to_labels(target).reshape([1, 21]), reduction="none")
        for target in (far, end)
    ]
    assert losses[0] == losses[1] > 1


WRONG = [
    ('readout="transformed"', 'readout="raw"'),
    ('"symlog" if self.transform_values is symlog else "linear"', '"symlog"'),
    ("self.bins, self.sigma, reduction", "self.bins, reduction"),
    ("ValueBins(low, high,", "ValueBins(-100_000.0, 100_000.0,"),
    (".transpose(3, 4)\n\n    def bin_dist", ".transpose(3, 4).flip(3)\n\n    def bin_dist"),
    ("from fused_critics import FusedCritics\n", ""),
    ("import NCriticsTwoHot, gammas_as_input_seq", "import NCriticsTwoHot"),
    ("from amago.nets.utils import symlog", "from amago.nets.ff import symlog"),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_a_wrong_page_is_seen(right: str, wrong: str, tmp_path: Path) -> None:
    page = [CLASS, IMPORT, SCRIPT]
    sources = [source.replace(right, wrong) for source in page]
    assert sources != page, "the page no longer says what this test changes"
    with pytest.raises((AssertionError, ImportError, NameError, ValueError)):
        check(sources, tmp_path)
