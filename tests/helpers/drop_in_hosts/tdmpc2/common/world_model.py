"""Stand-in for this module of TD-MPC2, whose names and imports it has."""

import torch
import torch.nn as nn
from common import math


class WorldModel(nn.Module):
    def __init__(self, cfg, critics, target_critics, reward, policy):
        super().__init__()
        self.cfg = cfg
        self._Qs, self._reward, self._pi = (nn.Parameter(x) for x in (critics, reward, policy))
        self._target_Qs = target_critics

    def pi(self, z):
        return torch.tanh(z @ self._pi.T)

    def reward(self, z, a):
        return torch.cat((z, a), -1) @ self._reward.T

    def Q(self, z, a, return_type="min", target=False, detach=False):
        weight = self._target_Qs if target else self._Qs.detach() if detach else self._Qs
        out = torch.einsum("qne,...e->q...n", weight, torch.cat((z, a), -1))
        if return_type == "all":
            return out
        each = math.two_hot_inv(out[[3, 1]], self.cfg)
        return each.amin(0) if return_type == "min" else each.sum(0) / 2
