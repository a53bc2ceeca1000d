"""One gradient step."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, distributed, nn

from twohot._moved import renamed_method
from twohot.agent import AgentNetworks, MixedNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.errors import TwohotError
from twohot.kernels.threads import one_torch_thread
from twohot.learning import Losses, check_objective, compute_losses
from twohot.learning.data_parallel import DataParallel
from twohot.learning.length_groups import by_length
from twohot.learning.mixed_batch import MixedBatch
from twohot.learning.objective import encoder_inputs
from twohot.replay import Batch
from twohot.tensors import require_alike

BUILT_IN = ("transformer", "gru", "feedforward", "set", "identity")
"""Trajectory encoders whose sizes the configuration names."""


class NonFiniteLossError(TwohotError, FloatingPointError):
    """A loss or gradient is NaN or infinite; the parameters are as they were before the step."""


class LearnerState(TypedDict):
    """How far a `Learner` is, beside the agent's own state."""

    updates: int
    moments: dict[str, Tensor]
    """Of the optimiser, and its step counts, by "<index of the parameter>.<name>"."""


class Part(NamedTuple):
    """Windows whose losses are computed together, and the networks that they are windows of."""

    agent: AgentNetworks
    batch: Batch


class Computed(NamedTuple):
    """A part, and its losses before the step."""

    part: Part
    losses: Losses


class Learner:
    """AdamW on the agent's losses: gradient clipping, linear warm-up and decay, moving-average targets.

    Args:
        agent: trained in place; a mixed one from batches of its domains. objective, optimizer: settings.
        process_group: ranks that share each update, every one with its own rows of the batch; gradients and statistics
            are those of the whole. All make the same calls, with the first rank's agent. None for this process alone.

    Raises:
        ConfigurationError: when the objective does not fit the agent's actions.
    """

    def __init__(
        self,
        agent: AgentNetworks | MixedNetworks,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        process_group: distributed.ProcessGroup | None = None,
    ) -> None:
        for member in agent.each().values() if isinstance(agent, MixedNetworks) else [agent]:
            check_objective(member, objective)
        self.ranks = None if process_group is None else DataParallel(process_group)
        if self.ranks is not None:
            self.ranks.attach(agent)
        self.agent, self.objective, self.config = agent, objective, optimizer
        self.parameters = agent.trainable_parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=optimizer.learning_rate, weight_decay=optimizer.weight_decay, fused=True
        )
        self._losses = torch.compile(compute_losses, dynamic=False) if optimizer.compile else compute_losses
        self._parts = list(_parts(agent))
        self.updates = 0
        """Gradient steps taken."""

    def state_dict(self) -> LearnerState:
        """What the next update depends on beside the agent."""
        state = self.optimizer.state_dict()["state"]
        moments = {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}
        return {"updates": self.updates, "moments": moments}

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from what `state_dict` returned. Raises ValueError where it does not fit the parameters."""
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state["moments"].items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        for index, entry in moments.items():
            if not 0 <= index < len(self.parameters):
                raise ValueError(f"parameter {index}: there are {len(self.parameters)}")
            moment = self.parameters[index].shape, self.parameters[index].dtype
            require_alike(entry, {"step": (torch.Size(), torch.float32), "exp_avg": moment, "exp_avg_sq": moment})
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.updates = state["updates"]

    def learning_rate(self) -> float:
        """That of the next update."""
        config = self.config
        rate = config.learning_rate
        risen = self.updates + (0 if config.warmup_from_zero else 1)
        if risen < config.warmup_updates:
            rate *= risen / config.warmup_updates
        if config.decay_updates:
            rate *= 1 - (1 - config.decay_to) * min(1.0, self.updates / config.decay_updates)
        return rate

    def microbatches(self, batch: Batch) -> list[Batch]:
        """The parts of a batch, of equal size, whose gradients are added up; `accumulation_steps` is their number."""
        return _rows_at_once(batch, len(batch.mask) // self.config.accumulation_steps)

    pieces = renamed_method("pieces", "microbatches")

    def step(self, batch: Batch | MixedBatch, *, ungrouped: bool = False) -> tuple[Losses, Tensor]:
        """One update from a batch of torch tensors on the agent's device.

        Args:
            batch: windows. ungrouped: leave `group_by_length` aside, so that the losses which are returned are those
                of the last of the batch's `microbatches`.

        Returns:
            The losses of the last part of the batch that was computed, before the step, and the global gradient norm
            before clipping (a scalar tensor).

        Raises:
            NonFiniteLossError: when the gradient norm or a target is not finite; nothing but the statistics of the
                observations has changed, and the agent is in eval mode.
        """
        computed, norm = self._step_by(batch, ungrouped=ungrouped, keep=False)
        return computed[-1].losses, norm

    def step_with_parts(self, batch: Batch | MixedBatch) -> tuple[list[Computed], Tensor]:
        """As `step`, ungrouped, with the losses of all parts."""
        return self._step_by(batch, ungrouped=True, keep=True)

    def _wholes(self, batch: Batch | MixedBatch) -> list[Part]:
        """A batch by the networks that its windows belong to."""
        if isinstance(batch, MixedBatch):
            assert isinstance(self.agent, MixedNetworks)
            return [Part(self.agent[name], each) for name, each in batch.parts.items()]
        assert isinstance(self.agent, AgentNetworks)
        return [Part(self.agent, batch)]

    def _by_length(self, batch: Batch, *, ungrouped: bool) -> bool:
        """Whether groups by length are made. A GPU would be waited for, and each length compiled anew."""
        return not (ungrouped or self.config.compile) and self.config.group_by_length and batch.mask.is_cpu

    def _domain(self, member: AgentNetworks) -> str:
        """A member's name for an error; nothing where there are no others."""
        if not isinstance(self.agent, MixedNetworks):
            return ""
        return next(f" in {name}" for name, each in self.agent.each().items() if each is member)

    def _cut(self, batch: Batch, most: int, *, ungrouped: bool) -> list[Batch]:
        """The parts of a batch whose gradients are added up: microbatches, or groups by length if those cost less."""
        return by_length(batch, most) if self._by_length(batch, ungrouped=ungrouped) else _rows_at_once(batch, most)

    def _numbers(self, batches: Sequence[Batch]) -> int:
        """Of the largest tensor that torch's operations work on; many where that is not known."""
        config = self.agent.config
        own = (config.timestep_encoder, config.actor) != ("default", "default") or config.memory not in BUILT_IN
        if own or self.config.compile or not batches[0].mask.is_cpu:
            return sys.maxsize
        rows = [batch.time.numel() for batch in batches]
        of_each = max(rows) * max(config.encoder_hidden, config.critics * config.head_hidden)
        beside = config.feed_forward if config.memory in ("feedforward", "set") else 0
        of_memory = sum(rows) * max(config.width, beside)  # through which all go together
        return max(of_each, of_memory, *(seen.numel() for batch in batches for seen in batch.observation.values()))

    def _set_training(self, mode: bool) -> None:
        """As the agent's `train(mode)`, which takes a hundredth of a small update, without looking for its parts."""
        for part in self._parts:
            if type(part).train is nn.Module.train:
                part.__dict__["training"] = mode
            else:
                part.train(mode)

    def _step_by(self, batch: Batch | MixedBatch, *, ungrouped: bool, keep: bool) -> tuple[list[Computed], Tensor]:
        wholes = self._wholes(batch)
        with one_torch_thread(self._numbers([whole.batch for whole in wholes])):
            most = sum(len(whole.batch.mask) for whole in wholes) // self.config.accumulation_steps
            groups = self._groups(wholes, most, ungrouped=ungrouped)
            return self._step(wholes, groups, keep=keep)

    def _groups(self, wholes: list[Part], most: int, *, ungrouped: bool) -> list[list[Part]]:
        """Parts of batches in groups whose losses are computed at once, `most` windows of different members each."""
        cut = [Part(agent, part) for agent, whole in wholes for part in self._cut(whole, most, ungrouped=ungrouped)]
        if self._by_length(wholes[0].batch, ungrouped=ungrouped) and any(
            part.batch is not whole.batch for part, whole in zip(cut, wholes, strict=False)
        ):
            return [[part] for part in cut]  # of many lengths
        groups: list[list[Part]] = []
        for part in cut:
            for group in groups:
                rows = sum(len(each.batch.mask) for each in (*group, part))
                if rows <= most and all(each.agent is not part.agent for each in group):
                    group.append(part)
                    break
            else:
                groups.append([part])
        return groups

    def _compute(self, group: list[Part]) -> list[Losses]:
        """The losses of each part; the memory, which all share, goes through all steps at once."""
        if len(group) == 1:
            return [self._losses(*group[0], self.objective)]
        assert isinstance(self.agent, MixedNetworks)
        encoded = self.agent.encode_together([(agent, encoder_inputs(batch)) for agent, batch in group])
        return [compute_losses(*part, self.objective, each) for part, each in zip(group, encoded, strict=True)]

    def _step(self, wholes: list[Part], groups: list[list[Part]], *, keep: bool) -> tuple[list[Computed], Tensor]:
        agent, computed = self.agent, []
        parts = [part for group in groups for part in group]
        said: list[dict[str, Tensor]] = []
        for member, batch in wholes:
            real = torch.cat((torch.ones_like(batch.mask[:, :1]), batch.mask), dim=1)
            member.update_statistics(batch.observation, batch.previous_reward, real)
        self.optimizer.zero_grad(set_to_none=True)  # before the activations need the memory
        targets, steps = [], reduce(operator.add, (whole.batch.mask.sum() for whole in wholes))
        of_all = steps if self.ranks is None else self.ranks.sum(steps)
        use_bfloat16 = self.config.precision == "bfloat16"
        self._set_training(True)
        try:
            for group in groups:
                total = None
                with torch.autocast(steps.device.type, torch.bfloat16, enabled=use_bfloat16):
                    found = self._compute(group)
                for part, losses in zip(group, found, strict=True):
                    mine = losses.total
                    if len(parts) > 1 or self.ranks is not None:  # a mean over the steps of all
                        mine = mine * (part.batch.mask.sum().to(mine.dtype) / of_all.clamp(min=1))
                    total = mine if total is None else total + mine
                    targets.append(losses.target)
                    said.append(_scalars(losses))
                    computed = [*(computed if keep else ()), Computed(part, losses)]
                assert total is not None
                total.backward()
        finally:
            self._set_training(False)
        target, mask, finite = None, None, steps >= 0
        if losses.target is not None:  # an infinite one counts as the last class, whose loss is finite
            target, mask = (
                torch.cat([each.flatten(0, 1) for each in targets]),
                torch.cat([part.batch.mask.flatten() for part in parts]),
            )
            finite = (target.isfinite() | ~mask.unsqueeze(-1)).all()
        if self.ranks is not None:
            finite = self.ranks.sum_gradients(self.parameters, finite)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        if not norm.isfinite() & finite:  # a GPU is waited for here, and nowhere else
            what = "a target is infinite" if norm.isfinite() else f"the gradient norm is {norm.item()}"
            bad = [
                not all(loss.isfinite() for loss in losses.values())
                or (mine is not None and not mine[part.batch.mask].isfinite().all())
                for part, losses, mine in zip(parts, said, targets, strict=True)
            ]
            first = bad.index(True) if any(bad) else -1
            domain = self._domain(parts[first].agent) if any(bad) else ""
            values = ", ".join(f"{name} loss {loss.item():.4g}" for name, loss in said[first].items())
            raise NonFiniteLossError(
                f"update {self.updates}: {what}{domain} ({values}); lower --optimizer.learning-rate or the reward "
                "multipliers"
            )
        if self.objective.target_update == "before_step":
            agent.update_targets(self.objective.target_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        agent.iterate_spectral_norms()
        if self.objective.target_update == "after_step":
            agent.update_targets(self.objective.target_rate)
        if target is not None and mask is not None:
            agent.values.update(target, mask)
        self.updates += 1
        return computed, norm


def _scalars(losses: Losses) -> dict[str, Tensor]:
    """What an error says of losses, by name."""
    critic = {} if losses.critic is None else {"critic": losses.critic}
    return {name: loss.detach() for name, loss in {"actor": losses.actor, **critic, **losses.auxiliary}.items()}


def _rows_at_once(batch: Batch, most: int) -> list[Batch]:
    """A batch in parts of so many windows at most."""
    rows = len(batch.mask)
    return [batch] if most >= rows else [batch.rows(first, most) for first in range(0, rows, most)]


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all below it, but for what is below one that has a `train` of its own."""
    yield module
    if type(module).train is nn.Module.train:
        for child in module.children():
            yield from _parts(child)
