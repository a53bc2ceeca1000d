"""Ranks that share an update, against one learner of the whole batch."""

import dataclasses

import pytest
import torch
from gymnasium.spaces import Discrete

import ranks
from compare import assert_accurate
from objective_loops import CONFIG
from twohot.config import ObjectiveConfig, OptimizerConfig
from twohot.nets.normalization import MovingNormalization, RunningNormalization
from twohot.rl import PopArt

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = Discrete(4)
# Draws are a rank's own: of one critic, whose choices are enumerated, there is nothing to draw. The clip bites, so that
# the norm has to be that of the whole.
AGENT = dataclasses.replace(CONFIG, critics=1)
OBJECTIVE = ObjectiveConfig(reward_multiplier=3.0, action_samples=0, target_action_samples=0, target_rate=0.1)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_updates=0, gradient_clip=0.5)
CASES = {
    "AMAGO-2": ({}, {}, {}),
    "AMAGO, moving averages": ({"critic": "scalar", "normalization": "moving_average"}, {"actor": "dependent"}, {}),
    "prediction, microbatches": ({}, {"prediction_weight": 0.5}, {"accumulation_steps": 2}),
}
UPDATES = 20


def configs(agent, objective, optimizer):
    changed = ((AGENT, agent), (OBJECTIVE, objective), (OPTIMIZER, optimizer))
    return tuple(dataclasses.replace(config, **changes) for config, changes in changed)


TARGETS = 10 * torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 7
MASK = torch.tensor([[True, False, True, True, True], [False, True, False, False, False]])
CALLS = {
    **{name: (ranks.learn, SPACE, configs(*case), UPDATES) for name, case in CASES.items()},
    "float32": (ranks.learn, SPACE, configs({}, {}, {}), 1, torch.float32),
    "infinity": (ranks.learn_infinity, SPACE, configs({}, {}, {})),
    "targets": (ranks.count_targets, TARGETS, MASK),
    "no target": (ranks.count_targets, TARGETS, torch.zeros_like(MASK)),
    "differences": (ranks.look_for_differences,),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both ranks found, which took the same two processes."""
    return ranks.run_ranks(tmp_path_factory.mktemp("ranks"), CALLS)


def error(actual, truth):
    """By the norm of the truth."""
    assert actual.keys() == truth.keys()
    pairs = [(actual[name].double(), truth[name].double()) for name in truth]
    return max(((one - other).norm() / other.norm().clamp(min=1)).item() for one, other in pairs)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_take_the_update_of_one_learner(found, name):
    whole = ranks.learn(None, SPACE, configs(*CASES[name]), UPDATES)
    first, second = (results[name] for results in found)
    for part in whole:
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    assert error(first["gradients"], whole["gradients"]) < 1e-12
    assert error(first["agent"], whole["agent"]) < 1e-9
    assert error(first["moments"], whole["moments"]) < 1e-9


def test_float32_gradients_are_those_of_one_learner(found):
    whole = ranks.learn(None, SPACE, configs({}, {}, {}), 1, torch.float32)["gradients"]
    largest = max(gradient.norm() for gradient in whole.values())
    for name, gradient in found[0]["float32"]["gradients"].items():
        assert (gradient - whole[name]).norm() <= 1e-5 * max(whole[name].norm(), 1e-3 * largest), name


def test_what_one_rank_cannot_learn_from_no_rank_learns(found):
    for results in found:
        assert "a target is infinite" in results["infinity"]["said"]
        assert results["infinity"]["same"]
        assert results["infinity"]["updates"] == 0


@pytest.mark.parametrize("call", ["targets", "no target"])
def test_statistics_are_of_the_rows_of_all_ranks(found, call):
    mask = CALLS[call][2]
    parts = {"popart": PopArt(2), "running": RunningNormalization(2).double(), "moving": MovingNormalization(2)}
    for _ in range(2):
        for part in parts.values():
            part.update(TARGETS, mask)
    for results in found:
        for name, part in parts.items():
            for key, value in part.state_dict().items():
                # Sums in another order, of squares the largest.
                assert_accurate(results[call][name][key].double(), value.double(), sensitivity=TARGETS.square().max())
        assert "expected finite targets, got 10 of" in results[call]["said"]


def test_differences_between_ranks_are_named(found):
    for results in found:
        assert results["differences"] == {"before": ["weight", "bias"], "attached": [], "changed": ["bias"]}
