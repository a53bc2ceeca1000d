"""Windows grouped by length: the same update, of less padding."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from small import AGENT
from twohot.agent import AgentNetworks
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.data.spaces import replay_schema
from twohot.learning import length_groups as module
from twohot.learning.learner import Learner
from twohot.learning.length_groups import by_length, length_groups
from twohot.replay import Batch, Replay

ROWS, STEPS = 12, 30
LENGTHS = (3, 3, 7, 9, 16, 30)


def batch(lengths=LENGTHS) -> Batch:
    schema = replay_schema(spaces.Dict({"seen": spaces.Box(-1, 1, (3,), np.float32)}), spaces.Discrete(4))
    replay, stream = Replay.create(schema, capacity_steps=1000, seed=1), np.random.default_rng(0)
    for steps in lengths:
        seen = {"seen": stream.standard_normal((steps + 1, 3), dtype=np.float32)}
        action, reward = stream.integers(4, size=steps), stream.standard_normal(steps).astype(np.float32)
        ended = np.arange(steps) == steps - 1
        replay.add(seen, action.astype(np.int32), reward, ended, np.zeros(steps, bool), 0)
    return replay.sample(ROWS, STEPS, out=replay.batch(ROWS, STEPS, torch=True))


def doubled(whole: Batch) -> Batch:
    return Batch(**whole._columns(lambda column: column.double() if column.dtype == torch.float32 else column))


def cost(lengths, groups) -> int:
    return sum(len(group) * max(lengths[index] for index in group) + module.GROUP_STEPS for group in groups)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [2, 5])
def test_no_other_groups_cost_less(seed: int, most: int, monkeypatch) -> None:
    stream = np.random.default_rng(seed)
    monkeypatch.setattr(module, "GROUP_STEPS", int(stream.integers(0, 30)))
    lengths = stream.integers(1, 50, size=5).tolist()
    groups = length_groups(lengths, most)
    assert sorted(itertools.chain(*groups)) == list(range(5))
    assert max(map(len, groups)) <= most
    assert [lengths[group[0]] for group in groups] == sorted((max(lengths[i] for i in g) for g in groups), reverse=True)
    assigned = itertools.product(range(5), repeat=5)  # every partition
    others = ([[i for i in range(5) if group[i] == number] for number in set(group)] for group in assigned)
    assert cost(lengths, groups) == min(cost(lengths, each) for each in others if max(map(len, each)) <= most)


def test_a_group_holds_its_windows_whole(monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUP_STEPS", 10)
    whole, seen = batch(), {}
    groups = by_length(whole, ROWS)
    assert len(groups) > 1
    assert sum(len(group.mask) for group in groups) == ROWS
    for group in groups:
        steps = group.mask.shape[1]
        assert steps == STEPS or steps % module.MULTIPLE == 0
        assert {value.shape[1] for value in (*group.observation.values(), group.time)} == {steps + 1}
        for row in range(len(group.mask)):
            seen[int(group.trajectory[row]), int(group.start[row])] = group.windows([row], steps)
    for row in range(ROWS):
        found = seen[int(whole.trajectory[row]), int(whole.start[row])]
        steps = found.mask.shape[1]
        assert int(found.mask.sum()) == int(whole.mask[row].sum())  # nothing real is cut
        assert torch.equal(found.observation["seen"][0], whole.observation["seen"][row, : steps + 1])
        assert torch.equal(found.reward[0], whole.reward[row, :steps])
        assert torch.equal(found.previous_reward[0], whole.previous_reward[row, : steps + 1])


def test_windows_without_padding_stay_the_batch_that_they_are() -> None:
    whole = batch((STEPS, STEPS + 5))
    if not whole.mask.all():
        whole.mask[:] = True
    assert by_length(whole, ROWS)[0] is whole
    empty = batch()
    empty.mask[:] = False
    assert sum(len(group.mask) for group in by_length(empty, ROWS)) == ROWS


@pytest.mark.parametrize("critic", ["two_hot", "scalar"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_the_update_is_that_of_the_whole_batch(critic: str, accumulation_steps: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUP_STEPS", 10)
    actor = "independent" if critic == "two_hot" else "dependent"
    # All draws of critics alike, exact expectations, and no action that rounding could decide on: nothing is random.
    objective = ObjectiveConfig(
        actor=actor, critic_subset=64, action_samples=0, target_action_samples=0, filter="exponential"
    )
    whole, learners = doubled(batch()), []
    for grouped in (False, True):
        torch.manual_seed(3)
        spaced = spaces.Dict({"seen": spaces.Box(-1, 1, (3,), np.float32)}), spaces.Discrete(4)
        agent = AgentNetworks(replace(AGENT, critic=critic, critics=1, dropout=0.0), *spaced).double()
        optimizer = OptimizerConfig(
            group_by_length=grouped, accumulation_steps=accumulation_steps if grouped else 1, learning_rate=1e-3
        )
        learner = Learner(agent, objective, optimizer)
        cut = learner._cut(whole, len(whole.mask) // optimizer.accumulation_steps, ungrouped=False)
        assert len(cut) > 1 if grouped else cut == [whole]
        _, norm = learner.step(whole)
        learners.append((agent, norm))
    (plain, norm), (grouped, other) = learners
    assert abs(other - norm) < 1e-6 * norm  # a float32, the share of the steps, is in it
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            assert (grouped.get_parameter(name).grad - parameter.grad).abs().max() < 1e-6 * norm, name
    mean = plain.values.popart.mean
    assert mean.abs().max() > 0
    assert (grouped.values.popart.mean - mean).abs().max() < 1e-9


def test_an_ungrouped_step_returns_the_losses_of_all_windows(monkeypatch) -> None:
    monkeypatch.setattr(module, "GROUP_STEPS", 10)
    spaced = spaces.Dict({"seen": spaces.Box(-1, 1, (3,), np.float32)}), spaces.Discrete(4)
    learner = Learner(AgentNetworks(AGENT, *spaced), ObjectiveConfig(), OptimizerConfig(group_by_length=True))
    losses, _ = learner.step(batch(), ungrouped=True)
    assert losses.target.shape[:2] == (ROWS, STEPS)
