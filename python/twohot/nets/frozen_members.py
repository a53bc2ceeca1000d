"""Policies of several domains that share their memory, frozen: they act together, by one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twohot.nets.frozen import ActingState, FrozenPolicy, Networks, freeze, packed_policy, step_together
from twohot.nets.frozen_networks import freeze_network, sample
from twohot.nets.interfaces import Given
from twohot.nets.packed import MAX_ROWS, PackedPolicy
from twohot.spaces import ACTION_MASK

__all__ = ["FrozenPolicies", "freeze_members"]


class MemberState:
    """What is remembered of the environments of one domain: some rows of the state of all."""

    def __init__(self, whole: ActingState, rows: slice) -> None:
        self.whole, self.rows, self.time = whole, rows, whole.time[rows]
        self.time_array = self.time.numpy() if self.time.is_cpu else None

    def reset(self, mask: Tensor) -> None:
        """As `ActingState.reset`, of these rows."""
        if mask.shape != self.time.shape:
            raise ValueError(f"mask: expected [{len(self.time)}], got {list(mask.shape)}")
        of_all = torch.zeros_like(self.whole.time, dtype=torch.bool)
        of_all[self.rows] = mask
        self.whole.reset(of_all)


def freeze_members(networks: Mapping[str, Networks]) -> FrozenPolicies:
    """As `freeze`, of the networks of each domain; a memory that several share is frozen once."""
    memories = {id(each.trajectory_encoder): each.trajectory_encoder for each in networks.values()}
    frozen = {key: freeze_network(memory) for key, memory in memories.items()}
    return FrozenPolicies({name: freeze(each, frozen[id(each.trajectory_encoder)]) for name, each in networks.items()})


class FrozenPolicies:
    """What `freeze_members` gives: a policy for each domain, which is `policies[name]`.

    Where they share a memory that draws nothing at random, that of all environments is one: they act by one step of it,
    and where each network has a packed form, by one native call. A domain's actions are those of its policy alone; but
    where torch steps a memory, the number of rows may change the last bits.

    Args:
        each: at least one, by the name of the domain.
    """

    def __init__(self, each: Mapping[str, FrozenPolicy]) -> None:
        self._each = dict(each)
        memory, *others = [policy.trajectory_encoder for policy in each.values()]
        together = all(other is memory for other in others) and not hasattr(memory, "sample")
        self._memory: Any = memory if together else None
        self._packed = packed_policy(list(each.values())) if together else None

    def __getitem__(self, name: str) -> FrozenPolicy:
        """The policy of a domain."""
        return self._each[name]

    def initial_states(self, environments: Mapping[str, int]) -> dict[str, Any]:
        """Memory for acting in so many fresh trials of each domain; `reset(mask)` of a domain's begins new ones."""
        if self._memory is None:
            return {name: policy.initial_state(environments[name]) for name, policy in self._each.items()}
        whole, states, first = next(iter(self._each.values())).initial_state(sum(environments.values())), {}, 0
        for name in self._each:
            states[name] = MemberState(whole, slice(first, first + environments[name]))
            first += environments[name]
        return states

    def act(
        self, states: Mapping[str, Any], given: Mapping[str, Given], generators: Mapping[str, torch.Generator]
    ) -> dict[str, np.ndarray]:
        """As `FrozenPolicy.act`, an action for each environment of each domain, drawn by the domain's generator."""
        if self._packed is not None and all(
            state.rows.stop - state.rows.start <= MAX_ROWS for state in states.values()
        ):
            return self._by_native_code(self._packed, states, given, generators)
        tensors = {name: each.tensors(self._each[name].device) for name, each in given.items()}
        if self._memory is None:
            actions = {
                name: policy.act(states[name], *tensors[name], generator=generators[name])
                for name, policy in self._each.items()
            }
        else:
            actions = self._by_one_step(states, tensors, generators)
        return {name: action.cpu().numpy() for name, action in actions.items()}

    def _by_native_code(self, packed: PackedPolicy, states, given, generators) -> dict[str, np.ndarray]:
        inputs, outputs, masks = [], [], []
        for name, policy in self._each.items():
            state, asked = states[name], given[name]
            mask = asked.observation.get(ACTION_MASK)
            inputs.append(policy.timestep_encoder.inputs(asked, state.time_array))
            outputs.append(policy.outputs(len(state.time_array), mask is not None, generators[name]))
            masks.append(mask)
        step_together(packed, self._memory, next(iter(states.values())).whole, inputs, outputs)
        actions = {}
        for (name, policy), written, mask in zip(self._each.items(), outputs, masks, strict=True):
            actions[name] = written.action
            if written.action is None:
                legal = None if mask is None else torch.from_numpy(mask)
                actions[name] = policy.chosen(written, legal, generators[name]).numpy()
        return actions

    @torch.no_grad()
    def _by_one_step(self, states, tensors, generators) -> dict[str, Tensor]:
        policies, whole = self._each, next(iter(states.values())).whole
        x = [policy.timestep_encoder(*tensors[name], states[name].time) for name, policy in policies.items()]
        h = self._memory.step(torch.cat(x), whole.time, whole.cache)
        whole.time += 1
        actions = {}
        for (name, policy), part in zip(policies.items(), h.split([len(each) for each in x]), strict=True):
            acting = policy.actor.acting(part, tensors[name][0].get(ACTION_MASK))
            actions[name] = sample(acting, generators[name])
        return actions
