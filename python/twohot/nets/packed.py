"""Native calls for networks that act, and their weights as these calls take them; packed by `twohot.nets.frozen`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn import functional

from twohot.attention import KVCache
from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.addresses import address, optional_address
from twohot.kernels.backend import choose_decode, native
from twohot.kernels.threads import native_threads
from twohot.nets.transformer import Transformer, TransformerLayer

PANEL = 32
"""Outputs that stand side by side in a packed weight."""
MAX_ROWS = 256
"""Rows from which on large matrix products are faster than the native form of an MLP."""
_CACHES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def pack(weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    """A weight [outputs, inputs] as [ceil(outputs / PANEL), inputs, PANEL], and its bias; both filled up with zeros."""
    more = -weight.shape[0] % PANEL
    panels = functional.pad(weight, (0, 0, 0, more)).unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()
    return [panels, None if bias is None else functional.pad(bias, (0, more))]


class Weights:
    """Tensors that native code reads, in its order, and where they are; 0 stands for None.

    Args:
        tensors: float32 on the CPU. numbers: how many native code reads of each.

    Raises:
        ValueError: for any other tensor.
    """

    def __init__(self, tensors: Iterable[Tensor | None], numbers: Sequence[int]) -> None:
        self.tensors = [None if x is None else x.detach().contiguous().flatten() for x in tensors]
        self.numbers = numbers
        self.pointers = [
            optional_address(x, "a weight of a network that acts", torch.float32, count)
            for x, count in zip(self.tensors, numbers, strict=True)
        ]

    def __reduce__(self) -> tuple:
        return Weights, (self.tensors, self.numbers)  # a copy has other pointers


class PackedMLP:
    """Linear layers with leaky ReLU between them, and a norm after them or none, in one native call.

    Args:
        layers: weight [outputs, inputs] and bias [outputs] of each. norm: after the last one.

    Raises:
        ValueError: for weights that do not fit each other, or are not float32 on the CPU.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], norm: nn.LayerNorm | None = None) -> None:
        self.sizes = [layers[0][0].shape[1], *(len(weight) for weight, _ in layers)]
        self.epsilon = 0.0 if norm is None else norm.eps
        tensors = [x for layer in layers for x in pack(*layer)]
        numbers = [count for pair in zip(self.sizes[:-1], self.sizes[1:], strict=True) for count in _panels(*pair)]
        if norm is not None:
            tensors += _of_norm(norm)
            numbers += [self.sizes[-1]] * 2
        self.weights = Weights(tensors, numbers)

    @staticmethod
    def runs(layers: Sequence[tuple[Tensor, Tensor]], norm: nn.LayerNorm | None = None) -> bool:
        """Whether there is a native form of these layers, where they are."""
        first, outputs = layers[0][0], len(layers[-1][0])
        return (norm is None or outputs % 16 == 0) and runs(first, PANEL)

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, inputs] to [B, outputs], without gradient."""
        x = x.contiguous()
        if len(x) > MAX_ROWS:
            return self._products(x)
        out = x.new_empty(len(x), self.sizes[-1])
        native.mlp_step(
            address(x, "x", torch.float32, len(x), self.sizes[0]),
            out.data_ptr(),
            len(x),
            self.sizes,
            self.weights.pointers,
            epsilon=self.epsilon,
            slope=LEAKY_RELU_SLOPE,
            threads=native_threads(),
        )
        return out

    def _products(self, x: Tensor) -> Tensor:
        """The same by torch, layer by layer."""
        layers = len(self.sizes) - 1
        for index, (inputs, outputs) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            panels, bias = self.weights.tensors[2 * index : 2 * index + 2]
            assert panels is not None
            assert bias is not None
            weight = panels.view(-1, inputs, PANEL).transpose(1, 2).reshape(-1, inputs)[:outputs]
            x = functional.linear(x, weight, bias[:outputs])
            if index + 1 < layers:
                x = functional.leaky_relu(x, LEAKY_RELU_SLOPE, inplace=True)
        norm = self.weights.tensors[2 * layers :]
        return functional.layer_norm(x, x.shape[1:], norm[0], norm[1], self.epsilon) if norm else x


class PackedTransformer:
    """The layers and the last norm of a `Transformer` in one native call for one step.

    Args:
        transformer: its weights are folded (gain over spectral norm, scales of heads) and packed.

    Raises:
        ValueError: for weights that are not float32 on the CPU.
    """

    def __init__(self, transformer: Transformer) -> None:
        self.width, self.heads, self.feed_forward = transformer.width, transformer.heads, transformer.feed_forward
        self.layers, self.epsilon = len(transformer.layers), transformer.norm.eps
        tensors = [x for layer in transformer.blocks for x in _of_layer(layer)] + _of_norm(transformer.norm)
        self.weights = Weights(tensors, _numbers(transformer))

    @staticmethod
    def runs(transformer: Transformer) -> bool:
        """Whether there is a native form of it, where it is."""
        weight = transformer.norm.weight
        return transformer.feed_forward % 16 == 0 and runs(weight, transformer.width // transformer.heads)

    def __call__(self, x: Tensor, cache: KVCache) -> Tensor:
        """x [B, E] with positions to h [B, E]; appends to the cache, does not advance it."""
        x, environments = x.contiguous(), len(x)
        out = torch.empty_like(x)
        native.transformer_step(
            address(x, "x", torch.float32, environments, self.width),
            out.data_ptr(),
            environments,
            self.width,
            self.feed_forward,
            self.weights.pointers,
            epsilon=self.epsilon,
            slope=LEAKY_RELU_SLOPE,
            **self.cache_arguments(cache, environments),
            layers=self.layers,
            heads=self.heads,
            size=self.width // self.heads,
            threads=native_threads(),
        )
        return out

    def cache_arguments(self, cache: KVCache, environments: int) -> dict[str, Any]:
        """What native code is told of a cache for so many environments.

        Raises:
            ValueError: for a cache of another Transformer or number of environments.
        """
        rows, kind, size = cache.keys.shape[3], cache.keys.dtype, self.width // self.heads
        kind = kind if kind in _CACHES else torch.float32
        held = self.layers, environments, self.heads, rows, size
        cosine, sine = cache.rotation()
        return {
            "keys": address(cache.keys, "cache.keys", kind, *held),
            "values": address(cache.values, "cache.values", kind, *held),
            "cache_dtype": _CACHES[kind],
            "rows": rows,
            "sinks": cache.sinks,
            "cache_position": address(cache.cache_position, "cache_position", torch.int64, environments),
            "cosine": optional_address(cosine, "cosine", torch.float32, environments, size // 2),
            "sine": optional_address(sine, "sine", torch.float32, environments, size // 2),
        }


class Draw(NamedTuple):
    """How native code draws actions from an actor's outputs (csrc/ops/transformer/transformer_step.h)."""

    actions: Literal["choices", "buttons", "numbers"]
    counts: tuple[int, ...]
    """Of choices, how many actions each has."""
    low: float
    high: float
    """Bounds of a probability before all are normalised again, or of the log standard deviation of numbers."""
    shape: tuple[int, ...]
    """Of an action."""


class Outputs(NamedTuple):
    """Arrays that native code fills for the rows of a part, and the numbers that it draws actions by, or None."""

    x: np.ndarray | None = None
    """[B, outputs] of the actor."""
    action: np.ndarray | None = None
    """[B, *action]."""
    random: np.ndarray | None = None
    """Of the shape of the actions; None takes the mode."""


class PackedPart:
    """A timestep encoder and an actor, which have rows of their own in a `PackedPolicy`.

    Args:
        encoder, actor: packed. draw: None where native code cannot.
    """

    def __init__(self, encoder: PackedMLP, actor: PackedMLP, draw: Draw | None) -> None:
        self.draw, self.outputs = draw, actor.sizes[-1]
        self._weights = encoder.weights, actor.weights  # must live as long as the next
        self.native = native.PolicyPart(
            encoder_sizes=encoder.sizes,
            encoder_parameters=encoder.weights.pointers,
            encoder_epsilon=encoder.epsilon,
            actor_sizes=actor.sizes,
            actor_parameters=actor.weights.pointers,
            actions="" if draw is None else draw.actions,
            counts=[] if draw is None else list(draw.counts),
            low=0.0 if draw is None else draw.low,
            high=0.0 if draw is None else draw.high,
        )

    def drawn(self, rows: int, greedy: bool, generator: torch.Generator | None) -> Outputs:
        """Outputs of actions."""
        draw = self.draw
        assert draw is not None
        shape, numbers = (rows, *draw.shape), draw.actions == "numbers"
        action = np.empty(shape, np.float32 if numbers else np.int64)
        if greedy:
            return Outputs(None, action)
        random = (torch.randn if numbers else torch.rand)(shape, generator=generator)
        return Outputs(None, action, random.numpy())

    def parameters(self, rows: int) -> Outputs:
        """Outputs of what the actor says."""
        return Outputs(np.empty((rows, self.outputs), np.float32))


class PackedPolicy:
    """A Transformer, with timestep encoder and actor of each part before and after it, in one native call for one step.

    Args:
        parts: whose rows follow each other. transformer: packed.
    """

    def __init__(self, parts: Sequence[PackedPart], transformer: PackedTransformer) -> None:
        self.parts, self.transformer, self.width = parts, transformer, transformer.width
        self._native = native.PolicyStep(
            parts=[part.native for part in parts],
            width=transformer.width,
            feed_forward=transformer.feed_forward,
            heads=transformer.heads,
            layers=transformer.layers,
            parameters=transformer.weights.pointers,
            epsilon=transformer.epsilon,
            slope=LEAKY_RELU_SLOPE,
        )

    def __call__(
        self,
        inputs: Sequence[native.StepInputs],
        outputs: Sequence[Outputs],
        positions: Tensor | None,
        cache: KVCache,
        *,
        by_time: bool = True,
        h: Tensor | None = None,
    ) -> bool:
        """Fill h [B, E] and the outputs of each part, those that are wanted.

        Appends to the cache, and moves its positions and the times of the inputs on by one step.

        Args:
            inputs: of each part's encoder. outputs: of each part, made by it.
            positions: of times 0, 1 ..., [T, E]; or with `by_time` False of each step, [B, E].

        Returns:
            False where positions lack a time; then nothing is done.
        """
        environments, known = cache.environments, 0 if positions is None else positions.shape[0]
        done = self._native.step(
            inputs,
            outputs,
            positions=optional_address(
                positions, "positions", torch.float32, known if by_time else environments, self.width
            ),
            times=known if by_time else 0,
            **self.transformer.cache_arguments(cache, sum([each.rows for each in inputs])),
            h=optional_address(h, "h", torch.float32, environments, self.width),
            threads=native_threads(),
        )
        increment_version(cache.cache_position)  # which a rotation is kept by
        return done


def runs(weight: Tensor, size: int) -> bool:
    """Whether native code takes such a weight where it is, in vectors of `size` numbers."""
    native_runs = choose_decode(weight.device, weight.dtype, weight.dtype, size).name == "native"
    return native_runs and weight.dtype == torch.float32


def _panels(inputs: int, outputs: int) -> tuple[int, int]:
    """Numbers of a packed weight and of its bias."""
    filled = outputs + -outputs % PANEL
    return inputs * filled, filled


def _numbers(transformer: Transformer) -> list[int]:
    """Numbers of each tensor of a Transformer."""
    width, hidden = transformer.width, transformer.feed_forward
    norm = (width, width)
    attention = (*norm, *_panels(width, 3 * width), *_panels(width, width), *norm)
    feed_forward = (*norm, *_panels(width, hidden), hidden, hidden, *_panels(hidden, width))
    return [*(attention + feed_forward) * len(transformer.layers), *norm]


def _of_norm(norm: nn.LayerNorm) -> list[Tensor]:
    return _copies(norm.weight, norm.bias)


def _copies(*tensors: Tensor) -> list[Tensor]:
    """Packing copies; these are read as they are."""
    return [x.detach().clone() for x in tensors]


def _of_layer(layer: TransformerLayer) -> list[Tensor | None]:
    folded = layer.folded()
    return [
        *_copies(folded.attention_norm, folded.attention_norm_bias),
        *pack(folded.qkv, None),
        *pack(folded.out, folded.out_bias),
        *_copies(folded.attended_norm, folded.attended_norm_bias),
        *_copies(folded.feed_forward_norm, folded.feed_forward_norm_bias),
        *pack(folded.up, folded.up_bias),
        *_copies(folded.hidden_norm, folded.hidden_norm_bias),
        *pack(folded.down, folded.down_bias),
    ]
