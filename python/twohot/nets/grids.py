"""Small grids of integers, such as the maps of MiniGrid: what is in each cell, then convolutions or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

VALUES = 256
"""Different values of a cell's channel; others count as the nearest."""


class GridEncoder(nn.Module):
    """The sum of one learned row for each channel's value, two 3 x 3 convolutions that keep the size, one linear layer.

    The rows are what a 1 x 1 convolution makes of one-hot channels. Without convolutions the linear layer sees all
    cells' rows: a tenth of the work, for views of an agent in which a few cells say it all.

    Args:
        shape: H, W, C. outputs: of the linear layer. width: of the rows. channels: of the convolutions; 0: none.
    """

    first: Tensor

    def __init__(self, shape: Sequence[int], outputs: int, width: int = 16, channels: int = 32) -> None:
        super().__init__()
        height, columns, parts = shape
        self.shape = tuple(shape)
        self.table = nn.Parameter(torch.randn(parts * VALUES, width) / parts**0.5)
        self.register_buffer("first", VALUES * torch.arange(parts), persistent=False)
        self.network = nn.Sequential()
        if channels:
            self.network.extend(
                (
                    nn.Conv2d(width, channels, 3, padding=1),
                    nn.LeakyReLU(inplace=True),
                    nn.Conv2d(channels, channels, 3, padding=1),
                    nn.LeakyReLU(inplace=True),
                )
            )
        self.project = nn.Linear((channels or width) * height * columns, outputs)

    def forward(self, grids: Tensor) -> Tensor:
        """grids [M, H, W, C] integers to [M, outputs]."""
        return self.project(self.features(grids))

    def features(self, grids: Tensor) -> Tensor:
        """What the linear layer takes of grids [M, H, W, C] integers."""
        rows = (grids.long().clamp(0, VALUES - 1) + self.first).flatten(0, 2)
        cells = functional.embedding_bag(rows, self.table, mode="sum").view(*grids.shape[:3], self.table.shape[1])
        return self.network(cells.permute(0, 3, 1, 2)).flatten(1)
