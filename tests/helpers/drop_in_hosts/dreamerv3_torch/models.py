"""Stand-in for this module of dreamerv3-torch, whose names and imports it has."""

import copy

import networks
import tools
import torch
from torch import nn


class WorldModel(nn.Module):
    def __init__(self, weight, start):
        super().__init__()
        self.heads = nn.ModuleDict({"reward": networks.MLP(weight, start)})

    def _train(self, feat, data):
        prediction = self.heads["reward"](feat)
        return prediction.log_prob(data["reward"]).neg(), prediction.mean()


class ImagBehavior(nn.Module):
    def __init__(self, config, weight, slow, start):
        super().__init__()
        self._config = config
        self.value, self._slow_value = networks.MLP(weight, start), networks.MLP(slow, start)

    def _train(self, value_input, target, weights):
        value = self.value(value_input[:-1].detach())
        losses = value.log_prob(target.detach())  # out
        slow_target = self._slow_value(value_input[:-1].detach())
        if self._config.critic["slow_target"]:  # out
            losses = losses + value.log_prob(slow_target.mode().detach())  # out
        value_loss = -(weights[:-1].squeeze(-1) * losses).mean()  # out
        return value_loss, value.mode()
