"""Freeze, then act: a copy of an agent's networks that changes no more, made for few rows without gradients.

Weights are folded and packed once. On a CPU a step of up to `MAX_ROWS` environments is then one native call, where the
memory is a Transformer: from observations, and the features of images, grids and tokens, to an action, or to the
parameters of the policy. Of other networks each is a call of its own, and what is small between them goes through
numpy: operations of torch take longer to begin, and some wake its threads even for little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from twohot.attention import KVCache
from twohot.kernels.backend import native
from twohot.nets.actor import (
    MAX_LOG_STD,
    MIN_LOG_STD,
    Actor,
    DiscreteActor,
    MultiActor,
    TanhGaussianActor,
)
from twohot.nets.frozen_networks import (
    FrozenActor,
    FrozenTimestepEncoder,
    FrozenTransformer,
    arrays_of,
    freeze_network,
    sample,
)
from twohot.nets.interfaces import ActorNetwork, Cache, TimestepNetwork, TrajectoryNetwork
from twohot.nets.packed import (
    MAX_ROWS,
    Draw,
    Outputs,
    PackedPart,
    PackedPolicy,
)
from twohot.spaces import ACTION_MASK

__all__ = ["ActingState", "FrozenPolicy", "freeze"]


@dataclass
class ActingState:
    """What a policy remembers of `B` environments: the cache, and each one's step in its trial."""

    cache: Cache
    time: Tensor
    """[B] int64, index in its trial of the step that comes next."""

    def reset(self, mask: Tensor) -> None:
        """Begin new trials where mask [B] (bool) is True."""
        self.cache.reset(mask)
        self.time.masked_fill_(mask, 0)


Tensors = tuple[dict[str, Tensor], Tensor, Tensor]
"""Observation, previous action and previous reward."""


class Networks(Protocol):
    """What can be frozen: an `AgentNetworks`."""

    timestep_encoder: TimestepNetwork
    trajectory_encoder: TrajectoryNetwork
    actor: ActorNetwork
    discounts: Tensor


def freeze(networks: Networks, memory: Any = None) -> FrozenPolicy:
    """A policy that acts as the networks do now, in eval mode, whatever becomes of them.

    Its states fit other frozen policies of the same networks.

    Args:
        memory: the trajectory encoder, where it was frozen before.
    """
    return FrozenPolicy(
        freeze_network(networks.timestep_encoder),
        memory or freeze_network(networks.trajectory_encoder),
        freeze_network(networks.actor),
        networks.discounts.device,
    )


class FrozenPolicy:
    """What `freeze` gives: acts in many environments at once.

    Args:
        timestep_encoder, trajectory_encoder, actor: frozen. device: where they are.
    """

    def __init__(self, timestep_encoder: Any, trajectory_encoder: Any, actor: Any, device: torch.device) -> None:
        self.timestep_encoder, self.trajectory_encoder, self.actor = timestep_encoder, trajectory_encoder, actor
        self.device = device
        self._draw = getattr(trajectory_encoder, "sample", None)
        self.packed = _packed_part(timestep_encoder, actor)
        self._together = packed_policy([self])

    def __reduce__(self) -> tuple:
        return FrozenPolicy, (self.timestep_encoder, self.trajectory_encoder, self.actor, self.device)

    def initial_state(self, environments: int) -> ActingState:
        """Memory for acting in `environments` (B) fresh trials."""
        cache = self.trajectory_encoder.initial_cache(environments)
        return ActingState(cache, torch.zeros(environments, dtype=torch.int64, device=self.device))

    @torch.no_grad()
    def encode_step(
        self,
        state: ActingState,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
    ) -> Tensor:
        """h [B, E] of the next step of each environment; moves `state` on. Arguments as `act`."""
        given = observation, previous_action, previous_reward
        if self._together is not None and state.time.shape[0] <= MAX_ROWS:
            h = torch.empty(state.time.shape[0], self._together.width)
            self._step_together(state, given, Outputs(), h)
            return h
        h = self.trajectory_encoder.step(self.timestep_encoder(*given, state.time), state.time, state.cache)
        state.time += 1
        return h

    def _step_together(self, state: ActingState, given: Tensors, outputs: Outputs, h: Tensor | None = None) -> None:
        """A step of all networks by native code, which writes the outputs; moves `state` on."""
        assert self._together is not None
        inputs = self.timestep_encoder.inputs(arrays_of(*given), state.time.numpy())
        step_together(self._together, self.trajectory_encoder, state, [inputs], [outputs], h)

    def act(
        self,
        state: ActingState,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        *,
        greedy: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One action for each of B environments at the acting discount; moves `state` on by one step.

        Args:
            state: from `initial_state`; `state.reset(mask)` where a trial begins.
            observation: each [B, *shape]; "action_mask", where there is one, rules out actions.
            previous_action: [B, *action]. previous_reward: [B] float; zeros on a trial's first step.
            greedy: take the policy's mode instead of sampling. generator: random stream of the samples, a memory's too.

        Returns:
            [B, *action]; int64 for choices.
        """
        mask, rows = observation.get(ACTION_MASK), state.time.shape[0]
        given = observation, previous_action, previous_reward
        if self._together is not None and rows <= MAX_ROWS:
            outputs = self.outputs(rows, mask is not None, generator, greedy=greedy)
            self._step_together(state, given, outputs)
            return self.chosen(outputs, mask, generator, greedy=greedy)
        with torch.no_grad():
            if self._draw is not None and not greedy:
                self._draw(state.time, state.cache, generator)
            policy = self.actor.acting(self.encode_step(state, *given), mask)
            return policy.mode() if greedy else sample(policy, generator)

    def outputs(self, rows: int, masked: bool, generator: torch.Generator | None, *, greedy: bool = False) -> Outputs:
        """What native code is to write of so many rows: actions where it can."""
        part = self.packed
        assert part is not None
        drawn = part.draw is not None and not masked
        return part.drawn(rows, greedy, generator) if drawn else part.parameters(rows)

    def chosen(
        self, outputs: Outputs, mask: Tensor | None, generator: torch.Generator | None, *, greedy: bool = False
    ) -> Tensor:
        """The actions of outputs that native code has written."""
        if outputs.action is not None:
            return torch.from_numpy(outputs.action)
        assert outputs.x is not None
        with torch.no_grad():
            policy = self.actor.plain.acting_policy(torch.from_numpy(outputs.x), mask)
            return policy.mode() if greedy else sample(policy, generator)


def step_together(
    packed: PackedPolicy,
    memory: FrozenTransformer,
    state: ActingState,
    inputs: Sequence[native.StepInputs],
    outputs: Sequence[Outputs],
    h: Tensor | None = None,
) -> None:
    """A step of the networks of all parts by native code, which writes the outputs; moves `state` on."""
    cache = cast("KVCache", state.cache)
    if not packed(inputs, outputs, memory.table, cache, h=h):
        table = memory.positions_of(state.time)
        packed(inputs, outputs, table, cache, by_time=table is memory.table, h=h)


def _packed_part(timestep_encoder: Any, actor: Any) -> PackedPart | None:
    """What steps through both; None where there is no such form of them."""
    if not (type(timestep_encoder) is FrozenTimestepEncoder and timestep_encoder.packed):
        return None
    return (
        PackedPart(timestep_encoder.packed, actor.packed, _draw_of(actor.plain))
        if type(actor) is FrozenActor and actor.packed
        else None
    )


def packed_policy(policies: Sequence[FrozenPolicy]) -> PackedPolicy | None:
    """What steps through all networks of policies with one memory at once; None where there is no such form of them."""
    memory = policies[0].trajectory_encoder
    if not (type(memory) is FrozenTransformer and memory.packed) or memory.plain.inputs is not None:
        return None
    parts = [policy.packed for policy in policies if policy.packed is not None]
    return PackedPolicy(parts, memory.packed) if len(parts) == len(policies) else None


def _draw_of(actor: Actor) -> Draw | None:
    """How actions are drawn from an actor's outputs, if native code can."""
    if type(actor) is DiscreteActor:
        return Draw("choices", (actor.outputs,), actor.floor, actor.ceiling, ())
    if type(actor) is MultiActor:
        counts = actor.possible.sum(-1).tolist()
        if actor.binary:
            return Draw("buttons", (), actor.floor, actor.ceiling, (len(counts),))
        return Draw("choices", tuple(counts), actor.floor, actor.ceiling, (len(counts),))
    if type(actor) is TanhGaussianActor:
        return Draw("numbers", (), MIN_LOG_STD, MAX_LOG_STD, (actor.outputs // 2,))
    return None
