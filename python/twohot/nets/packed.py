"""The native forms of the networks that act: weights packed once per version of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.attention import KVCache
from twohot.kernels.addresses import address, optional_address
from twohot.kernels.backend import choose_decode, is_eager_tensor, native

if TYPE_CHECKING:
    from twohot.nets.timestep import TimestepEncoder
    from twohot.nets.transformer import Transformer, TransformerLayer

PANEL = 32
"""Outputs that stand side by side in a packed weight."""
MOST_ROWS = 256
"""Rows from which on large matrix products are faster than the native form of an MLP."""
MOST_NUMBERS = 4096
"""Of a tensor that is handled by numpy."""
_STEADY = local()
_CACHES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def pack(weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    """A weight [outputs, inputs] as [ceil(outputs / PANEL), inputs, PANEL], and its bias; both filled up with zeros."""
    more = -weight.shape[0] % PANEL
    panels = functional.pad(weight, (0, 0, 0, more)).unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()
    return [panels, None if bias is None else functional.pad(bias, (0, more))]


@contextmanager
def steady_weights() -> Iterator[None]:
    """Within, in this thread, parameters do not change: whether they have is asked once instead of at each step."""
    before = getattr(_STEADY, "time", None)
    _STEADY.time = object()
    try:
        yield
    finally:
        _STEADY.time = before


def faster_in_numpy(x: Tensor) -> bool:
    """Whether x is small, float32 and on a CPU, without a gradient: operations of torch take longer to begin then.

    Some wake its threads even for little, which on a virtual machine takes longer than the work.
    """
    small = not torch.is_grad_enabled() and x.is_cpu and x.dtype == torch.float32 and x.numel() <= MOST_NUMBERS
    return small and is_eager_tensor(x)


class PackedWeights:
    """Tensors made of modules' parameters, anew where one has changed by torch's own count of in-place changes.

    See `SigmaLinear.folded_weight` for optimisers that do not count theirs. A copy starts with none.
    """

    def __init__(self) -> None:
        self._modules: list[tuple[dict[str, nn.Module | None], dict[str, nn.Module | None]]] = []
        self._owners: list[tuple[dict[str, Tensor | None], str]] = []
        self._version: list[int] = []
        self._tensors: list[Tensor | None] = []
        self._addresses: list[int] = []
        self._asked: object = None

    def __deepcopy__(self, memo: dict) -> PackedWeights:
        return PackedWeights()

    def __reduce__(self) -> tuple[type[PackedWeights], tuple[()]]:
        return PackedWeights, ()

    def addresses(self, modules: Sequence[nn.Module], make: Callable[[], Iterable[Tensor | None]]) -> list[int]:
        """Addresses of what `make` makes of the modules, always the same ones; 0 for None."""
        time = getattr(_STEADY, "time", None)
        if time is not None and time is self._asked:
            return self._addresses
        if not self._modules or any(now != then for now, then in self._modules):
            # Dictionaries instead of what is in them: a module or parameter may be replaced by another of its name.
            every = [each for module in modules for each in module.modules()]
            self._modules = [(module._modules, dict(module._modules)) for module in every]
            parts = [values for module in every for values in (module._parameters, module._buffers)]
            self._owners = [(values, name) for values in parts for name in values]
            self._version = []
        tensors = [values[name] for values, name in self._owners]
        version = [number for x in tensors if x is not None for number in (x.data_ptr(), x._version)]
        if version != self._version:
            self._tensors = list(make())
            self._addresses = [0 if x is None else x.data_ptr() for x in self._tensors]
            self._version = version
        self._asked = time
        return self._addresses


class PackedStep:
    """The cached step of a `Transformer` in one native call: float32 on a CPU, where the native attention runs.

    Weights are folded (gain over spectral norm, scales of heads) and packed once per version of the parameters.
    """

    def __init__(self) -> None:
        self._weights = PackedWeights()

    def fits(self, transformer: Transformer, x: Tensor, cache: KVCache) -> bool:
        """Whether the native step gives what the layers one by one would, for x [B, E] and this cache."""
        layers, environments, heads, _, size = cache.keys.shape
        return (
            x.dtype == transformer.norm.weight.dtype == torch.float32
            and x.shape == (environments, transformer.width)
            and (layers, heads) == (len(transformer.layers), transformer.heads)
            and heads * size == transformer.width
            and transformer.feed_forward % 16 == 0
            and choose_decode(x.device, x.dtype, cache.keys.dtype, size).name == "native"
            and cache.keys.device == x.device
            and is_eager_tensor(x)
            and not torch.is_autocast_enabled("cpu")
        )

    def run(self, transformer: Transformer, x: Tensor, cache: KVCache) -> Tensor:
        """x [B, E] with positions to h [B, E]; appends to the cache, does not advance it."""
        layers, environments, heads, rows, size = cache.keys.shape
        x = x.contiguous()
        out = torch.empty_like(x)
        cosine, sine = cache.rotation()
        weights = self._weights.addresses(
            (transformer,), lambda: _checked(_of_transformer(transformer), _numbers(transformer))
        )
        native.transformer_step(
            address(x, "x", torch.float32, environments, transformer.width),
            out.data_ptr(),
            environments,
            transformer.width,
            transformer.feed_forward,
            weights,
            epsilon=transformer.norm.eps,
            slope=0.01,  # of functional.leaky_relu
            keys=address(cache.keys, "cache.keys", cache.keys.dtype, *cache.keys.shape),
            values=address(cache.values, "cache.values", cache.keys.dtype, *cache.keys.shape),
            cache_dtype=_CACHES[cache.keys.dtype],
            layers=layers,
            heads=heads,
            rows=rows,
            size=size,
            sinks=cache.sinks,
            seen=address(cache.seen, "cache.seen", torch.int64, environments),
            cosine=optional_address(cosine, "cosine", torch.float32, environments, size // 2),
            sine=optional_address(sine, "sine", torch.float32, environments, size // 2),
            threads=torch.get_num_threads(),
        )
        return out


class PackedMLP:
    """Linear layers with leaky ReLU between them, and a norm behind or none, in one native call for few rows."""

    def __init__(self) -> None:
        self._weights = PackedWeights()

    def fits(self, layers: Sequence[nn.Linear], x: Tensor, norm: nn.LayerNorm | None) -> bool:
        """Whether the native form gives what the layers one by one would, for x [B, inputs]."""
        return x.dim() == 2 and x.shape[1] == layers[0].in_features and _fits(x, layers, norm)

    def run(self, layers: Sequence[nn.Linear], x: Tensor, norm: nn.LayerNorm | None, last: int | None) -> Tensor:
        """x [B, inputs] to [B, outputs]; `last` says of how many outputs, the last ones; a norm takes all of them."""
        sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        sizes[-1] = last or sizes[-1]
        made = (*layers, *_some(norm))
        weights = self._weights.addresses(
            made, lambda: _checked(_of_layers(layers, norm, sizes[-1]), _of_mlp(sizes, norm))
        )
        return _mlp(x.contiguous(), sizes, weights, norm)


class PackedEncoder:
    """The layers of a `TimestepEncoder` of vectors in one native call: its first ones, as one, and its MLP."""

    def __init__(self) -> None:
        self._weights = PackedWeights()

    def fits(self, encoder: TimestepEncoder, previous_reward: Tensor) -> bool:
        """Whether the native form gives what the layers one by one would, for previous_reward [B]."""
        return (
            not encoder.parts
            and encoder.inputs is not None
            and previous_reward.dim() == 1
            and _fits(previous_reward, (encoder.inputs, *encoder.hidden.layers), encoder.norm)
        )

    def run(self, encoder: TimestepEncoder, x: Tensor) -> Tensor:
        """x [B, features + entries of the previous action, if it is shown] to embeddings [B, E]."""
        behind = encoder.hidden.layers
        sizes = [x.shape[1], encoder.inputs.out_features, *(layer.out_features for layer in behind)]
        shown = (encoder.inputs, *_some(encoder.previous_action))

        def make() -> Iterator[Tensor | None]:
            parts = [encoder.inputs.weight.detach(), *(each.table.detach().T for each in shown[1:])]
            yield from pack(torch.cat(parts, dim=1), encoder.inputs.bias.detach())
            yield from _of_layers(behind, encoder.norm, sizes[-1])

        made = (*shown, *behind, encoder.norm)
        weights = self._weights.addresses(made, lambda: _checked(make(), _of_mlp(sizes, encoder.norm)))
        return _mlp(x, sizes, weights, encoder.norm)


def _fits(x: Tensor, layers: Sequence[nn.Linear], norm: nn.LayerNorm | None) -> bool:
    """Whether `_mlp` may run for these rows [B, ...]."""
    return (
        not torch.is_grad_enabled()
        and len(x) <= MOST_ROWS
        and x.dtype == layers[0].weight.dtype == torch.float32
        and (norm is None or layers[-1].out_features % 16 == 0)
        and choose_decode(x.device, x.dtype, x.dtype, PANEL).name == "native"
        and is_eager_tensor(x)
        and not torch.is_autocast_enabled("cpu")
    )


def _mlp(x: Tensor, sizes: list[int], weights: list[int], norm: nn.LayerNorm | None) -> Tensor:
    out = x.new_empty(len(x), sizes[-1])
    native.mlp_step(
        address(x, "x", torch.float32, len(x), sizes[0]),
        out.data_ptr(),
        len(x),
        sizes,
        weights,
        epsilon=0.0 if norm is None else norm.eps,
        slope=0.01,  # of nn.LeakyReLU
        threads=torch.get_num_threads(),
    )
    return out


def _panels(inputs: int, outputs: int) -> tuple[int, int]:
    """Numbers of a packed weight and of its bias."""
    filled = outputs + -outputs % PANEL
    return inputs * filled, filled


def _of_mlp(sizes: Sequence[int], norm: nn.LayerNorm | None) -> list[int]:
    """Numbers of each tensor of an MLP."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return [*(number for pair in pairs for number in _panels(*pair)), *[sizes[-1]] * (0 if norm is None else 2)]


def _numbers(transformer: Transformer) -> list[int]:
    """Numbers of each tensor of a Transformer."""
    width, hidden = transformer.width, transformer.feed_forward
    norm = (width, width)
    attention = (*norm, *_panels(width, 3 * width), *_panels(width, width), *norm)
    feed_forward = (*norm, *_panels(width, hidden), hidden, hidden, *_panels(hidden, width))
    return [*(attention + feed_forward) * len(transformer.layers), *norm]


def _checked(tensors: Iterable[Tensor | None], numbers: Sequence[int]) -> Iterator[Tensor | None]:
    """The tensors; ValueError where one is not float32 on the CPU, of so many numbers as native code will read."""
    for x, count in zip(tensors, numbers, strict=True):
        flat = None if x is None else x.contiguous().flatten()
        optional_address(flat, "a weight of a network that acts", torch.float32, count)
        yield flat


def _some(module: nn.Module | None) -> tuple[nn.Module, ...]:
    return () if module is None else (module,)


def _of_layers(layers: Sequence[nn.Linear], norm: nn.LayerNorm | None, last: int) -> Iterator[Tensor | None]:
    for layer in layers[:-1]:
        yield from pack(layer.weight.detach(), layer.bias.detach())
    yield from pack(layers[-1].weight.detach()[-last:], layers[-1].bias.detach()[-last:])
    for each in _some(norm):
        yield from _of_norm(each)


def _of_norm(norm: nn.LayerNorm) -> list[Tensor | None]:
    return [norm.weight.detach(), norm.bias.detach()]


def _of_transformer(transformer: Transformer) -> Iterator[Tensor | None]:
    for layer in transformer.layers:
        yield from _of_layer(layer)
    yield from _of_norm(transformer.norm)


def _of_layer(layer: TransformerLayer) -> list[Tensor | None]:
    # The scales of heads go into the next layer's weight.
    scales = layer.head_scale.repeat_interleave(layer.out.weight.shape[1] // layer.heads, 0).flatten()
    return [
        *_of_norm(layer.norm_attention),
        *pack(layer.qkv.folded_weight(), layer.qkv.bias),
        *pack(layer.out.folded_weight() * scales, layer.out.bias),
        *_of_norm(layer.norm_attended),
        *_of_norm(layer.norm_feed_forward),
        *pack(layer.up.folded_weight(), layer.up.bias),
        *_of_norm(layer.norm_hidden),
        *pack(layer.down.folded_weight(), layer.down.bias),
    ]
