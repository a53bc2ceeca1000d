"""The networks of one agent, and what it does with them."""

import twohot.extras.needs_gymnasium  # noqa: F401
from twohot.agent.mixed import Member, MixedNetworks
from twohot.agent.networks import AgentNetworks

__all__ = ["AgentNetworks", "Member", "MixedNetworks"]
