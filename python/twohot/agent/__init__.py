"""The networks of one agent, and what it does with them."""

from twohot import _gymnasium  # noqa: F401
from twohot.agent.networks import AgentNetworks

__all__ = ["AgentNetworks"]
