"""docs/differences.md: its settings exist, and its lines of all official choices turn each of them on."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest
from gymnasium.spaces import Discrete

from paths import ROOT
from small_spaces import flat
from tests.learning.test_learner import CONFIG, make_batch
from twohot.agent import AgentNetworks
from twohot.cli.options import parse
from twohot.cli.train_options import TrainOptions
from twohot.config import TrainConfig
from twohot.config.files import ADDED, to_json
from twohot.learning.learner import Learner
from twohot.presets import PRESETS

PAGE = (ROOT / "docs" / "differences.md").read_text()
LINES = [block.replace("\\\n", " ") for block in re.findall(r"```\n(twohot train .*?)```", PAGE, re.DOTALL)]
SIZES = {
    *("width", "layers", "heads", "feed_forward", "context", "encoder_hidden", "encoder_layers"),
    *("head_hidden", "head_layers", "critics", "training_discounts", "discount", "bins"),
}
"""Settings that make an agent small."""
NOT_OFFICIAL = {
    *(
        "agent.grids",
        "agent.logit_scale",
        "agent.latent_size",
        "agent.latent_steps",
        "objective.prediction_weight",
        "objective.kl_weight",
    ),
    "optimizer.group_by_length",
}
"""What the official code has in no form."""
TWO_HOT, SCALAR = range(2)


def paths(data: dict, where: str = "") -> dict:
    found = {}
    for name, value in data.items():
        found |= paths(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return found


DEFAULTS = paths(to_json(TrainConfig()))


def configuration(line: str) -> TrainConfig:
    preset, *arguments = shlex.split(line)[2:]
    return parse(TrainOptions, "train", arguments, default=TrainOptions(PRESETS[preset].config)).settings


def test_the_differences_are_numbered_on() -> None:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", PAGE, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 43


def test_every_official_choice_is_in_a_line_and_in_an_entry() -> None:
    changed = set()
    for line in LINES:
        values = paths(to_json(configuration(line)))
        changed |= {name for name in ADDED if values.get(name) != DEFAULTS.get(name)}
    networks_and_losses = {name for name in ADDED if name.startswith(("agent.", "objective.", "optimizer."))}
    assert changed == networks_and_losses - NOT_OFFICIAL
    entries = PAGE[: PAGE.index("## All official choices")]
    for name in changed:
        assert f"`{name}" in entries, name


def test_what_the_lines_are() -> None:
    agents = [configuration(line) for line in LINES]
    assert len(agents) == 2
    two_hot, scalar = agents[TWO_HOT], agents[SCALAR]
    assert (two_hot.agent.critic, two_hot.objective.actor_weights) == ("two_hot", (1.0, 0.0))
    assert (two_hot.objective.action_samples, two_hot.objective.target_action_samples) == (3, 1)
    assert (scalar.agent.critic, scalar.objective.actor_weights) == ("scalar", (0.1, 1.0))
    assert (scalar.objective.action_samples, scalar.objective.target_action_samples) == (0, 0)
    for config in agents:
        assert config.agent.popart_deviation == (0.01, 10_000.0)
        assert config.objective.filter_maximum is None


@pytest.mark.parametrize("line", LINES, ids=["AMAGO-2", "AMAGO"])
def test_an_agent_of_each_line_learns(line: str) -> None:
    config = configuration(line)
    sizes = {name: getattr(CONFIG, name) for name in SIZES}
    agent = AgentNetworks(dataclasses.replace(config.agent, **sizes), flat(3), Discrete(4))
    learner = Learner(agent, config.objective, config.optimizer)
    for seed in range(3):
        losses, norm = learner.step(make_batch(seed))
        assert losses.total.isfinite()
        assert norm > 0
