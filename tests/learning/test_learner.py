"""One gradient step, and what many of them learn."""

import copy
import dataclasses
import itertools
import math
import types

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from compare import assert_accurate
from small_spaces import flat
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig, ObjectiveConfig, OptimizerConfig
from twohot.kernels.threads import ONE_THREAD_NUMBERS
from twohot.learning import compute_losses
from twohot.learning.learner import Learner, NonFiniteLossError
from twohot.losses import ValueBins
from twohot.nets.frozen import freeze
from twohot.nets.linear import SigmaLinear
from twohot.spaces import SpaceError

CONFIG = AgentConfig(
    width=16,
    layers=1,
    heads=2,
    feed_forward=32,
    dropout=0.1,
    context=8,
    encoder_hidden=16,
    encoder_layers=1,
    head_hidden=16,
    head_layers=1,
    critics=2,
    training_discounts=(0.5,),
    discount=0.9,
    bins=ValueBins.amago2(16),
)
OBJECTIVE = ObjectiveConfig(action_samples=0, target_action_samples=0, target_rate=0.1)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_updates=0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny tensors gain nothing from a second thread, and wait for it where other work runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_learner(objective=OBJECTIVE, optimizer=OPTIMIZER, seed=0, **changes):
    torch.manual_seed(seed)
    return Learner(AgentNetworks(dataclasses.replace(CONFIG, **changes), flat(3), Discrete(4)), objective, optimizer)


def make_batch(seed=1, rows=6, steps=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (rows, 1), generator=generator)
    mask, seen = torch.arange(steps) < lengths, torch.arange(steps + 1) <= lengths
    return types.SimpleNamespace(
        observation={"observation": torch.randn(rows, steps + 1, 3, generator=generator) * seen.unsqueeze(-1)},
        previous_action=torch.randint(4, (rows, steps + 1), generator=generator) * seen,
        previous_reward=torch.randn(rows, steps + 1, generator=generator) * seen,
        time=(torch.arange(steps + 1) * seen).int(),
        action=torch.randint(4, (rows, steps), generator=generator) * mask,
        reward=torch.randn(rows, steps, generator=generator) * mask,
        terminated=torch.arange(steps) == lengths - 1,
        truncated=torch.zeros(rows, steps, dtype=torch.bool),
        mask=mask,
        task=torch.zeros(rows, dtype=torch.int32),
    )


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def rows_of(batch, first, count):
    """As `twohot.replay.Batch.rows`."""
    observation = {name: value[first : first + count] for name, value in batch.observation.items()}
    others = {name: value[first : first + count] for name, value in vars(batch).items() if name != "observation"}
    return types.SimpleNamespace(observation=observation, **others)


def test_gradients_of_pieces_add_up_to_those_of_the_batch():
    batch = make_batch()
    batch.rows = lambda first, count: rows_of(make_batch(), first, count)
    assert len(set(batch.mask.unflatten(0, (3, 2)).sum((1, 2)).tolist())) > 1  # pieces of different weights
    learners = []
    for accumulate in (1, 3):
        objective = dataclasses.replace(OBJECTIVE, critic_subset=64)  # all draws alike, next to
        learner = make_learner(
            objective, dataclasses.replace(OPTIMIZER, accumulation_steps=accumulate), dropout=0.0, critics=1
        )
        losses, norm = learner.step(batch)
        assert losses.target.shape[0] == 6 // accumulate
        learners.append((learner, norm))
    (whole, norm), (pieces, other) = learners
    assert other.item() == pytest.approx(norm.item(), rel=1e-5)
    for name, parameter in whole.agent.named_parameters():
        if parameter.grad is not None:
            mine = pieces.agent.get_parameter(name).grad
            assert (mine - parameter.grad).abs().max() < 1e-5, name
    torch.testing.assert_close(pieces.agent.values.popart.mean, whole.agent.values.popart.mean)
    assert whole.agent.values.popart.mean.abs().max() > 0


@pytest.mark.parametrize("changes", [{"recompute": True}], ids=str)
def test_recomputed_layers_change_no_bit(changes):
    kept, again = make_learner(), make_learner(**changes)
    for seed in range(2):
        norms = []
        for learner in (kept, again):
            torch.manual_seed(seed)
            norms.append(learner.step(make_batch(seed))[1])
        assert norms[0] == norms[1]
    for name, tensor in kept.agent.state_dict().items():
        assert torch.equal(tensor, again.agent.state_dict()[name]), name


def test_bfloat16_products_leave_parameters_and_losses_in_float32():
    objective = dataclasses.replace(OBJECTIVE, filter="none")  # rounding decides on no action
    single, half = (
        make_learner(objective, dataclasses.replace(OPTIMIZER, precision=precision), dropout=0.0)
        for precision in ("float32", "bfloat16")
    )
    torch.manual_seed(2)
    losses, norm = single.step(make_batch())
    torch.manual_seed(2)
    rounded, other = half.step(make_batch())
    assert {parameter.dtype for parameter in half.agent.parameters()} == {torch.float32}
    assert rounded.total.dtype == rounded.value.dtype == rounded.target.dtype == torch.float32
    assert rounded.total.item() != losses.total.item()
    assert rounded.total.item() == pytest.approx(losses.total.item(), rel=0.02)
    assert other.item() == pytest.approx(norm.item(), rel=0.05)


def test_the_step_size_rises_linearly_to_its_full_value():
    learner = make_learner(optimizer=OptimizerConfig(learning_rate=8.0e-3, warmup_updates=4))
    batch, rates = make_batch(), []
    for _ in range(6):
        expected = learner.learning_rate()
        learner.step(batch)
        rates.append(learner.optimizer.param_groups[0]["lr"])
        assert rates[-1] == expected
    assert rates == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3, 8e-3, 8e-3])
    assert learner.updates == 6
    assert make_learner().learning_rate() == 1e-2


def test_the_step_size_falls_linearly_to_its_share():
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_updates=2, decay_updates=4, decay_to=0.2)
    learner = make_learner(optimizer=optimizer)
    rates = []
    for learner.updates in range(6):
        rates.append(learner.learning_rate())
    assert rates == pytest.approx([5e-3, 8e-3, 6e-3, 4e-3, 2e-3, 2e-3])


def test_the_first_update_is_adamw_of_the_clipped_gradient():
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0.3, gradient_clip=0.5, warmup_updates=2)
    learner = make_learner(optimizer=optimizer, dropout=0.0)
    batch = make_batch()
    other = copy.deepcopy(learner.agent)
    real = torch.cat((torch.ones(6, 1, dtype=torch.bool), batch.mask), 1)
    other.timestep_encoder.update_statistics(batch.observation, batch.previous_reward, real)
    torch.manual_seed(5)
    losses = compute_losses(other, batch, OBJECTIVE)
    losses.total.backward()
    torch.manual_seed(5)
    stepped, norm = learner.step(batch)

    assert stepped.total.item() == losses.total.item()
    squares = sum(p.grad.double().square().sum() for p in other.trainable_parameters())
    assert norm.item() == pytest.approx(squares.sqrt().item(), rel=1e-5)
    assert norm > 1
    clipped = sum(p.grad.double().square().sum() for p in learner.agent.trainable_parameters()).sqrt()
    assert clipped.item() == pytest.approx(0.5, rel=1e-4)
    rate, scale = 1e-2 / 2, 0.5 / norm.double()
    pairs = zip(other.trainable_parameters(), learner.agent.trainable_parameters(), strict=True)
    for before, after in pairs:
        # Adam's moments after one step, without bias, are g and g^2.
        gradient = before.grad.double() * scale
        truth = before.detach().double() * (1 - rate * 0.3) - rate * gradient / (gradient.abs() + 1e-8)
        assert (after - truth).abs().max() < 1e-4 * rate + 1e-7


def test_a_small_gradient_is_not_clipped():
    learner = make_learner(optimizer=dataclasses.replace(OPTIMIZER, gradient_clip=1e6))
    _, norm = learner.step(make_batch())
    squares = sum(p.grad.double().square().sum() for p in learner.agent.trainable_parameters())
    assert squares.sqrt().item() == pytest.approx(norm.item(), rel=1e-5)


def test_targets_follow_by_moving_average():
    learner = make_learner(objective=dataclasses.replace(OBJECTIVE, target_rate=0.3))
    agent = learner.agent
    for seed in range(3):
        before = state(agent)
        learner.step(make_batch(seed))
        after = state(agent)
        moved = 0
        for name, target in after.items():
            if name.startswith("target_"):
                online = after[name.removeprefix("target_")].double()
                truth = before[name].double() + 0.3 * (online - before[name].double())
                assert_accurate(target, truth)
                moved += (target - before[name]).abs().max() > 0
        assert moved == sum(1 for name in after if name.startswith("target_"))


def test_targets_with_rate_one_are_the_heads():
    learner = make_learner(objective=dataclasses.replace(OBJECTIVE, target_rate=1.0))
    learner.step(make_batch())
    after = state(learner.agent)
    for name, target in after.items():
        if name.startswith("target_"):
            assert torch.equal(target, after[name.removeprefix("target_")])


@pytest.mark.parametrize("samples", [0, 3])
def test_one_seed_one_run(samples):
    results = []
    for seed in (0, 0, 1):
        learner = make_learner(
            objective=dataclasses.replace(OBJECTIVE, action_samples=samples, target_action_samples=samples), seed=seed
        )
        totals = [learner.step(make_batch(i))[0].total.item() for i in range(5)]
        results.append((totals, state(learner.agent)))
    (totals, one), (again, two), (other, _) = results
    assert totals == again
    assert totals != other
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize(("samples", "heads"), [(0, 2), (2, 1)])
def test_the_kernels_train_as_plain_pytorch_does_step_by_step(monkeypatch, samples, heads):
    assert CONFIG.width == 16  # one head of 16 runs in the attention kernels, two run in torch's own
    objective = dataclasses.replace(OBJECTIVE, action_samples=samples, target_action_samples=samples)
    optimizer = dataclasses.replace(OPTIMIZER, learning_rate=1e-3)
    curves = {}
    for backend in ("native", "reference"):
        monkeypatch.setenv("TWOHOT_BACKEND", backend)
        learner = make_learner(objective=objective, optimizer=optimizer, dropout=0.0, heads=heads)
        steps = [learner.step(make_batch(i, rows=16)) for i in range(40)]
        sizes = torch.cat([losses.advantage[losses.advantage != 0].abs() for losses, _ in steps])
        assert sizes.min() > 1e-5, "an advantage that rounding decides"
        curves[backend] = torch.tensor([(x.actor.item(), x.critic.item(), norm.item()) for x, norm in steps])
    assert curves["native"][-1, 1] < 0.8 * curves["native"][0, 1]  # it learned something in between
    torch.testing.assert_close(curves["native"], curves["reference"], rtol=1e-4, atol=1e-5)


def test_a_step_learns_statistics_and_spectral_norms():
    learner = make_learner()
    batch = make_batch()
    before = state(learner.agent)
    learner.step(batch)
    after = state(learner.agent)
    moved = [not torch.equal(after[n], t) for n, t in before.items() if n.endswith((".u", ".v"))]
    assert all(moved)
    for _ in range(10):
        learner.agent.iterate_spectral_norms()
    for layer in learner.agent.modules():
        if isinstance(layer, SigmaLinear):
            sigma = torch.dot(layer.u, layer.weight @ layer.v).item()
            assert sigma == pytest.approx(torch.linalg.matrix_norm(layer.weight, 2).item(), rel=1e-2)
    # A window of n steps has n + 1 observations.
    assert after["timestep_encoder.normalization.count"] == batch.mask.sum() + len(batch.mask)
    assert not learner.agent.training


def test_a_policy_frozen_after_a_step_acts_with_its_weights():
    learner = make_learner(dropout=0.0)
    batch = make_batch()
    window = {"observation": batch.observation["observation"][:, :1]}, batch.previous_action[:, :1]
    window = (*window, batch.previous_reward[:, :1], torch.zeros(6, 1))
    observation = {"observation": batch.observation["observation"][:, 0]}
    given = observation, batch.previous_action[:, 0], batch.previous_reward[:, 0]
    found = []
    for _ in range(3):
        policy = freeze(learner.agent)
        with torch.no_grad():
            h, full = policy.encode_step(policy.initial_state(6), *given), learner.agent.encode(*window).squeeze(1)
            found.append(policy.actor.acting(h).log_pi)
            assert torch.allclose(found[-1], learner.agent.actor(full).log_pi[:, -1], atol=1e-5)
        learner.step(batch)
    assert not torch.allclose(found[0], found[-1], atol=1e-3)


def test_gradients_do_not_pile_up():
    optimizer = OptimizerConfig(learning_rate=1e-12, weight_decay=0.0, gradient_clip=1e9, warmup_updates=0)
    learner = make_learner(optimizer=optimizer, objective=dataclasses.replace(OBJECTIVE, target_rate=1e-9), dropout=0.0)
    norms = []
    for _ in range(3):
        torch.manual_seed(3)  # the same critics make the targets
        norms.append(learner.step(make_batch())[1].item())
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-3)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_works_in_every_step(dropout):
    actor_losses = []
    for seed in (1, 2):
        learner = make_learner(dropout=dropout)
        learner.agent.eval()
        torch.manual_seed(seed)
        actor_losses.append(learner.step(make_batch())[0].actor.item())  # no other random number enters it
    assert (actor_losses[0] == actor_losses[1]) == (dropout == 0)


def test_acting_equals_encoding_the_episode_so_far():
    agent = make_learner().agent.eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    environments, steps = 5, 12
    observation = torch.randn(steps, environments, 3, generator=generator)
    action = torch.randint(4, (steps, environments), generator=generator)
    reward = torch.randn(steps, environments, generator=generator)
    resets = torch.rand(steps, environments, generator=generator) < 0.1
    resets[0] = resets[6] = True  # the context has 8 steps
    policy = freeze(agent)
    state, begun = policy.initial_state(environments), [0] * environments
    chosen = set()
    for t in range(steps):
        state.reset(resets[t])
        assert state.time[resets[t]].eq(0).all()
        greedy = policy.act(state, {"observation": observation[t]}, action[t], reward[t], greedy=True)
        assert greedy.dtype == torch.int64
        for b in range(environments):
            begun[b] = t if resets[t, b] else begun[b]
            assert state.time[b] == t - begun[b] + 1
            episode = slice(begun[b], t + 1)
            seen, *others = (x[episode, b].unsqueeze(0) for x in (observation, action, reward))
            h = agent.encode({"observation": seen}, *others, torch.arange(t - begun[b] + 1).unsqueeze(0))
            best_two = agent.actor(h).log_pi[0, -1, -1].topk(2)
            assert greedy[b] == best_two.indices[0] or best_two.values[0] - best_two.values[1] < 1e-4
            chosen.add(int(greedy[b]))
    assert len(chosen) > 1


def test_sampled_acting_follows_its_generator():
    policy = freeze(make_learner().agent)
    draws = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        state = policy.initial_state(64)
        zeros = torch.zeros(64)
        draws.append(policy.act(state, {"observation": torch.zeros(64, 3)}, zeros.long(), zeros, generator=generator))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert set(draws[0].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Dict({}), Discrete(2), "at least one Box"),
        (Dict({"a": Discrete(3)}), Discrete(2), "observation 'a': expected a Box"),
        (flat(3), Discrete(1), "expected Discrete with 2 actions or more"),
        (flat(3), Discrete(2, start=1), "all from 0 on"),
        (flat(3), Box(-2, 2, (3,)), "from -1 to 1"),
    ],
)
def test_an_agent_needs_something_to_see_and_a_choice(observation, action, message):
    with pytest.raises(SpaceError, match=message):
        AgentNetworks(CONFIG, observation, action)


POISONS = {
    "NaN reward": lambda batch: batch.reward.view(-1)[0].fill_(math.nan),
    "infinite reward": lambda batch: batch.reward.view(-1)[0].fill_(math.inf),
    "NaN observation": lambda batch: batch.observation["observation"][0, 0, 0].fill_(math.nan),
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
def test_a_loss_that_is_not_finite_changes_nothing_that_is_learnt(poison):
    learner = make_learner()
    learner.step(make_batch())
    before, updates = state(learner.agent), learner.updates
    moments = copy.deepcopy(learner.optimizer.state_dict()["state"])
    batch = make_batch(2)
    poison(batch)
    with pytest.raises(
        NonFiniteLossError,
        match=r"update 1: (the gradient norm is nan|a target is infinite) .*--optimizer\.learning-rate",
    ):
        learner.step(batch)
    after = state(learner.agent)
    for name, _ in learner.agent.named_parameters():
        assert torch.equal(after[name], before[name]), name
    assert learner.updates == updates
    for index, moment in learner.optimizer.state_dict()["state"].items():
        for name, tensor in moment.items():
            assert torch.equal(tensor, moments[index][name])


def test_after_an_error_nothing_but_statistics_has_changed():
    # As the docstring of `Learner.step` says; the agent must also act without dropout again.
    learner = make_learner()
    learner.step(make_batch())
    before = state(learner.agent)
    batch = make_batch(2)
    batch.reward.view(-1)[0] = math.nan
    with pytest.raises(NonFiniteLossError):
        learner.step(batch)
    changed = [name for name, tensor in state(learner.agent).items() if not torch.equal(tensor, before[name])]
    assert not learner.agent.training
    assert [name for name in changed if "normalization" not in name] == []


def recall_batch(steps=4):
    """Every sequence of two actions, once for each cue shown at the first step only; right actions earn 1.

    Beside the cue, two windows with the same actions are alike: whoever forgets it cannot tell them apart.
    """
    sequences = torch.tensor(list(itertools.product((0, 1), repeat=steps)))
    action = sequences.repeat(2, 1)
    cue = torch.tensor([0, 1]).repeat_interleave(len(sequences))
    rows = len(cue)
    observation = torch.zeros(rows, steps + 1, 2)
    observation[torch.arange(rows), 0, cue] = 1
    right = (action == cue.unsqueeze(-1)).float()
    right[:, 0] = 0
    terminated = torch.zeros(rows, steps, dtype=torch.bool)
    terminated[:, -1] = True
    batch = types.SimpleNamespace(
        observation={"observation": observation},
        previous_action=torch.zeros(rows, steps + 1, dtype=torch.int64),
        previous_reward=torch.zeros(rows, steps + 1),
        time=torch.arange(steps + 1).expand(rows, -1).int(),
        action=action,
        reward=right,
        terminated=terminated,
        truncated=torch.zeros_like(terminated),
        mask=torch.ones(rows, steps, dtype=torch.bool),
        task=torch.zeros(rows, dtype=torch.int32),
    )
    return batch, cue


@pytest.mark.parametrize("memory", ["transformer", "gru", "set"])
def test_a_tiny_agent_remembers_what_it_needs(memory):
    steps = 4
    batch, cue = recall_batch(steps)
    # With discounts of 0 and bins at 0 and 1 the critic's label is the reward of the step itself.
    config = AgentConfig(
        width=16,
        memory=memory,
        layers=1,
        heads=2,
        feed_forward=32,
        dropout=0.0,
        context=steps,
        encoder_hidden=16,
        encoder_layers=1,
        head_hidden=32,
        head_layers=1,
        critics=2,
        training_discounts=(),
        discount=0.0,
        bins=ValueBins(0.0, 1.0, 2, "linear"),
    )
    torch.manual_seed(0)
    objective = ObjectiveConfig(reward_multiplier=1.0, action_samples=0, target_action_samples=0)
    learner = Learner(
        AgentNetworks(config, flat(2), Discrete(2)), objective, OptimizerConfig(learning_rate=1e-2, warmup_updates=20)
    )
    # Behind the first step the reward is a fair coin to whoever forgets the cue: ln 2 for each such step.
    bound = math.log(2) * (steps - 1) / steps
    losses = [learner.step(batch)[0] for _ in range(200)]
    assert losses[0].critic > 0.9 * bound
    assert losses[-1].critic < 0.05 * bound
    policy = freeze(learner.agent)
    state = policy.initial_state(len(cue))
    for t in range(steps):
        action = policy.act(
            state,
            {"observation": batch.observation["observation"][:, t]},
            batch.previous_action[:, t],
            batch.previous_reward[:, t],
            greedy=True,
        )
        if t > 0:
            assert torch.equal(action, cue)
    # The filter accepts the right actions, and no others.
    later = torch.arange(steps) > 0
    assert torch.equal(losses[-1].filter_weight[:, later, 0], batch.reward[:, later])


def test_a_learner_goes_on_from_its_state():
    ours, theirs = make_learner(), make_learner(seed=1)
    for _ in range(2):
        ours.step(make_batch())
    theirs.agent.load_state_dict(ours.agent.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert theirs.updates == 2
    for learner in (ours, theirs):
        torch.manual_seed(0)  # of dropout
        learner.step(make_batch(2))
    for name, value in ours.agent.state_dict().items():
        torch.testing.assert_close(theirs.agent.state_dict()[name], value, rtol=0, atol=0)


def test_the_state_of_another_learner_is_refused():
    learner = make_learner()
    learner.step(make_batch())
    state = learner.state_dict()
    with pytest.raises(ValueError, match=r"parameter 99: there are \d+"):
        learner.load_state_dict({**state, "moments": {"99.step": torch.zeros(())}})
    with pytest.raises(ValueError, match=r"tensor 'exp_avg': expected \[.*\] of torch.float32, got \[0\]"):
        learner.load_state_dict({**state, "moments": {**state["moments"], "0.exp_avg": torch.zeros(0)}})


def test_names_of_0_1_warn_and_work():
    learner, batch = make_learner(), make_batch()
    with pytest.warns(DeprecationWarning, match=r"AgentNetworks\.trained_parameters is now trainable_parameters; 0\.3"):
        assert learner.agent.trained_parameters() == learner.parameters
    with pytest.warns(DeprecationWarning, match=r"Learner\.pieces is now microbatches; 0\.3 drops the old name"):
        assert learner.pieces(batch) == learner.microbatches(batch)


def test_a_small_update_leaves_torch_one_thread_and_changes_no_bit():
    found, during = [], []
    for threads in (1, 2, 3):
        learner = make_learner(width=32)
        losses = learner._losses

        def look(*given, losses=losses):
            during.append(torch.get_num_threads())
            return losses(*given)

        learner._losses = look
        torch.set_num_threads(threads)
        for seed in range(3):
            learner.step(make_batch(seed))
        assert torch.get_num_threads() == threads
        torch.set_num_threads(1)
        found.append(learner.agent.state_dict())
    assert during == 9 * [1]
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


def test_large_updates_and_those_that_are_compiled_keep_the_threads_of_torch():
    small = make_learner()
    assert small._numbers([make_batch()]) == 6 * 6 * 32  # critics x hidden units of all steps
    many = [make_batch()] * 40  # which go through the memory together
    assert small._numbers(many) == 40 * many[0].time.numel() * CONFIG.width
    images = make_batch()
    images.observation["image"] = torch.zeros(6, 6, 64, 64, 3, dtype=torch.uint8)
    assert small._numbers([images]) > ONE_THREAD_NUMBERS
    small.config = dataclasses.replace(OPTIMIZER, compile=True)
    assert small._numbers([make_batch()]) > ONE_THREAD_NUMBERS
    small.config, small.agent.config = OPTIMIZER, dataclasses.replace(CONFIG, timestep_encoder="of a user")
    assert small._numbers([make_batch()]) > ONE_THREAD_NUMBERS


class Frozen(torch.nn.Module):
    """A module that stays in eval mode, with what is in it."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Dropout(0.5)
        self.train()

    def train(self, mode=True):
        return super().train(False)


def test_modules_are_in_training_mode_during_a_step_alone():
    learner = make_learner()
    learner.agent.actor.extra = Frozen()
    learner = Learner(learner.agent, OBJECTIVE, OPTIMIZER)
    seen, losses = [], learner._losses

    def look(*given):
        seen.append({name: module.training for name, module in learner.agent.named_modules()})
        return losses(*given)

    learner._losses = look
    learner.step(make_batch())
    assert not any(module.training for module in learner.agent.modules())
    expected = {name: "extra" not in name for name, _ in learner.agent.named_modules()}
    assert seen == [expected]
