"""Plain PyTorch truth of the two-hot operations: runs in any floating dtype on any device, float64 included.

Sources: two-hot labels and symlog, Hafner et al. 2023 (arXiv 2301.04104); their use in AMAGO-2, Grigsby et
al. 2024 (arXiv 2411.11188); HL-Gauss labels, Farebrother et al. 2024 (arXiv 2403.03950).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|)."""
    above, below = _halves(x)
    return torch.log1p(above) - torch.log1p(below)


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    above, below = _halves(x)
    return torch.expm1(above) - torch.expm1(below)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """(max(x, 0), max(-x, 0)) with a derivative of 1 at 0, where sign(x) and |x| would give 0."""
    positive = x >= 0
    return torch.where(positive, x, 0), torch.where(positive, 0, -x)


def signed_sqrt(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018, as in MuZero)."""
    above, below = _halves(x)
    # sqrt(1 + a) - 1 without cancellation; infinity stays.
    root = above / (torch.sqrt(above + 1) + 1) - below / (torch.sqrt(below + 1) + 1)
    return torch.where(torch.isinf(x), x, root + epsilon * x)


def inverse_signed_sqrt(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """The inverse of `signed_sqrt`: sign(x) (((sqrt(1 + 4 e (|x| + 1 + e)) - 1) / (2 e))^2 - 1)."""

    def positive(a: Tensor) -> Tensor:
        # With sqrt(|y| + 1) = 1 + d nothing cancels: |y| = d (d + 2).
        root = torch.sqrt(4 * epsilon * a + (1 + 4 * epsilon * (1 + epsilon)))
        d = 2 * a / (root + (1 + 2 * epsilon))
        return d * (d + 2)

    above, below = _halves(x)
    return positive(above) - positive(below)


def identity(x: Tensor) -> Tensor:
    """x, the transform of linear bins."""
    return x


TRANSFORMS = {
    "symlog": (symlog, symexp),
    "signed_sqrt": (signed_sqrt, inverse_signed_sqrt),
    "linear": (identity, identity),
}
Labels = Literal["two_hot", "two_hot_raw", "hl_gauss"]
"""How a target becomes a distribution over bins: it shares its mass between its two bins, by their centers in
transformed space or ("raw") by their values; or it is a Gaussian of `sigma` bin widths in transformed space."""
LABELS: tuple[Labels, ...] = get_args(Labels)
Support: TypeAlias = tuple[float, float, str, str]
"""(low, high, transform, readout_kind), low and high in transformed space."""


def bin_centers(low: float, high: float, count: int, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """[N] evenly spaced centers in transformed space, built symmetrically: for low = -high, b[i] = -b[N - 1 - i]."""
    step = torch.arange(count, dtype=torch.float64, device="cpu")
    up = low + step * ((high - low) / (count - 1))
    down = high - step.flip(0) * ((high - low) / (count - 1))
    return ((up + down) / 2).to(dtype=dtype, device=device)


def labels_of(target: Tensor, low: float, high: float, count: int, transform: str, labels: str, sigma: float) -> Tensor:
    """Labels [..., N] of the kind `labels`; `sigma` is that of HL-Gauss labels."""
    if labels == "hl_gauss":
        return hl_gauss(target, low, high, count, transform, sigma)
    return two_hot(target, low, high, count, transform, labels)


def two_hot(target: Tensor, low: float, high: float, count: int, transform: str, labels: str = "two_hot") -> Tensor:
    """Labels [..., N]: x = f(y) clipped to [low, high] shares its mass between its two bins by nearness; for
    "two_hot_raw", y between the values f^-1(b) of its two bins.

    Written as relu(1 - |(x - low) / width - k|), which is exact at the centers and at both ends. Positions are computed
    in float32 at least: bfloat16 cannot tell bin 257 from 258.
    """
    upcast = target.to(torch.promote_types(target.dtype, torch.float32))
    positions = (raw_position if labels == "two_hot_raw" else position)(upcast, low, high, count, transform)
    index = torch.arange(count, dtype=upcast.dtype, device=target.device)
    return torch.relu(1 - torch.abs(positions.unsqueeze(-1) - index)).to(target.dtype)


def hl_gauss(target: Tensor, low: float, high: float, count: int, transform: str, sigma: float) -> Tensor:
    """Labels [..., N]: the mass that a Gaussian around x = f(y) has in each bin, of what it has in all of them.

    Bins reach half a width to each side of their centers; `sigma` is in bin widths (Imani and White 2018, arXiv
    1806.04613; Farebrother et al. 2024, arXiv 2403.03950).
    """
    upcast = target.to(torch.promote_types(target.dtype, torch.float32))
    positions = position(upcast, low, high, count, transform)
    edge = torch.arange(count + 1, dtype=upcast.dtype, device=target.device) - 0.5
    cdf = torch.erf((edge - positions.unsqueeze(-1)) / (sigma * math.sqrt(2)))
    label = (cdf[..., 1:] - cdf[..., :-1]) / (cdf[..., -1:] - cdf[..., :1])
    return label.to(target.dtype)


def position(target: Tensor, low: float, high: float, count: int, transform: str) -> Tensor:
    """[...] position of each target among the bins, in 0 .. N - 1, in the dtype of `target`."""
    forward, _ = TRANSFORMS[transform]
    return ((forward(target).clamp(low, high) - low) * ((count - 1) / (high - low))).clamp(max=count - 1)


def raw_position(target: Tensor, low: float, high: float, count: int, transform: str) -> Tensor:
    """[...] position of each target among the values of the bins, in 0 .. N - 1, in the dtype of `target`."""
    values = bin_values(low, high, count, transform, dtype=target.dtype, device=target.device)
    above = torch.searchsorted(values, target.detach().contiguous()).clamp(1, count - 1)
    width = (values[above] - values[above - 1]).clamp(min=torch.finfo(target.dtype).tiny)
    return above - 1 + ((target - values[above - 1]) / width).clamp(0, 1)


def bin_values(
    low: float, high: float, count: int, transform: str, *, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """[N] f^-1 of the centers, ascending."""
    _, inverse = TRANSFORMS[transform]
    values = inverse(bin_centers(low, high, count, dtype=torch.float64, device="cpu"))
    return values.to(dtype=dtype, device=device)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """- sum_k labels_k log softmax(logits)_k over the last dimension; a label of 0 keeps an infinite logit out."""
    product = labels * torch.log_softmax(logits, dim=-1)
    return -torch.where(labels == 0, 0, product).sum(-1)


def bin_expectation(logits: Tensor, low: float, high: float, transform: str, readout_kind: str) -> Tensor:
    """The scalar that bins stand for: f^-1(sum p b) ("transformed") or sum p f^-1(b) ("raw").

    On a support that is symmetric about 0, mirrored bins are subtracted before they are summed, so that a symmetric
    distribution decodes to exactly 0.
    """
    _, inverse = TRANSFORMS[transform]
    probability = torch.softmax(logits, dim=-1)
    count = logits.shape[-1]
    values = bin_centers(low, high, count, dtype=logits.dtype, device=logits.device)
    if readout_kind == "raw":
        values = inverse(values)
    if low == -high:
        half = count // 2
        # No matrix product: autocast would take it to half precision.
        mean = ((probability[..., count - half :] - probability[..., :half].flip(-1)) * values[count - half :]).sum(-1)
    else:
        mean = (probability * values).sum(-1)
    return mean if readout_kind == "raw" else inverse(mean)
