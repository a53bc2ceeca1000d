"""Stand-in for this module of TD-MPC2, whose names and imports it has."""

import torch
import torch.nn.functional as F
from common import math
from common.world_model import WorldModel


class TDMPC2(torch.nn.Module):
    def __init__(self, cfg, **weights):
        super().__init__()
        self.cfg = cfg
        self.model = WorldModel(cfg, **weights)

    @torch.no_grad()
    def _estimate_value(self, z, actions):
        return math.two_hot_inv(self.model.reward(z, actions[0]), self.cfg)

    def update_pi(self, zs):
        qs = self.model.Q(zs, self.model.pi(zs), return_type="avg", detach=True)
        return -qs.mean(), qs

    @torch.no_grad()
    def _td_target(self, next_z, reward):
        return reward + 0.99 * self.model.Q(next_z, self.model.pi(next_z), return_type="min", target=True)

    def _update(self, zs, action, reward):
        td_targets = self._td_target(zs[1:], reward)
        qs = self.model.Q(zs[:-1], action, return_type="all")
        reward_preds = self.model.reward(zs[:-1], action)
        reward_loss = value_loss = 0  # out
        for t in range(self.cfg.horizon):  # out
            weight = self.cfg.rho**t  # out
            reward_loss = reward_loss + weight * math.soft_ce(reward_preds[t], reward[t], self.cfg).mean()  # out
            for q in qs:  # out
                value_loss = value_loss + weight * math.soft_ce(q[t], td_targets[t], self.cfg).mean()  # out
        reward_loss = reward_loss / self.cfg.horizon  # out
        value_loss = value_loss / (self.cfg.horizon * self.cfg.num_q)  # out
        return td_targets, reward_loss, value_loss
