"""Images: convolutional networks, and the random shift that augments what they see in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from twohot.kernels.backend import autocast_dtype
from twohot.kernels.images.op import max_pool, residual_norm
from twohot.spaces import SpaceError


class RandomShift(nn.Module):
    """Images moved by up to `pixels` in both directions, edges repeated (DrQ-v2, Yarats et al. 2021, arXiv 2107.09645).

    out[y, x] = image[clip(y + dy), clip(x + dx)] with dy, dx uniform in -pixels .. pixels. In training only. Whole
    pixels, so images stay uint8. Each step moves by itself, as in the official code, or each sequence as one.

    Args:
        pixels: the furthest move. fraction: of the sequences that move at all. by: "step" or "window".
    """

    def __init__(self, pixels: int, fraction: float = 1.0, by: Literal["step", "window"] = "step") -> None:
        super().__init__()
        self.pixels, self.fraction, self.by = pixels, fraction, by

    def forward(self, images: Tensor) -> Tensor:
        """images [B, ..., H, W, C] of any dtype; returns the same shape, or the images themselves in eval mode."""
        if not self.training or not self.pixels or not self.fraction:
            return images
        leading, (height, width, channels) = images.shape[:-3], images.shape[-3:]
        drawn = leading if self.by == "step" else (leading[0], *[1] * (len(leading) - 1))
        shift = torch.randint(-self.pixels, self.pixels + 1, (*drawn, 2), device=images.device)
        moves = torch.rand((leading[0], *[1] * len(leading)), device=images.device) < self.fraction
        vertical, horizontal = (shift * moves).expand(*leading, 2).reshape(-1, 2, 1).unbind(1)  # [M, 1]
        rows = (torch.arange(height, device=images.device) + vertical).clamp(0, height - 1)  # [M, H]
        # Each row of the result is a part of a row with repeated ends: less than half the time of moving pixels.
        x = images.reshape(-1, height, width, channels)
        ends = (x[:, :, end].unsqueeze(2).expand(-1, -1, self.pixels, -1) for end in (0, -1))
        padded = torch.cat((next(ends), x, next(ends)), dim=2).flatten(2)
        shifted = padded.unfold(2, width * channels, channels)  # [M, H, 2 pixels + 1, W C]
        each = torch.arange(len(x), device=images.device).unsqueeze(1)
        return shifted[each, rows, horizontal + self.pixels].view_as(images)


class ResidualBlock(nn.Module):
    """norm(x + conv(leaky(conv(leaky x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [M, C, H, W] to the same shape."""
        hidden = functional.leaky_relu(self.first(functional.leaky_relu(x)), inplace=True)
        norm = self.norm
        return residual_norm(x, self.second(hidden), norm.num_groups, norm.weight, norm.bias, norm.eps)


class HalvingPool(nn.Module):
    """Maxima of 3 x 3 pixels, every second one in both directions, without padding."""

    def forward(self, x: Tensor) -> Tensor:
        """x [M, C, H, W] to [M, C, (H - 1) // 2, (W - 1) // 2]."""
        return max_pool(x)


def impala(channels: int) -> nn.Sequential:
    """Three times a convolution, a pool that halves, and two residual blocks (Espeholt et al. 2018, arXiv 1802.01561).

    With group norm after each block, and pools without padding, as in the official code.
    """
    modules: list[nn.Module] = []
    for before, after in ((channels, 16), (16, 32), (32, 32)):
        modules += [nn.Conv2d(before, after, 3, padding=1), HalvingPool()]
        modules += [ResidualBlock(after), ResidualBlock(after)]
    return nn.Sequential(*modules, nn.LeakyReLU())


def nature(channels: int) -> nn.Sequential:
    """The network of DQN (Mnih et al. 2015)."""
    return _plain((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))


def drq(channels: int) -> nn.Sequential:
    """The network of DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645)."""
    return _plain((channels, 32, 3, 2), *[(32, 32, 3, 1)] * 3)


def _plain(*layers: tuple[int, int, int, int]) -> nn.Sequential:
    """Convolutions (inputs, outputs, kernel, stride), each followed by a leaky ReLU."""
    return nn.Sequential(
        *(
            module
            for inputs, outputs, kernel, stride in layers
            for module in (nn.Conv2d(inputs, outputs, kernel, stride), nn.LeakyReLU(inplace=True))
        )
    )


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {"impala": impala, "nature": nature, "drq": drq}
"""By the names of `agent.images`: from the number of channels to a network over [M, C, H, W]."""


class ImageEncoder(nn.Module):
    """uint8 images through a convolutional network and one linear layer.

    Args:
        shape: H, W, C. outputs: of the linear layer. network: a name of `NETWORKS`.

    Raises:
        SpaceError: when the image is smaller than the network's kernels.
    """

    def __init__(self, shape: Sequence[int], outputs: int, network: str) -> None:
        super().__init__()
        height, width, channels = shape
        self.shape = tuple(shape)
        self.network = NETWORKS[network](channels)
        try:
            with torch.no_grad():
                features = self.network(torch.zeros(1, channels, height, width)).numel()
        except RuntimeError as error:
            raise SpaceError(
                f"image: expected [height, width, channels] large enough for the {network!r} network, got {shape}; "
                "choose another --agent.images, or name the entry grid... if it is a small grid of integers"
            ) from error
        self.project = nn.Linear(features, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """images [M, H, W, C] uint8 to [M, outputs]."""
        return self.project(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the linear layer takes of images [M, H, W, C] uint8."""
        # All 256 values of (x - 128) / 128 are exact in bfloat16. Permuted, [M, H, W, C] is torch's channels-last form.
        weight = next(self.network.parameters())
        dtype = autocast_dtype(weight.device) or weight.dtype
        pixels = images.to(dtype).sub_(128).div_(128).permute(0, 3, 1, 2)
        return self.network(pixels).flatten(1)
