"""A run that begins with another's weights: what fits is taken, what is new begins anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from twohot.agent import AgentNetworks, MixedNetworks
from twohot.config import ConfigurationError, TrainConfig
from twohot.config.files import from_json
from twohot.envs import split_name
from twohot.runs import checkpoint

__all__ = ["Taken", "take_weights"]

MEMORY = "trajectory_encoder"
PARTS = ("timestep_encoder", "actor", "critics", "predictor")
CRITIC_SETTINGS = ("critic", "bins", "training_discounts", "discount", "critics", "logit_scale", "hl_gauss_sigma")
"""Of the agent: what the outputs of critics mean, whatever their shapes."""
Name = tuple[str, str]
"""Of a tensor: its domain, "" where all share it, and its name there."""


@dataclass
class Taken:
    """What a run has taken from another.

    Attributes:
        layers: of each part of each domain, how many were taken, and how many there are.
        critics_anew: the setting of the agent because of which values begin anew; "" where they do not.
    """

    source: Path
    layers: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    critics_anew: str = ""

    def sentences(self) -> Iterator[str]:
        """What was taken and what begins anew, for a person."""
        yield f"From {self.source}: the trajectory encoder."
        for domain in dict.fromkeys(domain for domain, _ in self.layers if domain):
            mine = {part: counts for (of, part), counts in self.layers.items() if of == domain}
            whole = [_spoken(part) for part, (taken, every) in mine.items() if taken == every]
            some = [
                f"{taken} of {every} layers of the {_spoken(part)}"
                for part, (taken, every) in mine.items()
                if 0 < taken < every
            ]
            anew = [_spoken(part) for part, (taken, _) in mine.items() if not taken]
            said = [f"{how} {', '.join(what)}" for how, what in (("taken", [*whole, *some]), ("anew", anew)) if what]
            yield f"  {domain}: {'; '.join(said)}."
        if self.critics_anew:
            yield f"  Values begin anew, for agent.{self.critics_anew} is another."


def take_weights(agent: AgentNetworks | MixedNetworks, config: TrainConfig, source: Path) -> Taken:
    """Put the weights of another run's newest checkpoint into an agent, layer by layer, where name and shapes agree.

    The memory is taken whole. Timestep encoder, actor and critics are those of the domain of the same name: that of an
    agent with one domain is its suite's.

    Args:
        agent: changed in place. config: of its run. source: the other run's directory, or one of its checkpoints.

    Raises:
        CheckpointError: the other run has no checkpoint, or a corrupt one.
        ConfigurationError: the memory does not fit; the agent is then as it was.
    """
    path = source if (source / "state.json").is_file() else checkpoint.latest(source)
    if path is None:
        raise checkpoint.CheckpointError(f"{source}: no checkpoint here to begin from")
    state = checkpoint.read_state(path)
    with checkpoint.reading(path):
        theirs = from_json(TrainConfig, state["config"])
        suite = split_name(theirs.environment.tasks[0], theirs.environment.suite)[0]
        found = _by_domain(checkpoint.read_tensors(path, "agent"), suite, list(state["spaces"].get("domains", ())))
    members = agent.each() if isinstance(agent, MixedNetworks) else {_suite(config): agent}
    mine: dict[Name, Tensor] = {}
    for domain, member in members.items():
        for name, value in member.state_dict().items():
            mine["" if name.startswith((f"{MEMORY}.", "values.")) else domain, name] = value
    _require_memory(mine, found, source, config, theirs)
    taken = Taken(source)
    for setting in CRITIC_SETTINGS:
        if getattr(config.agent, setting) != getattr(theirs.agent, setting):
            taken.critics_anew = setting
    values = ("critics", "target_critics", "values", "predictor") if taken.critics_anew else ()
    layers: dict[tuple[str, str], list[Name]] = {}
    for domain, name in mine:
        layers.setdefault((domain, name.rpartition(".")[0]), []).append((domain, name))
    with torch.no_grad():
        for (domain, layer), names in layers.items():
            part = layer.partition(".")[0]
            fits = part not in values and all(_alike(mine[name], found.get(name)) for name in names)
            if fits:
                for name in names:
                    mine[name].copy_(found[name])
            if part in PARTS:
                before, every = taken.layers.get((domain, part), (0, 0))
                taken.layers[domain, part] = before + fits, every + 1
    return taken


def _by_domain(tensors: Mapping[str, Tensor], suite: str, domains: list[str]) -> dict[Name, Tensor]:
    """The tensors of a saved agent; `suite`: the domain's name, where there is one alone."""
    from twohot.nets.timestep import module_key

    keys = {module_key(name): name for name in domains}
    found: dict[Name, Tensor] = {}
    for name, value in tensors.items():
        domain, rest = suite, name
        if name.startswith("members."):
            _, key, rest = name.split(".", 2)
            domain = keys[key]
        found["" if name.startswith((f"{MEMORY}.", "values.")) else domain, rest] = value
    return found


def _require_memory(
    mine: Mapping[Name, Tensor], found: Mapping[Name, Tensor], source: Path, config: TrainConfig, theirs: TrainConfig
) -> None:
    ours = {name: value for name, value in mine.items() if name[1].startswith(f"{MEMORY}.")}
    others = {name for name in found if name[1].startswith(f"{MEMORY}.")}
    wrong = next((name for name, value in ours.items() if not _alike(value, found.get(name))), None)
    extra = next(iter(sorted(others - set(ours))), None)
    if wrong is None and extra is None:
        return
    settings = [
        f"agent.{name} = {getattr(theirs.agent, name)!r} there, {getattr(config.agent, name)!r} here"
        for name in ("memory", "width", "layers", "heads", "feed_forward", "context", "positions", "input_projection")
        if getattr(theirs.agent, name) != getattr(config.agent, name)
    ]
    what = ", ".join(settings) or f"{(wrong or extra or ('', ''))[1]} is another"
    raise ConfigurationError(f"--from {source}: its memory does not fit this run's agent ({what})")


def _alike(mine: Tensor, found: Tensor | None) -> bool:
    return found is not None and mine.shape == found.shape and mine.dtype == found.dtype


def _suite(config: TrainConfig) -> str:
    return split_name(config.environment.tasks[0], config.environment.suite)[0]


def _spoken(part: str) -> str:
    return part.replace("_", " ")
