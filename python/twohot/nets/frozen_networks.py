"""The networks of a frozen policy: each as it is now, packed where native code has a form of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from twohot.attention import KVCache
from twohot.kernels.backend import native
from twohot.nets.actor import (
    Actor,
    BetaActor,
    DiscreteActor,
    GaussianMixtureActor,
    MultiActor,
    TanhGaussianActor,
)
from twohot.nets.interfaces import Given
from twohot.nets.linear import MLP, FoldedLinear, SigmaLinear
from twohot.nets.packed import (
    PackedMLP,
    PackedTransformer,
    Weights,
)
from twohot.nets.packed_features import pack_features
from twohot.nets.policies import Categorical, Categoricals, Policy, draw_numbers
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.transformer import Transformer, require_time

__all__ = [
    "FrozenActor",
    "FrozenTimestepEncoder",
    "FrozenTransformer",
    "arrays_of",
    "freeze_network",
    "frozen_copy",
    "sample",
]

MAX_ELEMENTS = 4096
"""Elements of a tensor up to which numpy is faster than torch."""
MAX_CACHED_TIMES = 16_384
"""Times up to which positions are kept."""
FIRST_TIMES = 64
"""Times whose positions are computed at first."""
Network = TypeVar("Network", bound=nn.Module)


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


def arrays_of(observation: dict[str, Tensor], previous_action: Tensor, previous_reward: Tensor) -> Given:
    """Tensors of the CPU as arrays of the same memory."""
    seen = {name: x.detach().numpy() for name, x in observation.items()}
    return Given(seen, previous_action.detach().numpy(), previous_reward.detach().numpy())


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
        affine = () if normalization is None or not self.packed else normalization.affine()
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
        self.inputs(arrays_of(*given), time.numpy()).fill(seen)
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
