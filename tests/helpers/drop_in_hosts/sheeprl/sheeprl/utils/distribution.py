"""Stand-in for this module of sheeprl, whose names and imports it has."""

import math
from numbers import Number
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, constraints

import drop_in_formulas
from sheeprl.utils.utils import symexp, symlog


class TwoHotEncodingDistribution:
    def __init__(self, logits, dims=0, low=-20, high=20, transfwd=symlog, transbwd=symexp):
        self.logits, self.dims, self.transfwd, self.transbwd = logits, dims, transfwd, transbwd
        self.bins = torch.linspace(low, high, logits.shape[-1], dtype=logits.dtype)

    @property
    def mode(self):
        return self.transbwd((self.logits.softmax(-1) * self.bins).sum(-1, keepdim=True))

    mean = mode

    def log_prob(self, x):
        labels = drop_in_formulas.labels_between(self.transfwd(x).squeeze(-1), self.bins)
        return -drop_in_formulas.cross_entropy(self.logits, labels)
