"""Gradient steps with every kind of observation and every memory, on toy spaces."""

import dataclasses
import types

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from network_formulas import integers, normal
from small import AGENT
from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.learning import compute_losses
from twohot.learning.learner import Learner

SPACES = {
    "vector": Box(-1, 1, (3,), np.float32),
    "image": Box(0, 255, (36, 36, 1), np.uint8),
    "grid": Dict({"grid": Box(0, 255, (3, 3, 2), np.uint8)}),
    "tokens": Dict({"tokens": Box(0, 9, (4,), np.int16)}),
    "switches": Dict({"switches": MultiBinary(5)}),
    "everything": Dict(
        {
            "vector": Box(-1, 1, (3,), np.float32),
            "camera": Box(0, 255, (15, 15, 3), np.uint8),
            "grid": Box(0, 255, (3, 3, 2), np.uint8),
            "tokens": Box(0, 9, (4,), np.int32),
            "context": Box(-1, 1, (4,), np.float32),
            "action_mask": MultiBinary(4),
        }
    ),
}
INPUTS = ("observation", "previous_action", "previous_reward", "time")
CASES = {
    **{name: (space, {}) for name, space in SPACES.items()},
    "nature": (SPACES["image"], {"images": "nature"}),
    "drq": (SPACES["image"], {"images": "drq", "random_shift_by": "window"}),
    "nothing but the vector": (
        SPACES["vector"],
        {"previous_action": False, "previous_reward": False, "normalize": False},
    ),
    **{name: (SPACES["vector"], {"memory": name}) for name in ("gru", "set", "feedforward", "identity")},
    **{name: (SPACES["vector"], {"positions": name}) for name in ("learned", "rotary")},
}


def make_learner(case):
    space, settings = CASES[case]
    torch.manual_seed(0)
    config = dataclasses.replace(AGENT, dropout=0.1, **settings)
    optimizer = OptimizerConfig(warmup_updates=0, weight_decay=0.0)
    return Learner(AgentNetworks(config, space, Discrete(4)), ObjectiveConfig(), optimizer)


def make_batch(space, rows=4, steps=5, junk=False):
    """Windows with padding, which holds zeros or anything."""
    mask = torch.arange(steps) < torch.tensor([[5], [2], [4], [1]])[:rows]
    seen = torch.cat((mask[:, :1], mask), 1)

    def padded(x, real):
        other = x.flip(0, 1) if junk else torch.zeros_like(x)
        return torch.where(real.view(*real.shape, *[1] * (x.dim() - 2)), x, other)

    observation = {}
    for name, part in (space if isinstance(space, Dict) else Dict({"observation": space})).items():
        shape, dtype = (rows, steps + 1, *part.shape), getattr(torch, str(part.dtype))
        if dtype.is_floating_point:
            observation[name] = padded(normal(*shape, dtype=dtype), seen)
        else:
            high = 2 if isinstance(part, MultiBinary) else 1 + int(part.high.max())
            observation[name] = padded(integers(high, *shape, dtype=dtype), seen)
    return types.SimpleNamespace(
        observation=observation,
        previous_action=padded(integers(4, rows, steps + 1, seed=1), seen),
        previous_reward=padded(normal(rows, steps + 1, seed=2), seen),
        time=padded(torch.arange(steps + 1).expand(rows, -1), seen).int(),
        action=padded(integers(4, rows, steps, seed=3), mask),
        reward=padded(normal(rows, steps, seed=4), mask),
        terminated=torch.zeros(rows, steps, dtype=torch.bool),
        truncated=torch.zeros(rows, steps, dtype=torch.bool),
        mask=mask,
        task=torch.zeros(rows, dtype=torch.int32),
    )


def parameters_after(case, updates=2, junk=False):
    """Every tensor of an agent after some updates from one seed."""
    learner = make_learner(case)
    torch.manual_seed(1)
    for _ in range(updates):
        learner.step(make_batch(CASES[case][0], junk=junk))
    return learner.agent.state_dict()


@pytest.mark.parametrize("case", CASES)
def test_an_update_moves_every_parameter_of_the_encoders(case):
    learner = make_learner(case)
    before = {name: parameter.detach().clone() for name, parameter in learner.agent.named_parameters()}
    losses, norm = learner.step(make_batch(CASES[case][0]))
    assert losses.total.isfinite()
    assert norm.isfinite()
    encoders = ("timestep_encoder", "trajectory_encoder")
    still = [name for name, parameter in learner.agent.named_parameters() if torch.equal(parameter, before[name])]
    assert [name for name in still if name.startswith(encoders)] == []


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing_bit_for_bit_and_one_seed_is_one_run(case):
    first, again, padded = parameters_after(case), parameters_after(case), parameters_after(case, junk=True)
    assert first.keys() == again.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert torch.equal(tensor, padded[name]), name


def test_not_reading_padding_gives_the_losses_of_reading_it():
    learner, batch = make_learner("everything"), make_batch(SPACES["everything"])
    agent, objective = learner.agent.train(), ObjectiveConfig()
    torch.manual_seed(1)
    skipping = compute_losses(agent, batch, objective).total.item()
    encode = agent.encode_with_losses
    agent.encode_with_losses = lambda *inputs: encode(*inputs[:4])
    torch.manual_seed(1)
    assert compute_losses(agent, batch, objective).total.item() == pytest.approx(skipping, rel=1e-5)


@pytest.mark.parametrize("case", ["everything", "gru", "set", "rotary"])
def test_updates_under_autocast_stay_finite(case):
    learner = make_learner(case)
    with torch.autocast("cpu", torch.bfloat16):
        h = learner.agent.encode(*(getattr(make_batch(CASES[case][0]), name) for name in INPUTS))
    h.float().square().sum().backward()
    assert h.isfinite().all()
    gradients = [parameter.grad for parameter in learner.agent.trainable_parameters() if parameter.grad is not None]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
