"""Freeze, then act: a copy of an agent's networks that changes no more, made for few rows without gradients.

Weights are folded and packed once. On a CPU the timestep encoder of vectors, the Transformer with its memory, and the
actor are then a native call each, and what is small between them goes through numpy: operations of torch take longer to
begin, and some wake its threads even for little.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from twohot.attention import KVCache
from twohot.nets.actor import Actor, BetaActor, DiscreteActor, GaussianMixtureActor, MultiActor, TanhGaussianActor
from twohot.nets.interfaces import ActorNetwork, Cache, TimestepNetwork, TrajectoryNetwork
from twohot.nets.linear import MLP, FoldedLinear, SigmaLinear
from twohot.nets.packed import PackedMLP, PackedTransformer
from twohot.nets.policies import Categorical, Categoricals, Policy, draw_numbers
from twohot.nets.positions import SinusoidalPositions
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.transformer import Transformer, require_time
from twohot.spaces import ACTION_MASK

MAX_ELEMENTS = 4096
"""Elements of a tensor up to which numpy is faster than torch."""
MAX_CACHED_TIMES = 16_384
"""Times up to which positions are kept."""


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


Network = TypeVar("Network", bound=nn.Module)


class Networks(Protocol):
    """What can be frozen: an `AgentNetworks`."""

    timestep_encoder: TimestepNetwork
    trajectory_encoder: TrajectoryNetwork
    actor: ActorNetwork
    discounts: Tensor


def freeze(networks: Networks) -> FrozenPolicy:
    """A policy that acts as the networks do now, in eval mode, whatever becomes of them.

    Its states fit other frozen policies of the same networks.
    """
    return FrozenPolicy(
        freeze_network(networks.timestep_encoder),
        freeze_network(networks.trajectory_encoder),
        freeze_network(networks.actor),
        networks.discounts.device,
    )


@torch.no_grad()
def freeze_network(network: nn.Module) -> Any:
    """The form in which one network acts; that of a custom network is its `frozen_copy`."""
    return FORMS.get(type(network), frozen_copy)(network)


@torch.no_grad()
def frozen_copy(network: Network, without: Iterable[nn.Module] = ()) -> Network:
    """A copy in eval mode, without gradients, whose sigma-reparametrised layers are folded.

    Args:
        without: parts of it that are None in the copy, because they are packed.
    """
    plain = copy.deepcopy(network, {id(part): None for part in without}).eval().requires_grad_(False)
    for module in list(plain.modules()):
        for name, layer in module.named_children():
            if type(layer) is SigmaLinear:
                setattr(module, name, FoldedLinear(layer))
    return plain


class FrozenPolicy:
    """What `freeze` gives: acts in many environments at once.

    Args:
        timestep_encoder, trajectory_encoder, actor: frozen. device: where they are.
    """

    def __init__(self, timestep_encoder: Any, trajectory_encoder: Any, actor: Any, device: torch.device) -> None:
        self.timestep_encoder, self.trajectory_encoder, self.actor = timestep_encoder, trajectory_encoder, actor
        self.device = device

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
        embedded = self.timestep_encoder(observation, previous_action, previous_reward, state.time)
        h = self.trajectory_encoder.step(embedded, state.time, state.cache)
        state.time += 1
        return h

    @torch.no_grad()
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
            greedy: take the policy's mode instead of sampling. generator: random stream of the samples.

        Returns:
            [B, *action]; int64 for choices.
        """
        h = self.encode_step(state, observation, previous_action, previous_reward)
        policy = self.actor.acting(h, observation.get(ACTION_MASK))
        return policy.mode() if greedy else sample(policy, generator)


class FrozenTimestepEncoder:
    """A `TimestepEncoder` as it is now, for single steps."""

    def __init__(self, encoder: TimestepEncoder) -> None:
        inputs, action, layers = encoder.inputs, encoder.previous_action, _weights(encoder.hidden)
        self.of_vectors = not encoder.parts and inputs is not None
        if inputs is not None and self.of_vectors:  # the first layers are one of everything side by side
            tables = [] if action is None else [action.table.T]
            layers = [(torch.cat([inputs.weight, *tables], dim=1), inputs.bias), *layers]
            self.size = inputs.in_features
        self.packed = PackedMLP(layers, encoder.norm) if PackedMLP.runs(layers, encoder.norm) else None
        packed = [encoder.hidden, *([inputs] if inputs is not None and self.of_vectors else [])] if self.packed else []
        self.plain = frozen_copy(encoder, packed)
        if self.packed and self.plain.normalization is not None:
            self.affine = [each.to(torch.float32).numpy() for each in self.plain.normalization.affine()]

    def __call__(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> Tensor:
        """As `TimestepEncoder.forward`, embeddings [B, E] of a step of each environment."""
        given = observation, previous_action, previous_reward, time
        if self.packed is None:
            return self.plain(*given)
        return self.packed(self._side_by_side(*given) if self.of_vectors else self.plain.first_layer(*given))

    def _side_by_side(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> Tensor:
        """[B, size + entries of an action]: the normalised features, and the previous action as a vector."""
        plain, shown, size = self.plain, self.plain.previous_action, self.size
        entries = 0 if shown is None else len(shown.table)
        out = np.zeros((len(time), size + entries), np.float32)
        column = 0
        for name in plain.vectors:
            vector = observation[name].numpy()
            if len(vector) != len(out):
                raise ValueError(f"observation {name!r}: expected {len(out)} rows, as time has, got {len(vector)}")
            vector = vector.reshape(len(out), -1)
            out[:, column : column + vector.shape[1]] = vector
            column += vector.shape[1]
        if plain.show_reward:
            reward = previous_reward.numpy()
            out[:, column] = np.copysign(np.log1p(np.abs(reward)), reward)
            column += 1
        if column != size:
            raise ValueError(f"observation: expected {size} numbers, reward included, got {column}")
        if plain.normalization is not None:
            features, (mean, deviation, bound) = out[:, :size], self.affine
            features -= mean
            features /= deviation
            np.clip(features, -bound, bound, out=features)
        if shown is not None:
            began = time.numpy() > 0
            if began.ndim != 1 or len(previous_action) != len(out):
                raise ValueError(f"expected {len(out)} previous actions, as many as times, got {len(previous_action)}")
            if shown.chooses:
                if previous_action.is_floating_point() or previous_action.dim() != 1:
                    got = f"{previous_action.dtype} {list(previous_action.shape)}"
                    raise ValueError(f"previous_action: expected integers [B], got {got}")
                choice = previous_action.numpy().astype(np.int64)
                if choice.view(np.uint64).max(initial=0) >= entries:  # below 0, too
                    raise ValueError(f"previous_action: expected choices of 0 to {entries - 1}, got {choice.tolist()}")
                out[np.arange(len(out)), size + choice] = began
            else:
                out[:, size:] = shown.vector(previous_action).numpy() * began[:, None]
        return torch.from_numpy(out)


class FrozenTransformer:
    """A `Transformer` as it is now, for cached steps."""

    def __init__(self, transformer: Transformer) -> None:
        self.packed = PackedTransformer(transformer) if PackedTransformer.runs(transformer) else None
        self.plain = frozen_copy(transformer, transformer.layers if self.packed else ())
        self.initial_cache = self.plain.initial_cache
        self._kept = torch.empty(0, transformer.width)

    def step(self, x: Tensor, time: Tensor, cache: KVCache) -> Tensor:
        """As `Transformer.step`."""
        if self.packed is None:
            return self.plain.step(x, time, cache)
        require_time(x, time)
        h = self.packed(self.plain.mapped(x) + self._positions(time), cache)
        cache.advance()
        return h

    def _positions(self, time: Tensor) -> Tensor:
        """Positions of times [B]; those that are computed are kept in a table, for times recur."""
        positions = self.plain.positions
        last = int(time.numpy().max(initial=0))
        if type(positions) is not SinusoidalPositions or last >= MAX_CACHED_TIMES:
            return positions(time)
        if last >= len(self._kept):
            self._kept = positions(torch.arange(min(2 * last + 64, MAX_CACHED_TIMES)))
        return self._kept.index_select(0, time)


class FrozenActor:
    """An `Actor` as it is now, for single steps."""

    def __init__(self, actor: Actor) -> None:
        *layers, (weight, bias) = _weights(actor.network)
        layers.append((weight[-actor.outputs :], bias[-actor.outputs :]))  # of the discount that acts
        self.packed = PackedMLP(layers) if PackedMLP.runs(layers) else None
        self.plain = frozen_copy(actor, [actor.network] if self.packed else ())

    def acting(self, h: Tensor, action_mask: Tensor | None = None) -> Policy:
        """As `Actor.acting`, of h [B, E]."""
        plain = self.plain
        x = plain.network.last_outputs(h, plain.outputs) if self.packed is None else self.packed(h)
        if type(plain) is DiscreteActor and action_mask is None and _use_numpy(x):
            return Categorical(_bounded_log_softmax(x, plain.floor, plain.ceiling), plain.temperature)
        return plain.acting_policy(x, action_mask)


FORMS = {
    TimestepEncoder: FrozenTimestepEncoder,
    Transformer: FrozenTransformer,
    **dict.fromkeys((DiscreteActor, MultiActor, TanhGaussianActor, BetaActor, GaussianMixtureActor), FrozenActor),
}


def sample(policy: Policy, generator: torch.Generator | None) -> Tensor:
    """As `policy.sample`; few choices are drawn by numpy."""
    choice = policy.each if type(policy) is Categoricals else policy
    if generator is None or type(choice) is not Categorical or not _use_numpy(choice.log_pi):
        return policy.sample(generator)
    total = np.exp(choice.log_pi.numpy()).cumsum(-1)
    drawn = draw_numbers("uniform_", choice.log_pi[..., :1], generator).numpy()
    return torch.from_numpy((drawn * total[..., -1:] >= total[..., :-1]).sum(-1))


def _bounded_log_softmax(logits: Tensor, floor: float, ceiling: float) -> Tensor:
    """As `twohot.nets.actor.bounded_log_softmax` where every action is legal."""
    x = logits.numpy()
    probability = np.exp(x - x.max(-1, keepdims=True))
    probability = np.clip(probability / probability.sum(-1, keepdims=True), floor, ceiling)
    return torch.from_numpy(np.log(probability / probability.sum(-1, keepdims=True)))


def _use_numpy(x: Tensor) -> bool:
    return x.is_cpu and x.dtype == torch.float32 and x.numel() <= MAX_ELEMENTS


def _weights(network: MLP) -> list[tuple[Tensor, Tensor]]:
    return [(layer.weight, layer.bias) for layer in network.layers]
