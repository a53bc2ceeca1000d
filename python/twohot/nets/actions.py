"""Actions as inputs of a linear layer: look-ups where they are choices, a matrix product where they are numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from twohot.spaces import shape_of
from twohot.tensors import require_device

MAX_ENUMERATED = 1024
"""Joint actions of a MultiDiscrete or MultiBinary space that are enumerated at most."""


def enumerate_actions(space: Space) -> Tensor | None:
    """All actions of a space, [S, *shape] int64; None where they are numbers, or more than `MAX_ENUMERATED` tuples."""
    if isinstance(space, spaces.Discrete):
        return torch.arange(int(space.n))
    if isinstance(space, spaces.Box):
        return None
    counts = _counts(space)
    if math.prod(counts) > MAX_ENUMERATED:
        return None
    return torch.from_numpy(np.indices(counts).reshape(len(counts), -1).T.copy())


def soften(chosen: Tensor, others: Tensor, floor: float, ceiling: float) -> Tensor:
    """One-hot vectors [..., rows], clipped to [floor, ceiling] and normalised again, choice by choice.

    Args:
        chosen: [..., n] int64, the row of each choice. others: [rows] floating point, how many more its choice has.
    """
    x = others.new_full((*chosen.shape[:-1], len(others)), floor).scatter_(-1, chosen, ceiling)
    return x / (ceiling + others * floor)


def action_number(space: Space, action: Tensor) -> Tensor:
    """Positions [...] of actions [..., *shape] among those of `enumerate_actions`."""
    if isinstance(space, spaces.Discrete):
        return action.long()
    number = action.new_zeros(action.shape[:-1], dtype=torch.int64)
    for count, choice in zip(_counts(space), action.unbind(-1), strict=True):
        number = number * count + choice
    return number


def _counts(space: Space) -> tuple[int, ...]:
    """The number of each choice of a tuple of them."""
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.tolist())
    return (2,) * math.prod(shape_of(space))


class ActionLinear(nn.Module):
    """W a + 0 for an action a of a space: what a linear layer makes of one-hot, binary or continuous actions.

    A choice among A actions picks a row, so no one-hot vector is built. Weights are drawn uniformly, with the bound
    `bound` for an action that is one choice, and so that what any action contributes has that variance else.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary or a Box [n].
        outputs: of the layer. bound: of the weights at the beginning.
        clip: entries of an action (numbers, bits, one-hot choices) are clipped to +- this, in (0, 1].
    """

    first: Tensor
    others: Tensor

    def __init__(self, space: Space, outputs: int, bound: float, clip: float = 1.0) -> None:
        super().__init__()
        self.space, self.clip = space, clip
        if isinstance(space, spaces.Discrete):
            rows, entries = int(space.n), 1
            self.register_buffer("others", torch.full((rows,), rows - 1), persistent=False)
        elif isinstance(space, spaces.MultiDiscrete):
            rows, entries = int(space.nvec.sum()), len(space.nvec)
            first = torch.as_tensor([0, *space.nvec[:-1].cumsum().tolist()])
            self.register_buffer("first", first, persistent=False)
            self.register_buffer("others", torch.as_tensor((space.nvec - 1).repeat(space.nvec)), persistent=False)
        else:
            rows = entries = shape_of(space)[0]
        self.table = nn.Parameter(torch.empty(rows, outputs).uniform_(-bound, bound) / math.sqrt(entries))

    def forward(self, action: Tensor) -> Tensor:
        """action [..., *shape of the space], or a floating point one as `relaxed` takes it, to [..., outputs]."""
        require_device("ActionLinear", "action", action, "table", self.table)  # torch takes the address of any index
        if action.is_floating_point():
            return self.relaxed(action)
        if isinstance(self.space, spaces.Discrete):
            return nn.functional.embedding(action.long(), self.rows)
        if isinstance(self.space, spaces.MultiDiscrete):
            return nn.functional.embedding(action.long() + self.first, self.rows).sum(-2)
        return self.vector(action) @ self.table

    @property
    def rows(self) -> Tensor:
        """What a choice of each row is mapped to, [rows, outputs]."""
        return self.table if self.clip == 1 else self.table * self.clip

    @property
    def chooses(self) -> bool:
        """Whether an action is one choice, and so picks one row."""
        return isinstance(self.space, spaces.Discrete)

    @property
    def counts(self) -> list[int]:
        """The rows of each choice; none of actions that are numbers or bits."""
        if isinstance(self.space, spaces.Discrete):
            return [int(self.space.n)]
        return self.space.nvec.tolist() if isinstance(self.space, spaces.MultiDiscrete) else []

    def vector(self, action: Tensor) -> Tensor:
        """action as `forward` takes it to the vector [..., rows] that the table is multiplied by."""
        if action.is_floating_point():
            x = action.to(self.table.dtype)
        elif isinstance(self.space, spaces.Discrete):
            x = nn.functional.one_hot(action.long(), len(self.table)).to(self.table.dtype)
        elif isinstance(self.space, spaces.MultiDiscrete):
            position = action.long() + self.first
            x = self.table.new_zeros(*action.shape[:-1], len(self.table)).scatter_(-1, position, 1)
        else:
            x = action.to(self.table.dtype)
        return x if self.clip == 1 else x.clamp(-self.clip, self.clip)

    def relaxed(self, probability: Tensor) -> Tensor:
        """Probabilities of the choices, [..., rows], or a continuous action, to [..., outputs]; differentiable."""
        return self.vector(probability) @ self.table

    def softened(self, action: Tensor, floor: float, ceiling: float) -> Tensor:
        """Choices as vectors [..., rows]: each as one-hot, clipped to [floor, ceiling] and normalised again.

        Other actions, [..., *shape of the space], are returned as they are.
        """
        if isinstance(self.space, spaces.Discrete):
            chosen = action.long().unsqueeze(-1)
        elif isinstance(self.space, spaces.MultiDiscrete):
            chosen = action.long() + self.first
        else:
            return action
        return soften(chosen, self.others.to(self.table.dtype), floor, ceiling)

    def enumerate_actions(self) -> Tensor:
        """W a of every action, [S, outputs], in the order of `enumerate_actions`."""
        if isinstance(self.space, spaces.Discrete):
            return self.rows
        actions = enumerate_actions(self.space)
        assert actions is not None
        return self(actions.to(self.table.device))
