"""What brings tasks to one shape, and into trials."""

from twohot.envs.wrappers.basic import FlatDiscreteAction, ScaleReward, TimeLimitTerminates

__all__ = ["FlatDiscreteAction", "ScaleReward", "TimeLimitTerminates"]
