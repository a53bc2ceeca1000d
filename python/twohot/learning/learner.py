"""One gradient step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypedDict

import torch
from torch import Tensor, distributed, nn

from twohot._moved import renamed_method
from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.errors import TwohotError
from twohot.kernels.threads import one_torch_thread
from twohot.learning import Losses, check_objective, compute_losses
from twohot.learning.data_parallel import DataParallel
from twohot.learning.length_groups import by_length
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


class Learner:
    """AdamW on the agent's losses: gradient clipping, linear warm-up and decay, moving-average targets.

    Args:
        agent: trained in place. objective, optimizer: settings.
        process_group: ranks that share each update, every one with its own rows of the batch; gradients and statistics
            are those of the whole. All make the same calls, with the first rank's agent. None for this process alone.

    Raises:
        ConfigurationError: when the objective does not fit the agent's actions.
    """

    def __init__(
        self,
        agent: AgentNetworks,
        objective: ObjectiveConfig,
        optimizer: OptimizerConfig,
        process_group: distributed.ProcessGroup | None = None,
    ) -> None:
        check_objective(agent, objective)
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
        if self.config.accumulation_steps == 1:
            return [batch]
        size = len(batch.mask) // self.config.accumulation_steps
        return [batch.rows(first, size) for first in range(0, len(batch.mask), size)]

    pieces = renamed_method("pieces", "microbatches")

    def step(self, batch: Batch, *, ungrouped: bool = False) -> tuple[Losses, Tensor]:
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
        with one_torch_thread(self._numbers(batch)):
            return self._step(batch, self.microbatches(batch) if ungrouped else self._groups(batch))

    def _groups(self, batch: Batch) -> list[Batch]:
        """The parts of a batch whose gradients are added up: microbatches, or where they cost less, groups by length.

        A GPU would be waited for, and each length compiled anew.
        """
        if not self.config.group_by_length or self.config.compile or not batch.mask.is_cpu:
            return self.microbatches(batch)
        return by_length(batch, len(batch.mask) // self.config.accumulation_steps)

    def _numbers(self, batch: Batch) -> int:
        """Of the largest tensor that torch's operations work on; many where that is not known."""
        config, rows = self.agent.config, batch.time.numel()
        own = (config.timestep_encoder, config.actor) != ("default", "default") or config.memory not in BUILT_IN
        if own or self.config.compile or not batch.mask.is_cpu:
            return sys.maxsize
        hidden = config.width, config.encoder_hidden, config.critics * config.head_hidden
        beside = config.feed_forward if config.memory in ("feedforward", "set") else 0
        return max(rows * max(*hidden, beside), *(seen.numel() for seen in batch.observation.values()))

    def _set_training(self, mode: bool) -> None:
        """As the agent's `train(mode)`, which takes a hundredth of a small update, without looking for its parts."""
        for part in self._parts:
            if type(part).train is nn.Module.train:
                part.__dict__["training"] = mode
            else:
                part.train(mode)

    def _step(self, batch: Batch, parts: list[Batch]) -> tuple[Losses, Tensor]:
        agent = self.agent
        real = torch.cat((torch.ones_like(batch.mask[:, :1]), batch.mask), dim=1)
        agent.update_statistics(batch.observation, batch.previous_reward, real)
        self.optimizer.zero_grad(set_to_none=True)  # before the activations need the memory
        targets, steps = [], batch.mask.sum()
        of_all = steps if self.ranks is None else self.ranks.sum(steps)
        use_bfloat16 = self.config.precision == "bfloat16"
        self._set_training(True)
        try:
            for part in parts:
                with torch.autocast(batch.reward.device.type, torch.bfloat16, enabled=use_bfloat16):
                    losses = self._losses(agent, part, self.objective)
                total = losses.total
                if len(parts) > 1 or self.ranks is not None:  # a mean over the steps of all
                    total = total * (part.mask.sum().to(total.dtype) / of_all.clamp(min=1))
                total.backward()
                targets.append(losses.target)
        finally:
            self._set_training(False)
        target, mask, finite = None, None, steps >= 0
        if losses.target is not None:  # an infinite one counts as the last class, whose loss is finite
            target, mask = (
                torch.cat([each.flatten(0, 1) for each in targets]),
                torch.cat([part.mask.flatten() for part in parts]),
            )
            finite = (target.isfinite() | ~mask.unsqueeze(-1)).all()
        if self.ranks is not None:
            finite = self.ranks.sum_gradients(self.parameters, finite)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        if not norm.isfinite() & finite:  # a GPU is waited for here, and nowhere else
            what = "a target is infinite" if norm.isfinite() else f"the gradient norm is {norm.item()}"
            others = {} if losses.critic is None else {"critic": losses.critic}
            others |= losses.auxiliary
            critic = "".join(f", {name} loss {loss.item():.4g}" for name, loss in others.items())
            raise NonFiniteLossError(
                f"update {self.updates}: {what} (actor loss {losses.actor.item():.4g}{critic}); "
                f"lower --optimizer.learning-rate or the reward multipliers"
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
        return losses, norm


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all below it, but for what is below one that has a `train` of its own."""
    yield module
    if type(module).train is nn.Module.train:
        for child in module.children():
            yield from _parts(child)
