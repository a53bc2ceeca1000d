"""The losses under torch.compile: one graph, compiled once, and the numbers of the eager form."""

import dataclasses

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch._dynamo.utils import counters

from objective_loops import CONFIG, make_agent, make_batch
from twohot.config import ObjectiveConfig
from twohot.learning import compute_losses

MEMORIES = {"memory": "set", "latent_steps": 2}, {"prediction_weight": 0.5}


@pytest.mark.parametrize(
    ("space", "changes", "weights"),
    [
        (Discrete(3), {}, {}),
        (MultiDiscrete([2, 3]), {}, {}),
        (Box(-1, 1, (2,)), {}, {}),
        (Discrete(3), *MEMORIES),
        (Box(-1, 1, (2,)), *MEMORIES),
    ],
    ids=["one", "many", "box", "one, set and prediction", "box, set and prediction"],
)
def test_losses_are_one_graph_for_every_batch(space, changes, weights):
    """Of any padding; the backend runs the graph as captured, which takes seconds where inductor takes minutes."""
    torch._dynamo.reset()
    counters.clear()
    objective, config = ObjectiveConfig(**weights), dataclasses.replace(CONFIG, **changes)
    agent = make_agent(space, torch.float32, config, predicts=objective.predicts)
    compiled = torch.compile(compute_losses, backend="eager", fullgraph=True, dynamic=False)
    for seed, lengths in enumerate([(5, 3, 4, 1), (1, 2, 5, 5), (5, 5, 5, 5)]):
        batch = make_batch(space, torch.float32, lengths)
        totals = []
        for losses in (compiled, compute_losses):
            torch.manual_seed(seed)
            agent.zero_grad()
            total = losses(agent, batch, objective).total
            total.backward()
            totals.append(
                [total.detach(), *(p.grad.norm() for p in agent.trainable_parameters() if p.grad is not None)]
            )
        torch.testing.assert_close(*totals, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
