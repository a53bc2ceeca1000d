"""Networks: timestep encoders, trajectory encoders, actor heads, critic heads."""

import twohot.extras.needs_gymnasium  # noqa: F401
from twohot.nets.registry import (
    UnknownNetworkError,
    register_actor,
    register_timestep_encoder,
    register_trajectory_encoder,
)

__all__ = ["UnknownNetworkError", "register_actor", "register_timestep_encoder", "register_trajectory_encoder"]
