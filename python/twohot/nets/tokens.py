"""Sequences of tokens, such as instructions: a GRU over learned rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.backend import without_autocast
from twohot.tensors import require_device


class TokenEncoder(nn.Module):
    """The state of a GRU after the last token, and one linear layer; a sequence without tokens has the state 0.

    Args:
        vocabulary: different tokens, 0 included, which is padding; larger ones count as the largest.
        outputs: of the linear layer. width: of a token's row. hidden: size of the state.
    """

    def __init__(self, vocabulary: int, outputs: int, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.project = nn.Linear(hidden, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [M, T] integers to [M, outputs]."""
        return self._of_distinct(tokens, self._encode)

    def features(self, tokens: Tensor) -> Tensor:
        """What the linear layer takes of tokens [M, T] integers: states [M, hidden]."""
        return self._of_distinct(tokens, self._states)

    def _of_distinct(self, tokens: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        require_device("TokenEncoder", "tokens", tokens, "weights", self.embedding.weight)
        tokens = tokens.long().clamp(0, self.embedding.num_embeddings - 1)
        if tokens.device.type != "cpu" or torch.compiler.is_compiling():
            return encode(tokens)
        # Instructions last for many steps, and the GRU costs more than finding those that are alike.
        distinct, which = tokens.unique(dim=0, return_inverse=True)
        return functional.embedding(which, encode(distinct))

    def _encode(self, tokens: Tensor) -> Tensor:
        return self.project(self._states(tokens))

    def _states(self, tokens: Tensor) -> Tensor:
        steps = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        length = ((tokens != 0) * steps).amax(1)
        with without_autocast(tokens.device):  # the state is float32, as that of `GRUMemory`
            states, _ = self.gru(self.embedding(tokens))
        # `len` would fix the number of rows in an exported program.
        last = states[torch.arange(tokens.shape[0], device=tokens.device), (length - 1).clamp(min=0)]
        return last * (length > 0).unsqueeze(1)
