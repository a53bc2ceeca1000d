"""Networks by name: those of this package, and those that a user registers (docs/own_networks.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from torch import nn

from twohot.errors import TwohotError
from twohot.nets.interfaces import ActorNetwork, TimestepNetwork, TrajectoryNetwork

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])
Network = TypeVar("Network", bound=nn.Module)


class UnknownNetworkError(TwohotError, KeyError):
    """A name under which no network is registered."""

    __str__ = Exception.__str__  # a KeyError would print its sentence in quotes


class Registry(Generic[Network]):
    """Factories by name.

    Args:
        kind: what they make, for messages. setting: that names one of them.
    """

    def __init__(self, kind: str, setting: str) -> None:
        self.kind, self.setting = kind, setting
        self.factories: dict[str, Callable[..., nn.Module]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """A decorator of a class or function, which from then on makes the networks called `name`.

        Raises:
            ValueError: when another one has that name.
        """

        def decorate(factory: Factory) -> Factory:
            if self.factories.setdefault(name, factory) is not factory:
                raise ValueError(f"expected a new name for a {self.kind}, got {name!r}, which is registered already")
            return factory

        return decorate

    def make(self, name: str, *arguments: Any) -> Network:
        """What the factory called `name` makes of the arguments.

        Raises:
            UnknownNetworkError: when there is none.
        """
        if name not in self.factories:
            raise UnknownNetworkError(
                f"{self.setting}: expected the name of a {self.kind}, one of {', '.join(sorted(self.factories))}, got "
                f"{name!r}; import the module that registers it first"
            )
        return cast(Network, self.factories[name](*arguments))  # which may be a user's, with the same methods


TIMESTEP_ENCODERS = Registry[TimestepNetwork]("timestep encoder", "agent.timestep_encoder")
TRAJECTORY_ENCODERS = Registry[TrajectoryNetwork]("trajectory encoder", "agent.memory")
ACTORS = Registry[ActorNetwork]("actor", "agent.actor")

register_timestep_encoder = TIMESTEP_ENCODERS.register
register_trajectory_encoder = TRAJECTORY_ENCODERS.register
register_actor = ACTORS.register
