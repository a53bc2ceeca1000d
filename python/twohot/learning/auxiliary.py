"""Losses beside those of actor and critic: those that networks add, and the prediction of the next step."""

from __future__ import annotations

from torch import Tensor

from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig
from twohot.losses import two_hot_cross_entropy
from twohot.replay import Batch
from twohot.rl.advantages import masked_mean


def network_losses(found: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Means over the real steps of losses that networks gave.

    Args:
        found: each [B, L, ...] or [B, L + 1, ...], by "<part of the agent>/<loss>"; what is after the last step of a
            window does not count.
        mask: [B, L] bool, True where a step is real.

    Raises:
        ValueError: for a loss of another shape.
    """
    (rows, steps), means = mask.shape, {}
    for name, loss in found.items():
        if loss.shape[:1] != (rows,) or loss.dim() < 2 or loss.shape[1] - steps not in (0, 1):
            raise ValueError(f"loss {name!r}: expected one for each step, [{rows}, {steps}], got {list(loss.shape)}")
        means[name] = masked_mean(loss[:, :steps], mask)
    return means


def prediction_losses(agent: AgentNetworks, h_t: Tensor, batch: Batch, config: ObjectiveConfig) -> dict[str, Tensor]:
    """How well h_t and a_t predict o_{t+1} and r_t, means over the real steps; {} where the agent does not predict.

    The squared error of normalised vectors, a mean over their entries, and the cross-entropy of the multiplied reward's
    two-hot label over `agent.bins`.

    Args:
        h_t: [B x L, E] of each step, whose gradient reaches memory and encoder.
    """
    predictor = agent.predictor
    if predictor is None:
        return {}
    mask = batch.mask
    observation, reward = predictor(h_t.unflatten(0, mask.shape), batch.action)
    losses = {
        "prediction/reward": two_hot_cross_entropy(
            reward, config.reward_multiplier * batch.reward, agent.config.bins, mask=mask
        )
    }
    if predictor.size:
        target = predictor.targets(batch.observation)[:, 1:]
        losses["prediction/observation"] = masked_mean((observation.to(target.dtype) - target).square(), mask)
    return losses
