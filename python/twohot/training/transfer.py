"""A run that begins with another's weights: what fits is taken, what is new begins anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from twohot.agent import AgentNetworks, MixedNetworks
from twohot.agent.saved import spaces_of
from twohot.config import AgentConfig, ConfigurationError, TrainConfig
from twohot.config.files import from_json
from twohot.envs import plain_name
from twohot.nets.actions import ActionLinear
from twohot.nets.actor import Actor
from twohot.nets.output_critic import OutputCritics
from twohot.nets.timestep import TimestepEncoder, module_key
from twohot.runs import checkpoint

__all__ = ["Taken", "take_weights"]

MEMORY = "trajectory_encoder"
PARTS = ("timestep_encoder", "actor", "critics", "predictor")
CRITICS = ("critics", "target_critics", "predictor")
CRITIC_SETTINGS = ("critic", "bins", "training_discounts", "discount", "critics", "logit_scale", "hl_gauss_sigma")
"""Of the agent: what the outputs of critics mean, whatever their shapes."""
MEMORY_SETTINGS = ("memory", "width", "layers", "heads", "feed_forward", "context", "positions", "input_projection")
Name = tuple[str, str]
"""Of a tensor: its domain, "" where all share it, and its name there."""


@dataclass
class Taken:
    """What a run has taken from another.

    Attributes:
        layers: of each part of each domain, how many were taken, and how many there are.
        actions_anew, values_anew: why layers that know of actions, or values, begin anew, by domain; "" is all.
    """

    source: Path
    layers: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    actions_anew: dict[str, str] = field(default_factory=dict)
    values_anew: dict[str, str] = field(default_factory=dict)

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
        for domain, why in self.actions_anew.items():
            yield f"  What {domain} knows of actions begins anew, for {why}."
        for domain, why in self.values_anew.items():
            yield f"  Values{f' of {domain}' if domain else ''} begin anew, for {why} is another."


class _Domain(NamedTuple):
    """A domain of either run: its spaces as JSON, and the factor on the rewards of each of its tasks."""

    suite: str
    spaces: dict[str, Any]
    multipliers: dict[str, float]


def take_weights(agent: AgentNetworks | MixedNetworks, config: TrainConfig, source: Path) -> Taken:
    """Put the weights of another run's newest checkpoint into an agent, layer by layer, where name and shapes agree.

    The memory is taken whole. Timestep encoder, actor and critics are those of the domain of the same suite that has
    these spaces, or else of the same name: that of an agent with one domain is its suite's. Where its actions are
    others, the last layer of the actor and the layers that see actions begin anew; where returns count otherwise,
    values do.

    Args:
        agent: changed in place. config: of its run. source: the other run's directory, or one of its checkpoints.

    Raises:
        CheckpointError: the other run has no checkpoint, or a corrupt one.
        ConfigurationError: the memory does not fit; the agent is then as it was.
    """
    theirs, their_spaces, tensors = checkpoint.read_newest(source, _read, "no checkpoint here to begin from")
    my_domains, their_domains = _domains(config, spaces_of(agent)), _domains(theirs, their_spaces)
    partners = _partners(my_domains, their_domains)
    found = _by_domain(tensors, theirs.environment.suite, list(their_spaces.get("domains", ())), partners)
    members = agent.each() if isinstance(agent, MixedNetworks) else {config.environment.suite: agent}
    mine: dict[Name, Tensor] = {}
    for domain, member in members.items():
        for name, value in member.state_dict().items():
            mine["" if name.startswith((f"{MEMORY}.", "values.")) else domain, name] = value
    _require_memory(mine, found, source, config, theirs)
    taken = Taken(source)
    if setting := _of_values(config, theirs):
        taken.values_anew[""] = setting
    anew: dict[str, tuple[str, ...]] = {}
    for domain, partner in partners.items():
        own, other = my_domains[domain], their_domains[partner]
        unlike = [task for task, factor in own.multipliers.items() if other.multipliers.get(task, factor) != factor]
        if unlike and "" not in taken.values_anew:
            taken.values_anew[domain] = f"environment.reward_multipliers of {', '.join(unlike)}"
        parts, taken.actions_anew[domain] = _of_actions(members[domain], own, other, config.agent, theirs.agent)
        anew[domain] = (*parts, *(CRITICS if taken.values_anew.keys() & {"", domain} else ()))
    taken.actions_anew = {domain: why for domain, why in taken.actions_anew.items() if why}
    anew[""] = ("values",) if taken.values_anew else ()  # all domains have these together
    layers: dict[tuple[str, str], list[Name]] = {}
    for domain, name in mine:
        layers.setdefault((domain, name.rpartition(".")[0]), []).append((domain, name))
    with torch.no_grad():
        for (domain, layer), names in layers.items():
            begins_anew = any(f"{layer}.".startswith(f"{part}.") for part in anew.get(domain, ()))
            fits = not begins_anew and all(_alike(mine[name], found.get(name)) for name in names)
            if fits:
                for name in names:
                    mine[name].copy_(found[name])
            part = layer.partition(".")[0]
            if part in PARTS:
                before, every = taken.layers.get((domain, part), (0, 0))
                taken.layers[domain, part] = before + fits, every + 1
    return taken


def _read(path: Path) -> tuple[TrainConfig, dict[str, Any], dict[str, Tensor]]:
    """Configuration, spaces and agent of a checkpoint."""
    state = checkpoint.read_state(path)
    with checkpoint.reading(path):
        return from_json(TrainConfig, state["config"]), state["spaces"], checkpoint.read_tensors(path, "agent")


def _domains(config: TrainConfig, saved: Mapping[str, Any]) -> dict[str, _Domain]:
    """The domains of a run whose agent has these `spaces_of`."""
    environment = config.environment
    factors = environment.reward_multipliers or (1.0,) * len(environment.tasks)
    of_task = dict(zip(environment.tasks, factors, strict=True))
    each = saved.get("domains", {environment.suite: {**saved, "suite": environment.suite, "tasks": environment.tasks}})
    return {
        name: _Domain(
            about["suite"],
            {kind: about[kind] for kind in ("observation", "action")},
            {
                plain_name(task, about["suite"], environment.suite): of_task[task]
                for task in about["tasks"]
                if task in of_task
            },
        )
        for name, about in each.items()
    }


def _partners(mine: Mapping[str, _Domain], theirs: Mapping[str, _Domain]) -> dict[str, str]:
    """Which of their domains each of mine is like: of the same suite, by equal spaces first, then by name."""
    found: dict[str, str] = {}
    for by_spaces in (True, False):
        for name, own in mine.items():
            for partner, other in theirs.items():
                like = other.spaces == own.spaces if by_spaces else partner == name
                if name not in found and partner not in found.values() and other.suite == own.suite and like:
                    found[name] = partner
    return found


def _of_values(config: TrainConfig, theirs: TrainConfig) -> str:
    """The setting by which values mean something else in all domains; "" where none does."""
    for setting in CRITIC_SETTINGS:
        if getattr(config.agent, setting) != getattr(theirs.agent, setting):
            return f"agent.{setting}"
    same = config.objective.reward_multiplier == theirs.objective.reward_multiplier
    return "" if same else "objective.reward_multiplier"


def _of_actions(
    member: AgentNetworks, own: _Domain, other: _Domain, config: AgentConfig, theirs: AgentConfig
) -> tuple[list[str], str]:
    """The parts whose weights mean something else because actions do, whatever their shapes, and why."""
    heads = [
        f"{name}.network.{len(head.network) - 1}" if isinstance(head := getattr(member, name), Actor) else name
        for name in ("actor", "target_actor")
    ]
    if own.spaces["action"] != other.spaces["action"]:
        sees = [name for name, module in member.named_modules() if isinstance(module, ActionLinear)]
        if not isinstance(member.timestep_encoder, TimestepEncoder):
            sees.append("timestep_encoder")
        if isinstance(member.critics, OutputCritics):
            sees += ["critics", "target_critics"]
        return [*heads, *sees], "its actions are others"
    settings = ["actor"]
    if isinstance(member.action_space, spaces.Box):
        settings += ["continuous", *(["mixture_components"] if config.continuous == "gaussian_mixture" else [])]
    unlike = next((name for name in settings if getattr(config, name) != getattr(theirs, name)), None)
    return ([], "") if unlike is None else (heads, f"agent.{unlike} is another")


def _by_domain(
    tensors: Mapping[str, Tensor], suite: str, domains: list[str], partners: Mapping[str, str]
) -> dict[Name, Tensor]:
    """The tensors of a saved agent by my domains; `suite`: its domain's name, where there is one alone."""
    keys = {module_key(name): name for name in domains}
    of_theirs = {partner: name for name, partner in partners.items()}
    found: dict[Name, Tensor] = {}
    for name, value in tensors.items():
        domain, rest = suite, name
        if name.startswith("members."):
            _, key, rest = name.split(".", 2)
            domain = keys[key]
        if rest.startswith((f"{MEMORY}.", "values.")):
            found["", rest] = value
        elif domain in of_theirs:
            found[of_theirs[domain], rest] = value
    return found


def _require_memory(
    mine: Mapping[Name, Tensor], found: Mapping[Name, Tensor], source: Path, config: TrainConfig, theirs: TrainConfig
) -> None:
    ours = {name: value for name, value in mine.items() if name[1].startswith(f"{MEMORY}.")}
    others = {name for name in found if name[1].startswith(f"{MEMORY}.")}
    wrong = next((name for name, value in ours.items() if not _alike(value, found.get(name))), None)
    extra = next(iter(sorted(others - set(ours))), None)
    # Heads and positions change no shape.
    of_value = ("memory", "heads", "positions") if config.agent.memory == "transformer" else ("memory",)
    same = all(getattr(theirs.agent, name) == getattr(config.agent, name) for name in of_value)
    if wrong is None and extra is None and same:
        return
    settings = [
        f"agent.{name} = {getattr(theirs.agent, name)!r} there, {getattr(config.agent, name)!r} here"
        for name in MEMORY_SETTINGS
        if getattr(theirs.agent, name) != getattr(config.agent, name)
    ]
    what = ", ".join(settings) or f"{(wrong or extra or ('', ''))[1]} is another"
    raise ConfigurationError(f"--from {source}: its memory does not fit this run's agent ({what})")


def _alike(mine: Tensor, found: Tensor | None) -> bool:
    return found is not None and mine.shape == found.shape and mine.dtype == found.dtype


def _spoken(part: str) -> str:
    return part.replace("_", " ")
