"""One agent for domains whose observations and actions have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from twohot.agent.networks import AgentNetworks, Trained, remember
from twohot.config import AgentConfig
from twohot.nets.timestep import module_key
from twohot.spaces import SpaceError

SHARED = ("trajectory_encoder", "values")
"""Parts of which all members have one together."""


@dataclass(frozen=True)
class Member:
    """What a member of a mixed agent is for: the names of its tasks, the spaces that they share, and their suite."""

    tasks: tuple[str, ...]
    observation_space: Space
    action_space: Space
    suite: str = ""


class MixedNetworks(Trained):
    """An `AgentNetworks` for each domain; all have one trajectory encoder, and one set of statistics of values.

    A step is one embedding whatever it shows, so the memory need not know what it remembers: timestep encoder, actor
    and critics are each domain's own, made for its spaces alone. `mixed[name]` is a whole agent: its losses, the policy
    that acts and its exported form are those of any other.

    Args:
        config: sizes of the networks, of every member.
        members: by the name of the domain, at least one.
        predicts: as for `AgentNetworks`.

    Raises:
        SpaceError, UnknownNetworkError: as `AgentNetworks`.
    """

    def __init__(self, config: AgentConfig, members: Mapping[str, Member], *, predicts: bool = False) -> None:
        super().__init__()
        self.config, self.about = config, dict(members)
        self.members = nn.ModuleDict()
        first = None
        for name, each in members.items():
            spaces = each.observation_space, each.action_space
            try:
                networks = AgentNetworks(config, *spaces, predicts=predicts, shares_with=first)
            except SpaceError as error:
                raise SpaceError(f"{name}: {error}") from error
            first = first or networks
            self.members[module_key(name)] = networks
        if first is None:
            raise ValueError("members: expected at least one domain, got none")
        self.trajectory_encoder, self.values = first.trajectory_encoder, first.values
        self.register_state_dict_post_hook(_shared_once)
        self.register_load_state_dict_pre_hook(_shared_everywhere)

    def __getitem__(self, name: str) -> AgentNetworks:
        """The member of a domain."""
        member = self.members[module_key(name)]
        assert isinstance(member, AgentNetworks)
        return member

    def each(self) -> dict[str, AgentNetworks]:
        """All members, by the names of their domains."""
        return {name: self[name] for name in self.about}

    def encode_together(self, windows: Sequence[tuple[AgentNetworks, tuple]]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """What `encode_with_losses` of each of these members gives of its own arguments, by one pass of the memory.

        All windows have the same number of steps.
        """
        embedded = [member.embed(*given) for member, given in windows]
        rows = [len(x) for x, _ in embedded]
        time = torch.cat([given[3] for _, given in windows])
        h, of_memory = remember(self.trajectory_encoder, torch.cat([x for x, _ in embedded]), {}, time)
        split = {name: loss.split(rows) for name, loss in of_memory.items()}
        return [
            (part, {**losses, **{name: each[index] for name, each in split.items()}})
            for index, (part, (_, losses)) in enumerate(zip(h.split(rows), embedded, strict=True))
        ]

    def update_targets(self, rate: float) -> None:
        """As `AgentNetworks.update_targets`, of all members."""
        for member in self.each().values():
            member.update_targets(rate)


def _of_members(mixed: nn.Module, prefix: str) -> list[str]:
    """Prefixes of the shared parts in each member."""
    assert isinstance(mixed, MixedNetworks)
    return [f"{prefix}members.{key}." for key in mixed.members]


def _shared_once(mixed: nn.Module, tensors: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Leave what is shared out of the members' tensors: it stands beside them."""
    for member in _of_members(mixed, prefix):
        for name in [name for name in tensors if name.startswith(tuple(f"{member}{part}." for part in SHARED))]:
            del tensors[name]


def _shared_everywhere(mixed: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Put what is shared back into the members' tensors."""
    of_all = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    for name, value in of_all.items():
        if name.startswith(tuple(f"{part}." for part in SHARED)):
            tensors.update({f"{member}{name}": value for member in _of_members(mixed, prefix)})
