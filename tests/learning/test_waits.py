"""A gradient step on a GPU waits for it once: at the one place where the host reads whether all is finite."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from twohot.agent import AgentNetworks
from twohot.attention import KVCache, causal_attention, decode_attention
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.losses import ValueBins, hl_gauss_cross_entropy, two_hot_cross_entropy
from twohot.replay import Replay

if sys.platform != "linux":
    pytest.skip("the development environment has Triton on Linux alone", allow_module_level=True)

from host_waits import waits_on_a_gpu
from small import AGENT

ONCE = ["_local_scalar_dense in learning/learner.py, _step"]
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
CHOICE, CHOICES, NUMBERS = spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.Box(-1.0, 1.0, (2,))
SEEN = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
        "grid": spaces.Box(0, 5, (3, 3, 2), np.uint8),
        "tokens": spaces.Box(0, 9, (4,), np.int64),
        "action_mask": spaces.Box(0, 1, (4,), np.int8),
    }
)
DEPENDENT = {"actor": "dependent"}
CASES = {
    "AMAGO-2": (VECTOR, CHOICE, {}, {}, {}),
    "choices": (VECTOR, CHOICES, {}, {}, {}),
    "numbers": (VECTOR, NUMBERS, {}, {}, {}),
    "bits": (VECTOR, spaces.MultiBinary(3), {}, {"multi_binary_log_prob": "mean"}, {}),
    "images, grids, tokens, illegal actions": (SEEN, CHOICE, {"random_shift": 2}, {}, {}),
    "HL-Gauss, several steps": (VECTOR, CHOICE, {"critic": "hl_gauss"}, {"n_step": 3}, {}),
    "AMAGO": (VECTOR, NUMBERS, {"critic": "scalar"}, DEPENDENT, {}),
    "AMAGO, choices": (VECTOR, CHOICE, {"critic": "scalar"}, {**DEPENDENT, "policy_gradient_samples": 2}, {}),
    "exact expectations": (VECTOR, CHOICE, {}, {"action_samples": 0, "target_action_samples": 0}, {}),
    "moving averages": (VECTOR, CHOICE, {"normalization": "moving_average"}, {}, {}),
    "soft choices": (VECTOR, CHOICE, {"soften_stored_actions": True}, {}, {}),
    "GRU": (VECTOR, CHOICE, {"memory": "gru"}, {"filter": "exponential"}, {}),
    "set memory, prediction": (VECTOR, CHOICE, {"memory": "set", "latent_steps": 3}, {"prediction_weight": 1.0}, {}),
    "positions, dropout": (VECTOR, CHOICE, {"positions": "learned", "dropout": 0.1}, {"filter": "leaky_ramp"}, {}),
    "microbatches": (VECTOR, CHOICE, {}, {"target_update": "before_step"}, {"accumulation_steps": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_step_waits_once(case) -> None:
    observation, action, agent, objective, optimizer = case
    losses = ObjectiveConfig(**objective)
    networks = AgentNetworks(replace(AGENT, **agent), observation, action, predicts=losses.predicts).to("meta")
    learner = Learner(networks, losses, OptimizerConfig(**optimizer))
    batch = Replay.create(replay_schema(networks.observation_space, action), capacity_steps=1).batch(4, 5, torch=True)
    batch = batch.to("meta")
    with waits_on_a_gpu() as found:
        learner.step(batch)
        learner.step(batch)
    assert found == 2 * ONCE


def test_losses_and_attention_do_not_wait() -> None:
    bins = ValueBins.amago2(128)
    logits = torch.randn(6, 128, device="meta", requires_grad=True)
    target, mask = torch.randn(6, device="meta"), torch.ones(6, dtype=torch.bool, device="meta")
    q, k, v = torch.randn(3, 2, 9, 2, 16, device="meta").unbind()
    cache = KVCache(1, 2, 2, 16, 8, device="meta")
    with waits_on_a_gpu() as found:
        for loss in (two_hot_cross_entropy, hl_gauss_cross_entropy):
            loss(logits, target, bins, mask=mask).backward()
        causal_attention(q.requires_grad_(), k, v, mask.sum().expand(2)).sum().backward()
        decode_attention(q[:, 0], k[:, 0], v[:, 0], cache, 0)
        cache.advance()
    assert found == []


WAITS = {
    "item": (lambda x: x.sum().item(), ["_local_scalar_dense"]),
    "bool, int": (lambda x: [bool(x[0] > 0), int(x[1])], 2 * ["_local_scalar_dense"]),
    "to the host": (lambda x: x.cpu(), ["_to_copy"]),
    "from the host": (lambda x: torch.ones(2).to(x.device), ["_to_copy"]),
    "into": (lambda x: x.copy_(torch.ones(2)), ["copy_"]),
    "mask": (lambda x: x[x > 0], ["index by a mask"]),
    "write by a mask": (lambda x: x.index_put_((x > 0,), x), ["index_put_ by a mask"]),
    "nonzero": (lambda x: x.nonzero(), ["nonzero"]),
    "multinomial": (lambda x: x.multinomial(1), ["multinomial"]),
    "tensor": (lambda x: torch.tensor(1.0, device=x.device), ["tensor"]),
    "new_tensor": (lambda x: x.new_tensor([1.0]), ["new_tensor"]),
    "as_tensor": (lambda x: torch.as_tensor(1.0, device=x.device), ["as_tensor"]),
    "none": (lambda x: [x + 1, torch.as_tensor(x, dtype=torch.float64), x.where(x > 0, 0.0), torch.zeros(2) + 1], []),
}


@pytest.mark.parametrize(("work", "waits"), WAITS.values(), ids=WAITS.keys())
def test_what_waits_is_seen(work, waits) -> None:
    x = torch.empty(2, device="meta")
    with waits_on_a_gpu() as found:
        work(x)
    assert found == waits
