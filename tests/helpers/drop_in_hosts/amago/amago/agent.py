"""Stand-in for this module of AMAGO: the critic's part of MultiTaskAgent."""

from __future__ import annotations

from typing import Any

import gin
import torch
import torch.nn.functional as F
from amago.nets import actor_critic
from torch import Tensor


@gin.configurable
class MultiTaskAgent:
    """A stand-in for the critic's part of amago.agent.MultiTaskAgent."""

    def __init__(self, critic_type: type = actor_critic.NCriticsTwoHot, **arguments: Any) -> None:
        self.critics, self.target_critics = critic_type(**arguments), critic_type(**arguments)

    def critic_loss(self, s: Tensor, a: Tensor, a_prime: Tensor, reward: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The masked loss, the losses [B, L - 1, C, G, 1], and the values of the actions taken.

        s [B, L, D]; a [B, L, G, A]; a_prime [K, B, L, G, A]; reward [B, L - 1, 1], multiplied; mask [B, L - 1, 1] bool.
        """
        (B, L, _), (G, C, N) = s.shape, (a.shape[2], len(self.critics), self.critics.num_bins)
        with torch.no_grad():
            following = self.target_critics(s[:, 1:], a_prime[:, :, 1:])
            assert following.probs.shape == (len(a_prime), B, L - 1, C, G, N)
            values = self.target_critics.bin_dist_to_raw_vals(following).mean(0).mean(2, keepdim=True)
            target = reward[:, :, None, None] + self.critics.gammas[:, None] * values
            assert target.shape == (B, L - 1, 1, G, 1)
            labels = self.target_critics.raw_vals_to_labels(target)
            # These calls are what einops makes of repeat "b l 1 g n -> b l C g n" and of rearrange to rows.
            labels = torch.unsqueeze(labels.reshape([B, L - 1, G, N]), 2).expand([-1, -1, C, -1, -1])
            assert labels.shape == (B, L - 1, C, G, N)
        prediction = self.critics(s, a.unsqueeze(0), log_dict=None)
        assert prediction.probs.shape == (1, B, L, C, G, N)
        rows = prediction.logits[0, :, :-1].reshape(-1, N)
        losses = F.cross_entropy(rows, labels.reshape([len(rows), N]), reduction="none")
        losses = losses.reshape(B, L - 1, C, G, 1)
        counted = mask[:, :, None, None].expand(losses.shape).to(losses.dtype)
        return (losses * counted).sum() / (counted.sum() + 1e-5), losses, self.critics.bin_dist_to_raw_vals(prediction)
