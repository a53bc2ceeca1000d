"""Plain PyTorch truth of the last linear layer, whose logits `twohot.kernels.two_hot.reference` classifies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits hidden @ weight^T + bias: [..., N] for one head (weight [N, E]), [C, ..., N] for C heads ([C, N, E])."""
    if weight.dim() == 2:
        return functional.linear(hidden, weight, bias)
    logits = torch.bmm(hidden.reshape(hidden.shape[0], -1, hidden.shape[-1]), weight.transpose(1, 2))
    if bias is not None:
        logits = logits + bias.unsqueeze(1)
    return logits.reshape(*hidden.shape[:-1], weight.shape[1])
