"""Stand-in for this module of dreamerv3-torch, whose names and imports it has."""

import collections
import datetime
import io
import json
import os
import pathlib
import random
import re
import time

import numpy as np
import torch
from torch import distributions as torchd
from torch import nn
from torch.nn import functional as F

import drop_in_formulas


def symlog(x):
    return drop_in_formulas.symlog(x)


def symexp(x):
    return drop_in_formulas.symexp(x)


class DiscDist:
    def __init__(self, logits, low=-20.0, high=20.0, transfwd=symlog, transbwd=symexp, device="cuda"):
        self.logits, self.transfwd, self.transbwd = logits, transfwd, transbwd
        self.points = torch.linspace(low, high, 255, dtype=logits.dtype, device=device)

    def log_prob(self, x):
        x = x.squeeze(-1) if x.dim() == self.logits.dim() else x
        return -drop_in_formulas.cross_entropy(
            self.logits, drop_in_formulas.labels_between(self.transfwd(x), self.points)
        )

    def mode(self):
        return self.transbwd((self.logits.softmax(-1) * self.points).sum(-1, keepdim=True))

    mean = mode
