"""What a type checker makes of the public losses; `make lint` checks it, nothing runs it."""

from typing import TypeAlias

from torch import Tensor
from typing_extensions import assert_type

from twohot.losses import (
    ValueBins,
    hl_gauss_cross_entropy,
    linear_hl_gauss_cross_entropy,
    linear_two_hot_cross_entropy,
    two_hot_cross_entropy,
)

Both: TypeAlias = tuple[Tensor, Tensor]


def losses(logits: Tensor, hidden: Tensor, weight: Tensor, target: Tensor, bins: ValueBins) -> None:
    two_hot_cross_entropy(logits, target, bins).backward()
    assert_type(hl_gauss_cross_entropy(logits, target, bins, reduction="none"), Tensor)
    assert_type(linear_two_hot_cross_entropy(hidden, weight, None, target, bins), Tensor)
    assert_type(linear_hl_gauss_cross_entropy(hidden, weight, None, target, bins), Tensor)


def losses_and_readouts(logits: Tensor, hidden: Tensor, weight: Tensor, target: Tensor, bins: ValueBins) -> None:
    assert_type(two_hot_cross_entropy(logits, target, bins, return_readout=True), Both)
    assert_type(hl_gauss_cross_entropy(logits, target, bins, return_readout=True), Both)
    assert_type(
        linear_two_hot_cross_entropy(hidden, weight, None, target, bins, return_readout=True), tuple[Tensor, Tensor]
    )
    assert_type(
        linear_hl_gauss_cross_entropy(hidden, weight, None, target, bins, return_readout=True), tuple[Tensor, Tensor]
    )


def either(logits: Tensor, target: Tensor, bins: ValueBins, asked: bool) -> Tensor | tuple[Tensor, Tensor]:
    return two_hot_cross_entropy(logits, target, bins, return_readout=asked)
