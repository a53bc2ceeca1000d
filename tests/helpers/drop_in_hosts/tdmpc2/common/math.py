"""Stand-in for this module of TD-MPC2, whose names and imports it has."""

import torch
import torch.nn.functional as F

import drop_in_formulas


def soft_ce(pred, target, cfg):
    return drop_in_formulas.cross_entropy(pred, two_hot(target, cfg)).unsqueeze(-1)


def log_std(x, low, dif):
    return low + dif * (x.tanh() + 1) / 2


def symlog(x):
    return drop_in_formulas.symlog(x)


def symexp(x):
    return drop_in_formulas.symexp(x)


def two_hot(x, cfg):
    return drop_in_formulas.labels_between(symlog(x.squeeze(-1)), torch.linspace(cfg.vmin, cfg.vmax, cfg.num_bins))


def two_hot_inv(x, cfg):
    points = torch.linspace(cfg.vmin, cfg.vmax, cfg.num_bins)
    return symexp((x.softmax(-1) * points).sum(-1, keepdim=True))
