"""Freeze, then act: a copy of an agent's networks that changes no more, made for few rows without gradients.

Weights are folded and packed once. On a CPU a step of up to `MAX_ROWS` environments is then one native call, where the
memory is a Transformer: from observations, and the features of images, grids and tokens, to an action, or to the
parameters of the policy. Of other networks each is a call of its own, and what is small between them goes through
numpy: operations of torch take longer to begin, and some wake its threads even for little.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from twohot.attention import KVCache
from twohot.kernels.backend import native
from twohot.nets.actor import (
    MAX_LOG_STD,
    MIN_LOG_STD,
    Actor,
    BetaActor,
    DiscreteActor,
    GaussianMixtureActor,
    MultiActor,
    TanhGaussianActor,
)
from twohot.nets.interfaces import ActorNetwork, Cache, Given, TimestepNetwork, TrajectoryNetwork
from twohot.nets.linear import MLP, FoldedLinear, SigmaLinear
from twohot.nets.packed import (
    MAX_ROWS,
    Draw,
    Outputs,
    PackedMLP,
    PackedPart,
    PackedPolicy,
    PackedTransformer,
    Weights,
)
from twohot.nets.packed_features import pack_features
from twohot.nets.policies import Categorical, Categoricals, Policy, draw_numbers
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.transformer import Transformer, require_time
from twohot.spaces import ACTION_MASK

__all__ = ["ActingState", "FrozenPolicy", "freeze"]

MAX_ELEMENTS = 4096
"""Elements of a tensor up to which numpy is faster than torch."""
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
        inputs = self.timestep_encoder.inputs(_arrays(*given), state.time.numpy())
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


def _arrays(observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor) -> Given:
    """Tensors of the CPU as arrays of the same memory."""
    seen = {name: x.detach().numpy() for name, x in observation.items()}
    return Given(seen, previous_action.detach().numpy(), previous_reward.detach().numpy())


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


class FrozenTimestepEncoder:
    """A `TimestepEncoder` as it is now, for single steps."""

    def __init__(self, encoder: TimestepEncoder) -> None:
        inputs, action, hidden = encoder.inputs, encoder.previous_action, _weights(encoder.hidden)
        self._encoded, projections = {}, []
        for name, part in encoder.encoded.items():
            self._encoded[name], projection = pack_features(part) or (None, part.project.weight)
            projections.append((projection, part.project.bias))
        # The first layers are one, of everything side by side.
        first: list[tuple[Tensor, Tensor]] = [] if inputs is None else [(inputs.weight, inputs.bias)]
        if action is not None:
            first.append((action.table.T, torch.zeros_like(action.table[0])))
        weights, biases = zip(*first, *projections, strict=True)
        layers = [(torch.cat(weights, dim=1), torch.stack(biases).sum(0)), *hidden]
        self.packed = PackedMLP(layers, encoder.norm) if PackedMLP.runs(layers, encoder.norm) else None
        replaced: list[Any] = []
        if self.packed:
            parts = encoder.encoded
            replaced = [encoder.hidden, inputs, *(part.project for part in parts.values())]
            replaced += [parts[name] for name, features in self._encoded.items() if features is not None]
        self.plain = plain = frozen_copy(encoder, replaced)
        normalization = plain.normalization
        affine = () if normalization is None else normalization.affine()
        self._affine = Weights([each.float().clone() for each in affine], [each.numel() for each in affine])
        self._sizes = {
            "names": encoder.vectors,
            "columns": 0 if inputs is None else inputs.in_features,
            "actions": 0 if action is None else len(action.table),
            "counts": [] if action is None else action.counts,
        }
        self._make_form()

    def _make_form(self) -> None:
        self._form = native.StepForm(**self._sizes, affine=self._affine.pointers) if self.packed else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_form": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._make_form()

    def __call__(
        self, observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor, time: Tensor
    ) -> Tensor:
        """As `TimestepEncoder.forward`, embeddings [B, E] of a step of each environment."""
        given = observation, previous_action, previous_reward
        if self.packed is None:
            return self.plain(*given, time)
        seen = np.empty((len(time), self.packed.sizes[0]), np.float32)
        self.inputs(_arrays(*given), time.numpy()).fill(seen)
        return self.packed(torch.from_numpy(seen))

    def inputs(self, given: Given, time: np.ndarray) -> native.StepInputs:
        """What native code puts side by side: the normalised numbers, the previous action as a vector, and features."""
        plain, action, features = self.plain, None, []
        assert self._form is not None
        for name, packed in self._encoded.items():
            if packed is not None:
                features.append(packed(given.observation[name]))
                continue
            with torch.no_grad():
                found = plain.encoded[name].features(torch.from_numpy(given.observation[name]))
            features.append(np.ascontiguousarray(found.numpy(), np.float32))
        if plain.previous_action is not None:
            action = given.previous_action
            choices = self._sizes["counts"] and action.dtype.kind != "f"
            action = np.ascontiguousarray(action, np.int64 if choices else np.float32)
        return native.StepInputs(
            self._form,
            [np.ascontiguousarray(given.observation[name], np.float32) for name in plain.vectors],
            np.ascontiguousarray(given.previous_reward, np.float32) if plain.show_reward else None,
            action,
            time,
            features,
        )


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
