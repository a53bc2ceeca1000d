"""Several learners that take the same update: sums over the ranks of a process group."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn

from twohot.tensors import SharedStatistics, sum_over_ranks


class DataParallel:
    """The ranks of one update, each with its own rows of the batch, the same parameters and the same statistics.

    Each rank divides the sum of its losses by the steps of all, so that the sum of gradients over ranks is that of the
    whole batch: a mean over steps, not a mean of means.

    Args:
        process_group: of `torch.distributed`, gloo on CPUs and NCCL on GPUs; all its ranks make the same calls.
    """

    def __init__(self, process_group: distributed.ProcessGroup) -> None:
        self.process_group = process_group
        self.rank, self.size = distributed.get_rank(process_group), distributed.get_world_size(process_group)

    def attach(self, module: nn.Module) -> None:
        """Take all parameters and buffers from the first rank, and share all `SharedStatistics` from now on."""
        source = distributed.get_global_rank(self.process_group, 0)
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, source, group=self.process_group)
        for part in module.modules():
            if isinstance(part, SharedStatistics):
                part.process_group = self.process_group

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks of a tensor, a new one."""
        return sum_over_ranks(x.clone(), self.process_group)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], flag: Tensor) -> bool:
        """Sum gradients over ranks in place, in one message; returns whether `flag` (a bool scalar) is True on all.

        A parameter without a gradient on every rank stays without one; elsewhere, no gradient counts as 0.
        """
        like = parameters[0]
        given = [parameter.grad is not None for parameter in parameters]
        flags = torch.tensor([*given, False], dtype=like.dtype, device=like.device)
        flags[-1] = ~flag
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        message = torch.cat([*flat, flags])
        sum_over_ranks(message, self.process_group)
        sizes = [parameter.numel() for parameter in parameters]
        *summed, flags = message.split([*sizes, len(flags)])
        *known, denied = (flags > 0).tolist()
        for parameter, gradient, is_known in zip(parameters, summed, known, strict=True):
            if is_known:
                parameter.grad = gradient.view_as(parameter)
        return not denied

    def differing(self, module: nn.Module) -> list[str]:
        """Names of the parameters and buffers that are not the same on all ranks, bit for bit."""
        state = module.state_dict()
        sums = torch.tensor([_digest(tensor) for tensor in state.values()], device=next(iter(state.values())).device)
        least, most = sums.clone(), sums.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN, self.process_group)
        distributed.all_reduce(most, distributed.ReduceOp.MAX, self.process_group)
        return [name for name, same in zip(state, (least == most).tolist(), strict=True) if not same]


def _digest(tensor: Tensor) -> int:
    return zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
