"""Stand-in for this module of dreamerv3-torch, whose names and imports it has."""

import math
import re

import numpy as np
import tools
import torch
import torch.nn.functional as F
from torch import distributions as torchd
from torch import nn


class MLP(nn.Module):
    def __init__(self, weight, start, dist="symlog_disc", device="cpu"):
        super().__init__()
        self.mean_layer = nn.Linear(*weight.T.shape)
        self.mean_layer.weight, self.mean_layer.bias = nn.Parameter(weight), nn.Parameter(start, requires_grad=False)
        self._dist, self._device = dist, device

    def forward(self, features):
        return self.dist(self._dist, self.mean_layer(features), 1.0, (255,))

    def dist(self, dist, mean, std, shape):
        if dist == "symlog_disc":
            dist = tools.DiscDist(logits=mean, device=self._device)  # out
        else:
            raise NotImplementedError(dist)
        return dist
