"""What a timestep encoder that acts makes of images, grids and tokens, up to its linear layers, in native calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from twohot.kernels.activation import LEAKY_RELU_SLOPE
from twohot.kernels.backend import native
from twohot.kernels.threads import native_threads
from twohot.nets.grids import VALUES, GridEncoder
from twohot.nets.images import ImageEncoder
from twohot.nets.packed import PANEL, Weights, pack, runs
from twohot.nets.tokens import TokenEncoder

__all__ = ["PackedFeatures", "pack_features"]


class PackedFeatures:
    """The features of an `ImageEncoder`, `GridEncoder` or `TokenEncoder` in one native call.

    Args:
        kind: the class of native code. options: its arguments, without the parameters.
        weights: the parameters, the table last. dtype: of what it takes. most: of a number; larger ones count as this.
    """

    def __init__(self, kind: str, options: dict[str, Any], weights: Weights, dtype: type, most: int | None) -> None:
        self._arguments = kind, options, weights, dtype, most
        *parameters, table = weights.pointers
        self._native = getattr(native, kind)(**options, parameters=parameters, table=table)

    def __reduce__(self) -> tuple:
        return PackedFeatures, self._arguments

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x [B, ...] to [B, features]."""
        *_, dtype, most = self._arguments
        if most is not None and x.dtype != dtype:
            x = x.clip(0, most)
        out = np.empty((len(x), self._native.outputs), np.float32)
        self._native.fill(np.ascontiguousarray(x, dtype), out, threads=native_threads())
        return out


def pack_features(encoder: nn.Module) -> tuple[PackedFeatures, Tensor] | None:
    """The native form of an encoder, if there is one, and the weight of the linear layer that takes what it gives."""
    if type(encoder) is TokenEncoder and runs(encoder.embedding.weight, PANEL) and encoder.gru.hidden_size % 16 == 0:
        gru: Any = encoder.gru
        table = encoder.embedding.weight
        tensors = [
            *pack(gru.weight_ih_l0, gru.bias_ih_l0),
            *pack(gru.weight_hh_l0, gru.bias_hh_l0),
            table.detach().clone(),
        ]
        options = {"vocabulary": len(table), "width": gru.input_size, "hidden": gru.hidden_size}
        return PackedFeatures("TokensStep", options, _weights(tensors), np.int64, None), encoder.project.weight
    if type(encoder) is GridEncoder:
        table, channels = encoder.table.detach().clone(), encoder.table.shape[1]
    elif type(encoder) is ImageEncoder:
        table, channels = None, encoder.shape[2]
    else:
        return None
    convolutions: list[Any] = list(encoder.network)[::2]
    if not (convolutions and runs(encoder.project.weight, PANEL) and _plain(encoder.network)):
        return None
    tensors = [x for each in convolutions for x in pack(each.weight.permute(0, 2, 3, 1).flatten(1), each.bias)]
    height, width, parts = encoder.shape
    options = {
        **{"height": height, "width": width, "parts": parts, "channels": channels, "slope": LEAKY_RELU_SLOPE},
        "layers": [(each.out_channels, each.kernel_size[0], each.stride[0], each.padding[0]) for each in convolutions],
    }
    for each in convolutions:
        kernel, stride, padding = each.kernel_size[0], each.stride[0], each.padding[0]
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    # Channels are last.
    projection = encoder.project.weight.unflatten(1, (-1, height, width)).permute(0, 2, 3, 1).flatten(1)
    packed = PackedFeatures("ImagesStep", options, _weights([*tensors, table]), np.uint8, VALUES - 1)
    return packed, projection


def _ordinary(convolution: nn.Conv2d) -> bool:
    """Whether it is square, and has zeros around it and no more than its size, stride and padding."""
    squares = convolution.kernel_size, convolution.stride, convolution.padding
    more = convolution.groups, convolution.dilation, convolution.padding_mode, convolution.bias is not None
    return more == (1, (1, 1), "zeros", True) and all(not isinstance(x, str) and x[0] == x[1] for x in squares)


def _weights(tensors: list[Tensor | None]) -> Weights:
    return Weights(tensors, [0 if x is None else x.numel() for x in tensors])


def _plain(network: nn.Sequential) -> bool:
    """Whether it is convolutions, each followed by a leaky ReLU, that native code has."""

    def has(module: nn.Module, index: int) -> bool:
        if index % 2:
            return type(module) is nn.LeakyReLU and module.negative_slope == LEAKY_RELU_SLOPE
        return type(module) is nn.Conv2d and module.out_channels % PANEL == 0 and _ordinary(module)

    return len(network) % 2 == 0 and all(has(module, index) for index, module in enumerate(network))
