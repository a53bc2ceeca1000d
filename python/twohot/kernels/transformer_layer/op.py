"""A Transformer's layer in training on a CPU: native passes before and after its attention, forward and backward.

Blocks of rows go through norms, linear layers, activation, dropout and residual sums while they are in the cache of a
core; kept for the way back are the layer's input, queries, keys, values, what was attended, its projection, the stream
between the layer's halves and the hidden units. Everything else is computed again.

Shapes: `M` rows (steps of all sequences), `E` width, `F` hidden units, `H` heads, `D` head size. The stream between
layers, parameters and their gradients are float32; products run in float32 or bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from twohot.kernels.addresses import address, refuse
from twohot.kernels.attention import op as attention
from twohot.kernels.attention import reference
from twohot.kernels.autograd import require_one_derivative
from twohot.kernels.backend import autocast_dtype, choose_attention, is_eager_tensor, native
from twohot.kernels.dtypes import PRODUCT_DTYPE_NAMES
from twohot.kernels.threads import native_threads
from twohot.kernels.torch_private import operation_body

WIDTH_STEP = 32
"""What widths are multiples of."""
_attend = operation_body(attention.causal_attention_op)


class Layer(NamedTuple):
    """Parameters of a layer, float32. Weights are [outputs, inputs], those of norms [width, ]."""

    attention_norm: Tensor
    attention_norm_bias: Tensor
    qkv: Tensor
    """[3 E, E]."""
    out: Tensor
    """[E, E], with the scales of heads in it."""
    out_bias: Tensor
    attended_norm: Tensor
    attended_norm_bias: Tensor
    feed_forward_norm: Tensor
    feed_forward_norm_bias: Tensor
    up: Tensor
    """[F, E]."""
    up_bias: Tensor
    hidden_norm: Tensor
    hidden_norm_bias: Tensor
    down: Tensor
    """[E, F]."""
    down_bias: Tensor


class Settings(NamedTuple):
    """What is no parameter."""

    heads: int
    rotary: float | None
    epsilon: float
    """Of every norm."""
    slope: float
    """Of the leaky ReLU below 0."""
    dropout: float


def products_dtype(x: Tensor, heads: int, feed_forward: int) -> torch.dtype | None:
    """The dtype that a native layer would multiply in, for x [B, L, E]; None where it does not run."""
    dtype = autocast_dtype(torch.device("cpu")) or torch.float32
    width = x.shape[-1]
    if (
        not drops_out(x)
        or x.dim() != 3
        or not x.numel()
        or dtype not in PRODUCT_DTYPE_NAMES
        or heads < 1
        or width % heads
        or width % WIDTH_STEP
        or feed_forward % WIDTH_STEP
        or choose_attention(x.device, dtype, width // heads, False).name != "native"
    ):
        return None
    return dtype


def run(x: Tensor, dtype: torch.dtype, settings: Settings, layer: Layer) -> Tensor:
    """The layer's output [B, L, E] for x [B, L, E] float32, with gradients; products in `dtype`.

    Raises:
        TypeError, ValueError: for tensors that are not float32 on the CPU in the shapes of a layer.
    """
    heads = settings.heads
    shaped = x.dim() == 3 and x.numel() and heads >= 1 and x.shape[-1] % heads == 0
    if not shaped or layer.up.dim() != 2 or dtype not in PRODUCT_DTYPE_NAMES:
        dtypes = list(PRODUCT_DTYPE_NAMES)
        expected = f"a tensor [B, L, E] of {heads} heads, not empty, `up` [F, E] and one of {dtypes}, not {dtype},"
        refuse(x, "x", expected)
    for what, parameter, shape in zip(Layer._fields, layer, _shapes(x.shape[-1], layer.up.shape[0]), strict=True):
        address(parameter, what, torch.float32, *shape, strided=True)
    return _Run.apply(x, dtype, settings, *layer)


def _shapes(width: int, feed_forward: int) -> tuple[tuple[int, ...], ...]:
    """Of the parameters."""
    one, hidden = (width,), (feed_forward,)
    before, after = (one, one, (3 * width, width), (width, width), one), (one,) * 4
    return *before, *after, hidden + one, hidden, hidden, hidden, one + hidden, one


def drops_out(x: Tensor) -> bool:
    """Whether `dropout` runs for x."""
    return native is not None and x.is_cpu and x.dtype == torch.float32 and is_eager_tensor(x)


def dropout(x: Tensor, share: float) -> Tensor:
    """x with a `share` of its numbers left out and the others scaled up."""
    return _Dropout.apply(x, share)


def _seed(share: float) -> int:
    """A seed of dropout, drawn from torch's generator where there is dropout."""
    return int(torch.randint(2**63 - 1, (), device="cpu")) if share else 0


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, share: float) -> Tensor:
        ctx.options = {"seed": _seed(share), "dropout": share}
        return _Dropout.run(ctx, x)

    @staticmethod
    def run(ctx, x: Tensor) -> Tensor:
        x, threads = x.contiguous(), native_threads()
        out = torch.empty_like(x)
        at = address(x, "x", torch.float32, *x.shape)
        native.dropout(out.data_ptr(), at, x.numel(), **ctx.options, threads=threads)
        return out

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        require_one_derivative(ctx)
        return _Dropout.run(ctx, grad_output), None


def _pack(weight: Tensor, dtype: torch.dtype, backward: bool) -> Tensor:
    """A weight [outputs, inputs] as the products of this processor read it."""
    packed = torch.empty(weight.numel(), dtype=torch.float32, device="cpu")
    options = {"backward": backward, "dtype": PRODUCT_DTYPE_NAMES[dtype], "threads": native_threads()}
    native.pack_weight(weight.data_ptr(), *weight.shape, packed=packed.data_ptr(), **options)
    return packed


def _addresses(*tensors: Tensor) -> list[int]:
    return [x.data_ptr() for x in tensors]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, dtype: torch.dtype, settings: Settings, *parameters: Tensor) -> Tensor:
        x, parameters = x.contiguous(), tuple(p.contiguous() for p in parameters)
        address(x, "x", torch.float32, *x.shape)
        layer = Layer(*parameters)
        passes = _Passes(x, dtype, settings, layer, _seed(settings.dropout))
        qkv = passes.before()
        attended, lse = _attend(*passes.heads(qkv), None, *passes.attention)
        projected, middle, activated, out = passes.after(attended)
        ctx.options = dtype, settings, passes.seed
        ctx.save_for_backward(x, qkv, attended, lse, projected, middle, activated, *parameters)
        return out

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        require_one_derivative(ctx)
        x, qkv, attended, lse, *kept = ctx.saved_tensors
        dtype, settings, seed = ctx.options
        passes = _Passes(x, dtype, settings, Layer(*kept[3:]), seed)
        grad_output = grad_output.contiguous()
        address(grad_output, "grad_output", torch.float32, *x.shape)
        grad_x, grad_attended, after = passes.after_backward(grad_output, attended, *kept[:3])
        grad_qkv = torch.empty_like(qkv)
        attention.fill_gradients(
            grad_attended, *passes.heads(qkv), attended, lse, passes.attention, out_gradients=passes.heads(grad_qkv)
        )
        before = passes.before_backward(grad_qkv, grad_x)
        return grad_x, None, None, *before, *after


class _Passes:
    """The native passes of a layer over x [B, L, E]."""

    def __init__(self, x: Tensor, dtype: torch.dtype, settings: Settings, layer: Layer, seed: int) -> None:
        self.x, self.dtype, self.settings, self.layer, self.seed = x, dtype, settings, layer, seed
        self.rows, self.width = x.shape[:-1].numel(), x.shape[-1]
        angles, size = (None, None), self.width // settings.heads
        if settings.rotary is not None:
            angles = reference.rotation(torch.arange(x.shape[1], device="cpu"), size, settings.rotary, torch.float32)
        self.attention = (*angles, 0, 0, 0.0, size**-0.5)

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, L, H, D] as views of qkv [B, L, 3 E]."""
        q, k, v = qkv.unflatten(-1, (3, self.settings.heads, -1)).unbind(2)
        return q, k, v

    def _call(self, function, hidden: int, inputs: list[int], outputs: list[int], **options) -> None:
        function(
            self.rows,
            self.width,
            hidden,
            PRODUCT_DTYPE_NAMES[self.dtype],
            inputs=inputs,
            outputs=outputs,
            epsilon=self.settings.epsilon,
            threads=native_threads(),
            **options,
        )

    def _of_dtype(self, width: int) -> Tensor:
        return torch.empty((*self.x.shape[:-1], width), dtype=self.dtype, device="cpu")

    def before(self) -> Tensor:
        """Queries, keys and values [B, L, 3 E]."""
        layer, qkv = self.layer, self._of_dtype(3 * self.width)
        weight = _pack(layer.qkv, self.dtype, backward=False)
        inputs = _addresses(self.x, layer.attention_norm, layer.attention_norm_bias, weight)
        self._call(native.before_attention, 3 * self.width, inputs, _addresses(qkv))
        return qkv

    def before_backward(self, grad_output: Tensor, grad_x: Tensor) -> list[Tensor]:
        """Gradients of the norm's parameters and of qkv's weight; that of x is added to `grad_x`."""
        layer = self.layer
        weight = _pack(layer.qkv, self.dtype, backward=True)
        inputs = _addresses(self.x, layer.attention_norm, layer.attention_norm_bias, weight, grad_output)
        gradients = [torch.empty_like(p) for p in layer[:3]]
        outputs = _addresses(grad_x, gradients[2], *gradients[:2])
        self._call(native.before_attention_backward, 3 * self.width, inputs, outputs)
        return gradients

    def _after_inputs(self, attended: Tensor, backward: bool) -> tuple[list[int], list[Tensor], dict[str, float]]:
        """Inputs of the pass after the attention, the packed weights that must live until then, and its options."""
        weights = {name: _pack(getattr(self.layer, name), self.dtype, backward) for name in ("out", "up", "down")}
        parameters = self.layer._replace(**weights)[3:]
        options = {"slope": self.settings.slope, "seed": self.seed, "dropout": self.settings.dropout}
        return _addresses(*parameters, self.x, attended), list(weights.values()), options

    def after(self, attended: Tensor) -> list[Tensor]:
        """After the attention [B, L, H, D]: what is kept (its projection, middle stream, hidden units); the output."""
        feed_forward = self.layer.up.shape[0]
        inputs, packed, options = self._after_inputs(attended, backward=False)
        projected, activated = self._of_dtype(self.width), self._of_dtype(feed_forward)
        outputs = [projected, torch.empty_like(self.x), activated, torch.empty_like(self.x)]
        self._call(native.after_attention, feed_forward, inputs, _addresses(*outputs), **options)
        del packed
        return outputs

    def after_backward(
        self, grad_output: Tensor, attended: Tensor, *kept: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Gradients of x (what bypasses the attention), of what was attended, and of the parameters after it."""
        inputs, packed, options = self._after_inputs(attended, backward=True)
        grad_x, grad_attended = torch.empty_like(self.x), torch.empty_like(attended)
        gradients = [torch.empty_like(p) for p in self.layer[3:]]
        inputs += _addresses(*kept, grad_output)
        outputs = _addresses(grad_x, grad_attended, *gradients)
        self._call(native.after_attention_backward, self.layer.up.shape[0], inputs, outputs, **options)
        del packed
        return grad_x, grad_attended, gradients
