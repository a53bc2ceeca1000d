"""Plain PyTorch truth of a Transformer's layer without dropout: runs in any floating dtype, float64 included."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from twohot.kernels.attention import reference
from twohot.kernels.transformer_layer.op import Layer, Settings


def run(x: Tensor, settings: Settings, layer: Layer) -> Tensor:
    """x + norm(attention(norm x)), then x + W2 norm(leaky_relu(W1 norm x)), for x [B, L, E]."""

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, settings.epsilon)

    before = norm(x, layer.attention_norm, layer.attention_norm_bias)
    q, k, v = functional.linear(before, layer.qkv).unflatten(-1, (3, settings.heads, -1)).unbind(2)
    attended = reference.causal_attention(q, k, v, rotary=settings.rotary).flatten(2)
    projected = functional.linear(attended, layer.out, layer.out_bias)
    x = x + norm(projected, layer.attended_norm, layer.attended_norm_bias)
    hidden = functional.linear(norm(x, layer.feed_forward_norm, layer.feed_forward_norm_bias), layer.up, layer.up_bias)
    hidden = norm(functional.leaky_relu(hidden, settings.slope), layer.hidden_norm, layer.hidden_norm_bias)
    return x + functional.linear(hidden, layer.down, layer.down_bias)
