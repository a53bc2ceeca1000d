"""A policy on its way to actors: frozen once by the learner, and read where the object store has it by each of them."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn

from twohot.nets.frozen import FrozenPolicy, Networks, freeze
from twohot.nets.interfaces import ActorNetwork, TimestepNetwork, TrajectoryNetwork
from twohot.nets.packed import Weights


class PolicyNetworks(nn.Module):
    """The networks of an agent that act, which are its own."""

    timestep_encoder: TimestepNetwork
    trajectory_encoder: TrajectoryNetwork
    actor: ActorNetwork
    discounts: Tensor

    def __init__(self, agent: Networks) -> None:
        super().__init__()
        self.timestep_encoder, self.trajectory_encoder = agent.timestep_encoder, agent.trajectory_encoder
        self.actor = agent.actor
        self.register_buffer("discounts", agent.discounts)

    def on_cpu(self) -> PolicyNetworks:
        """A copy on the CPU, which learns nothing."""
        return copy.deepcopy(self).cpu().requires_grad_(False)

    @torch.no_grad()
    def copy_from(self, agent: Networks) -> None:
        """Take over the weights of another agent of the same configuration."""
        for mine, its in zip(self.state_dict().values(), PolicyNetworks(agent).state_dict().values(), strict=True):
            mine.copy_(its)

    def frozen(self) -> Message:
        """What acts as these networks do now, to be sent."""
        return pack(freeze(self))


class Message(NamedTuple):
    """A frozen policy; its tensors' bytes are arrays, which the object store gives without a copy."""

    pickled: bytes
    tensors: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        """That are sent."""
        return len(self.pickled) + sum(each.nbytes for each in self.tensors)


class _Pickler(cloudpickle.Pickler):
    """Packed weights, which nothing writes to, stay where they are sent to; other tensors are copied from there."""

    _packed: frozenset[int] = frozenset()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Weights):
            self._packed |= set(map(id, obj.tensors))
        if isinstance(obj, Tensor):
            data = obj.detach().contiguous()
            array = data.view(-1).view(torch.uint8).numpy()
            copied = id(obj) not in self._packed
            return _tensor, (array, data.dtype, data.shape, isinstance(obj, nn.Parameter), copied)
        return super().reducer_override(obj)


def _tensor(array: np.ndarray, dtype: torch.dtype, shape: torch.Size, is_parameter: bool, copied: bool) -> Tensor:
    if copied:
        array = array.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor are packed weights written to
        tensor = torch.from_numpy(array).view(dtype).view(shape)
    return nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor


def pack(policy: FrozenPolicy) -> Message:
    """A policy on the CPU as a message."""
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(policy)
        return Message(file.getvalue(), [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers])


def unpack(message: Message) -> FrozenPolicy:
    """The policy of a message, which reads its packed weights in the message's arrays."""
    return pickle.loads(message.pickled, buffers=message.tensors)
