"""Freeze, then act: a copy of an agent's networks that changes no more, made for few rows without gradients.

Weights are folded and packed once. On a CPU a step of up to `MAX_ROWS` environments is then one native call, where the
timestep encoder sees vectors alone and the memory is a Transformer: from observations to the choice of an action, or to
the parameters of the policy. Of other networks each is a call of its own, and what is small between them goes
through numpy: operations of torch take longer to begin, and some wake its threads even for little.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from twohot.attention import KVCache
from twohot.kernels.addresses import address, optional_address
from twohot.kernels.backend import native
from twohot.nets.actor import Actor, BetaActor, DiscreteActor, GaussianMixtureActor, MultiActor, TanhGaussianActor
from twohot.nets.interfaces import ActorNetwork, Cache, TimestepNetwork, TrajectoryNetwork
from twohot.nets.linear import MLP, FoldedLinear, SigmaLinear
from twohot.nets.packed import MAX_ROWS, PackedMLP, PackedPolicy, PackedTransformer, Weights
from twohot.nets.policies import Categorical, Categoricals, Policy, draw_numbers
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.transformer import Transformer, require_time
from twohot.spaces import ACTION_MASK

__all__ = ["ActingState", "FrozenPolicy", "freeze"]

MAX_ELEMENTS = 4096
"""Elements of a tensor up to which numpy is faster than torch."""
_NUMPY_DTYPES = {torch.float32: np.float32, torch.int64: np.int64}
MAX_CACHED_TIMES = 16_384
"""Times up to which positions are kept."""
FIRST_TIMES = 64
"""Times whose positions are computed at first."""


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
        self._draw = getattr(trajectory_encoder, "sample", None)
        self._together = _packed_policy(timestep_encoder, trajectory_encoder, actor)

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
        given = observation, previous_action, previous_reward, state.time
        if self._together is not None and state.time.shape[0] <= MAX_ROWS:
            h = torch.empty(state.time.shape[0], self._together.width)
            self._step_together(state, given, h=h)
            return h
        h = self.trajectory_encoder.step(self.timestep_encoder(*given), state.time, state.cache)
        state.time += 1
        return h

    def _step_together(self, state: ActingState, given: tuple, **outputs: Any) -> None:
        """A step of all networks by native code, which writes the outputs; moves `state` on."""
        assert self._together is not None
        memory, cache = self.trajectory_encoder, cast("KVCache", state.cache)
        inputs, kept = self.timestep_encoder.inputs(*given)
        if not self._together(inputs, memory.table, cache, **outputs):
            table = memory.positions_of(state.time)
            self._together(inputs, table, cache, by_time=table is memory.table, **outputs)
        del kept

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
        together = self._together if rows <= MAX_ROWS else None
        given = observation, previous_action, previous_reward, state.time
        if together is not None and together.chooses and mask is None:  # nothing of it builds a gradient
            uniform = None if greedy else torch.rand(rows, generator=generator)
            action = torch.empty(rows, dtype=torch.int64)
            self._step_together(state, given, uniform=uniform, action=action)
            return action
        with torch.no_grad():
            if together is not None:
                x = torch.empty(rows, together.outputs)
                self._step_together(state, given, x=x)
                policy = self.actor.plain.acting_policy(x, mask)
            else:
                if self._draw is not None and not greedy:
                    self._draw(state.time, state.cache, generator)
                policy = self.actor.acting(self.encode_step(state, *given[:3]), mask)
            return policy.mode() if greedy else sample(policy, generator)


def _packed_policy(timestep_encoder: Any, trajectory_encoder: Any, actor: Any) -> PackedPolicy | None:
    """What steps through all three at once; None where there is no such form of them."""
    if not (
        type(timestep_encoder) is FrozenTimestepEncoder and timestep_encoder.of_vectors and timestep_encoder.packed
    ):
        return None
    if not (type(trajectory_encoder) is FrozenTransformer and trajectory_encoder.packed):
        return None
    if trajectory_encoder.plain.inputs is not None or not (type(actor) is FrozenActor and actor.packed):
        return None
    plain = actor.plain
    bounds = (plain.floor, plain.ceiling) if type(plain) is DiscreteActor else None
    return PackedPolicy(timestep_encoder.packed, trajectory_encoder.packed, actor.packed, bounds)


class FrozenTimestepEncoder:
    """A `TimestepEncoder` as it is now, for single steps."""

    def __init__(self, encoder: TimestepEncoder) -> None:
        inputs, action, layers = encoder.inputs, encoder.previous_action, _weights(encoder.hidden)
        self.of_vectors = not encoder.parts and inputs is not None
        if inputs is not None and self.of_vectors:  # the first layers are one of everything side by side
            tables = [] if action is None else [action.table.T]
            layers = [(torch.cat([inputs.weight, *tables], dim=1), inputs.bias), *layers]
            self.size, self.actions = inputs.in_features, 0 if action is None else len(action.table)
        self.packed = PackedMLP(layers, encoder.norm) if PackedMLP.runs(layers, encoder.norm) else None
        packed = [encoder.hidden, *([inputs] if inputs is not None and self.of_vectors else [])] if self.packed else []
        self.plain = frozen_copy(encoder, packed)
        self._shown = self.plain.previous_action
        normalization = self.plain.normalization if self.of_vectors else None
        affine = () if normalization is None else normalization.affine()
        self.affine = Weights([each.float().clone() for each in affine], [each.numel() for each in affine])

    def __call__(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> Tensor:
        """As `TimestepEncoder.forward`, embeddings [B, E] of a step of each environment."""
        given = observation, previous_action, previous_reward, time
        if self.packed is None:
            return self.plain(*given)
        if not self.of_vectors:
            return self.packed(self.plain.first_layer(*given))
        inputs, kept = self.inputs(*given)
        seen = torch.empty(len(time), self.size + self.actions)
        inputs.fill(seen.data_ptr())
        del kept
        return self.packed(seen)

    def inputs(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> tuple[native.StepInputs, list[Tensor | None]]:
        """What native code puts side by side: the normalised numbers, and the previous action as a vector.

        With tensors that must live until it has.
        """
        plain, shown, rows = self.plain, self._shown, time.shape[0]
        vectors, kept = [], [time]
        for name in plain.vectors:
            vector = observation[name]
            if vector.shape[0] != rows:
                raise ValueError(f"observation {name!r}: expected {rows} rows, as time has, got {len(vector)}")
            vector = _of_dtype(vector, torch.float32)
            shape = vector.shape
            vectors.append((address(vector, name, torch.float32, *shape), shape[1:].numel()))
            kept.append(vector)
        reward = choice = action = None
        if plain.show_reward:
            reward = _of_dtype(previous_reward, torch.float32)
        if shown is not None:
            if previous_action.shape[0] != rows:
                raise ValueError(f"expected {rows} previous actions, as many as times, got {len(previous_action)}")
            if not shown.chooses:
                action = _of_dtype(shown.vector(previous_action), torch.float32)
            elif previous_action.is_floating_point() or previous_action.dim() != 1:
                got = f"{previous_action.dtype} {list(previous_action.shape)}"
                raise ValueError(f"previous_action: expected integers [B], got {got}")
            else:
                choice = _of_dtype(previous_action, torch.int64)
        inputs = native.StepInputs(
            rows,
            self.size,
            self.actions,
            vectors,
            reward=optional_address(reward, "previous_reward", torch.float32, rows),
            affine=self.affine.pointers,
            choice=optional_address(choice, "previous_action", torch.int64, rows),
            action=optional_address(action, "previous_action", torch.float32, rows, self.actions),
            time=address(time, "time", torch.int64, rows),
        )
        return inputs, [*kept, reward, choice, action]


def _of_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x, contiguous and of a dtype of native code; by numpy, since torch takes longer to begin."""
    if x.dtype is not dtype:
        x = torch.from_numpy(x.detach().numpy().astype(_NUMPY_DTYPES[dtype]))
    return x if x.is_contiguous() else x.contiguous()


class FrozenTransformer:
    """A `Transformer` as it is now, for cached steps."""

    def __init__(self, transformer: Transformer) -> None:
        self.packed = PackedTransformer(transformer) if PackedTransformer.runs(transformer) else None
        self.plain = frozen_copy(transformer, transformer.layers if self.packed else ())
        self.initial_cache = self.plain.initial_cache
        added = self.packed is not None and self.plain.positions.rotary is None
        self.table = self.plain.positions(torch.arange(FIRST_TIMES)) if added else None
        """Positions of times 0, 1 ... as far as they were computed, for times recur; None where nothing is added."""

    def step(self, x: Tensor, time: Tensor, cache: KVCache) -> Tensor:
        """As `Transformer.step`."""
        if self.packed is None:
            return self.plain.step(x, time, cache)
        require_time(x, time)
        h = self.packed(self.plain.mapped(x) + self._positions(time), cache)
        cache.advance()
        return h

    def _positions(self, time: Tensor) -> Tensor:
        """Positions of times [B], or a scalar."""
        found = self.positions_of(time)
        return found.index_select(0, time) if found is self.table else found

    def positions_of(self, time: Tensor) -> Tensor:
        """`table`, with all of these times; or where one is late, or there is none, what is added at times [B]."""
        last = int(time.numpy().max(initial=0))
        if self.table is None or last >= MAX_CACHED_TIMES:
            return self.plain.positions(time)
        if last >= len(self.table):
            self.table = self.plain.positions(torch.arange(min(2 * last, MAX_CACHED_TIMES)))
        return self.table


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
