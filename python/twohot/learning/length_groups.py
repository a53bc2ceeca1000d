"""Windows of similar length together, so that little of what is computed is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from twohot.replay import Batch

GROUP_STEPS = 400
"""What a group costs beside its steps, in steps of a small agent: a forward and a backward pass of next to nothing."""
MULTIPLE = 8
"""Groups are as long as their longest window, rounded up to one of few lengths, for whose sizes memory is kept."""


def by_length(batch: Batch, most: int) -> list[Batch]:
    """The windows of a batch in groups of similar length, without the padding behind the longest of each.

    Args:
        batch: of torch tensors on the CPU. most: windows of a group, at most.
    """
    steps = batch.mask.shape[1]
    last = (batch.mask * torch.arange(1, steps + 1)).amax(1)
    lengths = (-(-last // MULTIPLE) * MULTIPLE).clamp(MULTIPLE, max(steps, MULTIPLE)).clamp(max=steps).tolist()
    groups = length_groups(lengths, most)
    if len(groups) == 1 and lengths[groups[0][0]] == steps:
        return [batch]
    return [batch.windows(torch.tensor(group), lengths[group[0]]) for group in groups]


def length_groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Windows in groups, longest first, for which sum(windows x longest + GROUP_STEPS) is least.

    Args:
        lengths: of the windows. most: windows of a group, at most.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    longest = np.asarray(lengths)[order]  # of a group, if it begins there
    cost, begins = np.zeros(len(order) + 1), np.zeros(len(order), np.int64)  # of the first windows; their last group
    for end in range(1, len(order) + 1):
        begin = np.arange(max(0, end - most), end)
        costs = cost[begin] + (end - begin) * longest[begin] + GROUP_STEPS
        best = int(costs.argmin())
        cost[end], begins[end - 1] = costs[best], begin[best]
    groups, end = [], len(order)
    while end:
        begin = int(begins[end - 1])
        groups.append(order[begin:end].tolist())
        end = begin
    return groups[::-1]
