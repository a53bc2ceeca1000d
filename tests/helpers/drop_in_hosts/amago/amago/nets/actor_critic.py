"""Stand-in for this module of AMAGO, whose names and imports it has."""

from __future__ import annotations

from typing import Any

import gin
import torch
from amago.nets.utils import symexp, symlog
from torch import Tensor, nn

import drop_in
import drop_in_formulas


class PlainEnsemble(nn.Module):
    """C two-layer networks: [B, L, D] -> outputs [B, L, C, N], and what the last layer saw."""

    def __init__(self, critics: int, inputs: int, hidden: int, outputs: int, seed: int) -> None:
        super().__init__()
        draw = drop_in.randoms(seed)
        self.first = nn.Parameter(draw(critics, hidden, inputs, scale=0.5))
        self.last = nn.Parameter(draw(critics, outputs, hidden, scale=0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        phi = torch.einsum("chd,bld->blch", self.first, x).tanh()
        return torch.einsum("coh,blch->blco", self.last, phi), phi


def gammas_as_input_seq(gammas: Tensor, batch_size: int, length: int) -> Tensor:
    """[batch_size * G, length, 1]: what the critics see of the discounts."""
    feature = symlog(1 / (1 - gammas).clamp(1e-6, 1))
    return feature.repeat(batch_size).reshape(-1, 1, 1).expand(-1, length, 1)


@gin.configurable
class NCriticsTwoHot(nn.Module):
    """A stand-in with the interface of amago.nets.actor_critic.NCriticsTwoHot."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        gammas: Tensor,
        discrete: bool,
        num_critics: int,
        d_hidden: int = 256,
        min_return: float | None = None,
        max_return: float | None = None,
        output_bins: int = 128,
        use_symlog: bool = True,
        label_type: str = "twohot",
        sigma: float = 0.75,
    ) -> None:
        super().__init__()
        self.gammas, self.num_gammas, self.num_critics = gammas, len(gammas), num_critics
        self.num_bins, self.label_type, self.sigma = output_bins, label_type, sigma
        self.transform_values = symlog if use_symlog else torch.clone
        self.invert_bins = symexp if use_symlog else torch.clone
        low = -100_000.0 if min_return is None else min_return
        high = 100_000.0 if max_return is None else max_return
        ends = self.transform_values(torch.tensor([low, high], dtype=torch.float32)).tolist()
        self.bin_vals = torch.linspace(*ends, output_bins)
        self.net = PlainEnsemble(num_critics, state_dim + 1 + action_dim, d_hidden, output_bins, seed=3)

    def __len__(self) -> int:
        return self.num_critics

    def forward(self, state: Tensor, action: Tensor, log_dict: dict | None = None) -> Any:
        assert state.dim() == 3
        assert action.dim() == 5
        return self.critic_network_forward(state=state, action=action, log_dict=log_dict)

    def critic_network_forward(self, state: Tensor, action: Tensor, log_dict: dict | None = None) -> Any:
        K, B, L, G, A = action.shape
        discount = gammas_as_input_seq(self.gammas, K * B, L)
        state = state.unsqueeze(1).expand(B, G, L, -1).repeat(K, 1, 1, 1).flatten(0, 1)
        action = action.clamp(-0.999, 0.999).transpose(2, 3).reshape(K * B * G, L, A)
        outputs, _ = self.net(torch.cat((state, discount, action), -1))
        outputs = outputs.unflatten(0, (K, B, G)).permute(0, 1, 3, 4, 2, 5)
        return torch.distributions.Categorical(logits=outputs, validate_args=False)

    def bin_dist_to_raw_vals(self, bin_dist: Any) -> Tensor:
        return self.invert_bins((bin_dist.probs * self.bin_vals).sum(-1, keepdim=True))

    def raw_vals_to_labels(self, raw_td_target: Tensor) -> Tensor:
        x = self.transform_values(raw_td_target.squeeze(-1))
        hl = self.label_type == "hlgauss"
        return (
            drop_in_formulas.gaussian_labels(x, self.bin_vals, self.sigma)
            if hl
            else drop_in_formulas.labels_between(x, self.bin_vals)
        )
