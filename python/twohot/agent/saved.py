"""What networks are made for, as JSON: enough to make them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twohot.agent.mixed import Member, MixedNetworks
from twohot.agent.networks import AgentNetworks
from twohot.config import AgentConfig
from twohot.spaces import space_from_json, space_to_json

__all__ = ["make_from_spaces", "spaces_of"]


def spaces_of(networks: AgentNetworks | MixedNetworks) -> dict[str, Any]:
    """JSON values of the spaces of an agent; of a mixed one by domain, with the suite and the names of its tasks."""
    if isinstance(networks, AgentNetworks):
        return _to_json(networks)
    return {
        "domains": {
            name: {
                "suite": networks.about[name].suite,
                "tasks": list(networks.about[name].tasks),
                **_to_json(member),
            }
            for name, member in networks.each().items()
        }
    }


def _to_json(networks: AgentNetworks) -> dict[str, Any]:
    return {
        "observation": space_to_json(networks.observation_space),
        "action": space_to_json(networks.action_space),
    }


def make_from_spaces(
    config: AgentConfig, found: Mapping[str, Any], *, predicts: bool = False
) -> AgentNetworks | MixedNetworks:
    """New networks for what `spaces_of` returned.

    Raises:
        TwohotError, KeyError, ValueError, TypeError: it is none of that.
    """
    if "domains" not in found:
        return AgentNetworks(config, *_from_json(found), predicts=predicts)
    members = {
        name: Member(tuple(each["tasks"]), *_from_json(each), each["suite"]) for name, each in found["domains"].items()
    }
    return MixedNetworks(config, members, predicts=predicts)


def _from_json(found: Mapping[str, Any]) -> tuple[Any, Any]:
    return space_from_json(found["observation"]), space_from_json(found["action"], action=True)
