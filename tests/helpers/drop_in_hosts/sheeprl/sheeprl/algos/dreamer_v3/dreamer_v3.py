"""Stand-in for this module of sheeprl, with its calls of a distribution."""

import torch

from sheeprl.utils.distribution import TwoHotEncodingDistribution


def train(reward_logits, value_logits, slow_logits, rewards, targets, discount):
    pr = TwoHotEncodingDistribution(reward_logits, dims=1)
    qv = TwoHotEncodingDistribution(value_logits, dims=1)
    slow = TwoHotEncodingDistribution(slow_logits, dims=1).mean
    losses = qv.log_prob(targets.detach()) + qv.log_prob(slow.detach())
    return -pr.log_prob(rewards), -(losses * discount.squeeze(-1)).mean(), qv.mean, pr.mode
