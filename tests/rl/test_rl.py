"""Targets, filtered imitation and PopArt, against double loops over their formulas in float64."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_accurate
from twohot.rl import advantages
from twohot.rl.advantages import (
    FILTERS,
    binary_filter,
    exponential_filter,
    filtered_behavior_cloning,
    leaky_ramp_filter,
    masked_mean,
    no_filter,
)
from twohot.rl.popart import PopArt, preserve_outputs, update_moments
from twohot.rl.returns import td_targets

NAN, INFINITY = math.nan, math.inf
FLAGS = ("terminated_t", "truncated_t", "mask")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# Targets


def target_by_loop(r, gamma, v, terminated, truncated, mask, n):
    """y_t of one window and one discount, from lists of L numbers; v[t] is the value behind step t."""
    length, result = len(r), []
    for t in range(length):
        if not mask[t]:
            result.append(0.0)
            continue
        y = 0.0
        for i in range(n):
            y += gamma**i * r[t + i]
            if terminated[t + i]:
                break
            if i + 1 == n or truncated[t + i] or t + i + 1 == length or not mask[t + i + 1]:
                y += gamma ** (i + 1) * v[t + i]
                break
        result.append(y)
    return result


def targets_by_loop(r_t, discount, v_tp1, terminated_t, truncated_t, mask, n):
    """The same over all windows [B, L] and discounts [G]."""
    rows = [
        [
            target_by_loop(
                r_t[b].tolist(),
                gamma,
                v_tp1[b, :, g].tolist(),
                terminated_t[b].tolist(),
                truncated_t[b].tolist(),
                mask[b].tolist(),
                n,
            )
            for g, gamma in enumerate(discount.tolist())
        ]
        for b in range(len(r_t))
    ]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(r_t), len(discount), -1).transpose(1, 2)


@st.composite
def windows(draw, steps=12):
    """Arguments of td_targets for [B, L, G]; masks end anywhere or have holes, flags lie anywhere."""
    rows, length, discounts = draw(st.integers(1, 3)), draw(st.integers(0, steps)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def flags(probability):
        return torch.rand(rows, length, generator=generator) < probability

    if draw(st.booleans()):
        mask = torch.arange(length) < torch.randint(length + 1, (rows, 1), generator=generator)
    else:
        mask = flags(draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])))
    return {
        "r_t": torch.randn(rows, length, generator=generator, dtype=torch.float64),
        "discount": torch.rand(discounts, generator=generator, dtype=torch.float64),
        "v_tp1": torch.randn(rows, length, discounts, generator=generator, dtype=torch.float64),
        "terminated_t": flags(draw(st.sampled_from([0.0, 0.1, 0.5]))),
        "truncated_t": flags(draw(st.sampled_from([0.0, 0.1, 0.5]))),
        "mask": mask,
        "n": draw(st.integers(1, steps + 2)),
    }


@settings(deadline=None, max_examples=300)
@given(windows())
def test_targets_equal_the_double_loop(window):
    actual = td_targets(**window)
    assert_accurate(actual, targets_by_loop(**window), floor=32)


@settings(deadline=None, max_examples=100)
@given(windows())
def test_targets_read_nothing_where_nothing_is_to_read(window):
    spoilt = dict(window)
    real, ended = window["mask"], window["terminated_t"]
    spoilt["r_t"] = window["r_t"].masked_fill(~real, NAN)
    spoilt["v_tp1"] = window["v_tp1"].masked_fill((~real | ended).unsqueeze(-1), NAN)
    for name in ("terminated_t", "truncated_t"):
        spoilt[name] = torch.where(real, window[name], ~window[name])
    inputs = ("r_t", "discount", "v_tp1")
    results = []
    for arguments in (window, spoilt):
        leaves = {name: arguments[name].clone().requires_grad_() for name in inputs}
        y_t = td_targets(**{**arguments, **leaves})
        results.append((y_t.detach(), *torch.autograd.grad(y_t.square().sum(), list(leaves.values()))))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
    assert results[1][0][~real].eq(0).all()


@settings(deadline=None, max_examples=50)
@given(windows())
def test_a_number_as_discount_is_one_of_many(window):
    for g, gamma in enumerate(window["discount"]):
        one = {**window, "v_tp1": window["v_tp1"][..., g]}
        expected = td_targets(**window)[..., g]
        for discount in (float(gamma), gamma):
            assert torch.equal(td_targets(**{**one, "discount": discount}), expected)


@pytest.mark.parametrize("n", [1, 3])
def test_any_leading_shape_is_a_batch_of_windows(n):
    shape, length = (2, 3), 5
    discount = torch.tensor([0.5, 0.9], dtype=torch.float64)
    r_t, v_tp1 = normal(*shape, length), normal(*shape, length, 2, seed=1)
    terminated_t, truncated_t, mask = (normal(*shape, length, seed=2 + i) > 0.8 * (-1) ** (i // 2) for i in range(3))
    many = td_targets(r_t, discount, v_tp1, terminated_t, truncated_t=truncated_t, mask=mask, n=n)
    for i in range(2):
        for j in range(3):
            one = (r_t[i, j], discount, v_tp1[i, j], terminated_t[i, j])
            single = td_targets(*one, truncated_t=truncated_t[i, j], mask=mask[i, j], n=n)
            assert single.shape == (length, 2)
            assert torch.equal(many[i, j], single)
    columns = torch.arange(length).flip(0)
    backward = (r_t[..., columns].flip(-1), discount, v_tp1[..., columns, :].flip(-2), terminated_t)
    assert torch.equal(td_targets(*backward, truncated_t=truncated_t, mask=mask, n=n), many)


def test_targets_by_hand():
    # r = 1, 2, 4, 8; v = 100 behind each step; gamma = 1/2 and 0.
    r_t = torch.tensor([1.0, 2.0, 4.0, 8.0])
    v_tp1 = torch.full((4, 2), 100.0)
    discount, nowhere = torch.tensor([0.5, 0.0]), torch.zeros(4, dtype=torch.bool)
    second = torch.tensor([False, True, False, False])
    open_end = td_targets(r_t, discount, v_tp1, nowhere, n=2)
    assert open_end.tolist() == [[1 + 1 + 25, 1], [2 + 2 + 25, 2], [4 + 4 + 25, 4], [8 + 50, 8]]
    terminated = td_targets(r_t, discount, v_tp1, second, n=2)
    assert terminated.tolist() == [[1 + 1, 1], [2, 2], [4 + 4 + 25, 4], [8 + 50, 8]]
    truncated = td_targets(r_t, discount, v_tp1, nowhere, truncated_t=second, n=2)
    assert truncated.tolist() == [[1 + 1 + 25, 1], [2 + 50, 2], [4 + 4 + 25, 4], [8 + 50, 8]]
    both = td_targets(r_t, discount, v_tp1, second, truncated_t=second, n=2)
    assert torch.equal(both, terminated)
    two_steps = td_targets(r_t, discount, v_tp1, nowhere, mask=torch.tensor([True, True, False, False]), n=4)
    assert two_steps.tolist() == [[1 + 1 + 25, 1], [2 + 50, 2], [0, 0], [0, 0]]
    monte_carlo = td_targets(r_t, 1.0, torch.full((4,), NAN), torch.tensor([False, False, False, True]), n=99)
    assert monte_carlo.tolist() == [15, 14, 12, 8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_step_targets_have_the_bits_of_the_formula(dtype):
    rows, length = 7, 33
    r_t, v_tp1 = 1e3 * normal(rows, length, dtype=dtype), 1e4 * normal(rows, length, 3, seed=1, dtype=dtype)
    discount = torch.tensor([0.1, 0.99, 0.999])
    terminated_t = normal(rows, length, seed=2) > 1
    formula = r_t.unsqueeze(-1) + torch.where(terminated_t.unsqueeze(-1), 0, discount * v_tp1)
    for truncated_t in (None, normal(rows, length, seed=3) > 1):
        assert torch.equal(td_targets(r_t, discount, v_tp1, terminated_t, truncated_t=truncated_t), formula)


def test_targets_of_half_precision_values_are_float32():
    window = (normal(2, 6), torch.tensor([0.9, 0.99]), normal(2, 6, 2, seed=1), torch.zeros(2, 6, dtype=torch.bool))
    half = [x.to(torch.bfloat16) if x.is_floating_point() and x.dim() > 1 else x for x in window]
    wide = [x.to(torch.float32) if x.is_floating_point() else x for x in half]
    assert td_targets(*half, n=3).dtype == torch.float32
    assert torch.equal(td_targets(*half, n=3), td_targets(*wide, n=3))
    assert td_targets(half[0], half[1].double(), half[2].float(), half[3]).dtype == torch.float32
    assert td_targets(half[0], half[1], half[2].double(), half[3]).dtype == torch.float64


def test_targets_change_no_input():
    mask = torch.tensor([[True, True, False]])
    inputs = [normal(1, 3), torch.tensor([0.5]), normal(1, 3, 1), ~mask & mask, mask.clone(), mask.clone()]
    copies = [x.clone() for x in inputs]
    td_targets(*inputs[:4], truncated_t=inputs[4], mask=inputs[5], n=3)
    td_targets(*inputs[:4], n=3)
    for x, copy in zip(inputs, copies, strict=True):
        assert torch.equal(x, copy)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_targets_pass_gradcheck(n):
    flags = [normal(2, 4, seed=2 + i) > 1 for i in range(2)]
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    leaves = [normal(2, 4), torch.tensor([0.5, 0.9], dtype=torch.float64), normal(2, 4, 2, seed=1)]
    leaves = [x.requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(
        lambda r_t, discount, v_tp1: td_targets(r_t, discount, v_tp1, flags[0], truncated_t=flags[1], mask=mask, n=n),
        leaves,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_t": torch.zeros(2, 3, dtype=torch.int64)}, "floating point r_t, got torch.int64"),
        ({"v_tp1": torch.zeros(2, 3, 2, dtype=torch.int64)}, "floating point v_tp1"),
        ({"v_tp1": torch.zeros(2, 3)}, r"v_tp1 of shape \(2, 3, 2\).*got \(2, 3\)"),
        ({"v_tp1": torch.zeros(2, 4, 2)}, r"v_tp1 of shape \(2, 3, 2\)"),
        ({"discount": 0.9}, r"v_tp1 of shape \(2, 3\).*got \(2, 3, 2\)"),
        ({"discount": torch.ones(2, 2)}, r"\[G\].*\(2, 2\)"),
        ({"r_t": torch.tensor(1.0), "discount": 0.9, "v_tp1": torch.tensor(1.0)}, r"r_t \[\.\.\., L\]"),
        *[({name: torch.zeros(2, 3)}, f"bool {name}.*float32") for name in FLAGS],
        *[({name: torch.zeros(2, 1, dtype=torch.bool)}, rf"bool {name}.*\(2, 1\)") for name in FLAGS],
        *[({name: torch.zeros(2, 3, dtype=torch.bool, device="meta")}, f"{name} on cpu.*on meta") for name in FLAGS],
        ({"discount": torch.ones(2, device="meta")}, "discount on cpu.*on meta"),
        ({"discount": NAN, "v_tp1": torch.zeros(2, 3)}, r"discount in \[0, 1\].*nan"),
        ({"discount": 1.1, "v_tp1": torch.zeros(2, 3)}, r"discount in \[0, 1\].*1\.1"),
        ({"n": 0}, "at least 1, got 0"),
        ({"n": 2.5}, "at least 1, got 2.5"),
    ],
)
def test_targets_say_what_is_wrong(change, message):
    right = {
        "r_t": torch.zeros(2, 3),
        "discount": torch.tensor([0.5, 0.9]),
        "v_tp1": torch.zeros(2, 3, 2),
        "terminated_t": torch.zeros(2, 3, dtype=torch.bool),
    }
    td_targets(**right)
    with pytest.raises(ValueError, match=f"td_targets: expected .*{message}"):
        td_targets(**{**right, **change})


# Filters


def leaky_ramp(a, width=2.0, hinge=0.01, leak=0.05, at_zero=0.01, minimum=0.0, maximum=10.0):
    below = at_zero + leak * min(a, hinge) / width
    return min(max(below + (a - hinge) / width if a > hinge else below, minimum), maximum)


BY_NUMBER = {
    "binary": lambda a: float(a > 0),
    "exponential": lambda a: math.exp(a) if a < math.log(20) else 20.0,
    "leaky_ramp": leaky_ramp,
    "none": lambda a: 1.0,
}
ADVANTAGES = [-1e30, -100.0, -0.41, -0.39, -0.01, -1e-30, 0.0, 1e-30, 0.01, 0.02, 1.0, 2.99, 3.0, 19.9, 21.0, 1e30]


@pytest.mark.parametrize("name", FILTERS)
def test_filters_equal_their_formulas(name):
    a = torch.tensor(ADVANTAGES, dtype=torch.float64)
    weight = FILTERS[name](a)
    assert_accurate(weight, torch.tensor([BY_NUMBER[name](x) for x in ADVANTAGES], dtype=torch.float64))
    assert (weight >= 0).all()
    assert weight.isfinite().all()
    assert FILTERS[name](a.float()).dtype == torch.float32


def test_constants_of_filters():
    a = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    truth = torch.tensor([math.exp(-3), math.exp(1.5), 5.0], dtype=torch.float64)
    assert_accurate(exponential_filter(a, beta=3.0, maximum=5.0), truth)
    ramp = {"width": 4.0, "hinge": 0.25, "leak": 0.1, "at_zero": 0.05, "minimum": 0.02, "maximum": 0.4}
    truth = torch.tensor([leaky_ramp(x, **ramp) for x in (-1.0, 0.2, 1.0, 9.0)], dtype=torch.float64)
    assert truth.tolist() == pytest.approx([0.025, 0.055, 0.05 + 0.00625 + 0.1875, 0.4])
    assert_accurate(leaky_ramp_filter(torch.tensor([-1.0, 0.2, 1.0, 9.0], dtype=torch.float64), **ramp), truth)


@pytest.mark.parametrize(
    ("filter", "constants"),
    [
        (exponential_filter, {"beta": -1.0}),
        (exponential_filter, {"beta": NAN}),
        (exponential_filter, {"maximum": 0.0}),
        (leaky_ramp_filter, {"width": 0.0}),
        (leaky_ramp_filter, {"minimum": 2.0, "maximum": 1.0}),
    ],
)
def test_constants_of_filters_have_ranges(filter, constants):
    with pytest.raises(ValueError, match=f"{filter.__name__}: expected"):
        filter(torch.zeros(3), **constants)


def test_filters_of_infinite_and_missing_advantages():
    a = torch.tensor([-INFINITY, INFINITY])
    expected = {"binary": [0, 1], "exponential": [0, 20], "leaky_ramp": [0, 10], "none": [1, 1]}
    for name, weights in expected.items():
        assert FILTERS[name](a).tolist() == weights
    missing = {name: float(function(torch.tensor([NAN]))) for name, function in FILTERS.items()}
    assert missing["binary"] == 0
    assert missing["none"] == 1
    assert math.isnan(missing["exponential"])
    assert math.isnan(missing["leaky_ramp"])


# Filtered behaviour cloning


def cloning_by_loop(log_prob, advantage, filter, mask):
    """Loss and gradient over lists; rows of mask [M] cover log_prob [M, G]."""
    count = sum(mask) * len(log_prob[0])
    loss, gradient = 0.0, []
    for row, counts in enumerate(mask):
        gradient.append([0.0] * len(log_prob[row]))
        for g, log_pi in enumerate(log_prob[row]):
            if counts and filter(advantage[row][g]) != 0:
                loss -= filter(advantage[row][g]) * log_pi / count
                gradient[row][g] = -filter(advantage[row][g]) / count
    return loss, gradient


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(FILTERS)),
    st.lists(st.tuples(st.booleans(), *[st.floats(-3, 30)] * 2, *[st.floats(-20, 5)] * 2), min_size=1, max_size=9),
    st.sampled_from([NAN, INFINITY, -INFINITY]),
)
def test_cloning_equals_the_loop_and_does_not_read_what_is_masked(name, rows, garbage):
    mask = torch.tensor([row[0] for row in rows])
    advantage = torch.tensor([row[1:3] for row in rows], dtype=torch.float64)
    log_prob = torch.tensor([row[3:5] for row in rows], dtype=torch.float64)
    loss, gradient = cloning_by_loop(log_prob.tolist(), advantage.tolist(), BY_NUMBER[name], mask.tolist())
    hidden = ~mask.unsqueeze(-1)
    for fill in (None, garbage):
        a = advantage if fill is None else advantage.masked_fill(hidden, fill)
        x = (log_prob if fill is None else log_prob.masked_fill(hidden, fill)).requires_grad_()
        actual = filtered_behavior_cloning(x, a, name, mask)
        assert_accurate(actual, torch.tensor(loss, dtype=torch.float64), floor=64)
        (actual,) = torch.autograd.grad(actual, x)
        assert_accurate(actual, torch.tensor(gradient, dtype=torch.float64), floor=16)


@pytest.mark.parametrize("log_pi", [-INFINITY, NAN])
def test_a_rejected_action_contributes_nothing_whatever_its_probability(log_pi):
    advantage = torch.tensor([-1.0, 1.0, 0.0])
    log_prob = torch.tensor([log_pi, -2.0, log_pi], requires_grad=True)
    loss = filtered_behavior_cloning(log_prob, advantage)
    loss.backward()
    assert loss.item() == pytest.approx(2 / 3)
    assert log_prob.grad.tolist() == pytest.approx([0, -1 / 3, 0])
    ramp = filtered_behavior_cloning(log_prob, torch.tensor([-1.0, 2.0, -9.0]), "leaky_ramp")
    assert ramp.isfinite()
    # Where the action is accepted, an impossible one is infinitely bad.
    assert filtered_behavior_cloning(torch.tensor([-INFINITY, -2.0]), torch.ones(2)).item() == INFINITY


def test_a_rejected_action_without_probability_leaves_the_logits_a_gradient():
    logits = torch.tensor([[0.0, -INFINITY, 1.0], [0.5, 0.2, 0.1]], requires_grad=True)
    log_prob = logits.log_softmax(-1)[torch.arange(2), torch.tensor([1, 2])]
    filtered_behavior_cloning(log_prob, torch.tensor([-1.0, 1.0])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0].eq(0).all()
    assert logits.grad[1, 2] < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_cloning_has_the_bits_of_the_formula(dtype):
    log_prob, advantage = -normal(6, 31, 3, dtype=dtype).abs(), normal(6, 31, 3, seed=1, dtype=dtype)
    mask = normal(6, 31, seed=2) > -1
    results = []
    for product in (False, True):
        x = log_prob.clone().requires_grad_()
        if product:
            loss = masked_mean(-(advantage > 0).to(dtype) * x, mask)
        else:
            loss = filtered_behavior_cloning(x, advantage, binary_filter, mask)
        (3 * loss).backward()
        results.append((loss.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_cloning_takes_names_functions_and_constants():
    log_prob, advantage = normal(3, 4), normal(3, 4, seed=1)
    for name, function in FILTERS.items():
        by_name = filtered_behavior_cloning(log_prob, advantage, name)
        assert torch.equal(by_name, filtered_behavior_cloning(log_prob, advantage, function))
    assert torch.equal(filtered_behavior_cloning(log_prob, advantage), -(log_prob * (advantage > 0)).mean())
    strict = filtered_behavior_cloning(log_prob, advantage, partial(exponential_filter, beta=2.0, maximum=1.0))
    truth = -((2 * advantage).exp().clamp(max=1) * log_prob).mean()
    assert_accurate(strict, truth)
    boolean = filtered_behavior_cloning(log_prob, advantage, lambda a: a > 0)
    assert torch.equal(boolean, filtered_behavior_cloning(log_prob, advantage, "binary"))
    plain = filtered_behavior_cloning(log_prob, torch.full_like(log_prob, NAN), no_filter)
    assert_accurate(plain, -log_prob.mean())


def test_no_gradient_flows_into_the_advantage():
    log_prob, advantage = normal(5).requires_grad_(), normal(5, seed=1).requires_grad_()
    filtered_behavior_cloning(log_prob, advantage, "exponential").backward()
    assert log_prob.grad is not None
    assert advantage.grad is None
    assert torch.autograd.gradcheck(
        lambda x: filtered_behavior_cloning(x, advantage.detach(), "exponential"), log_prob.detach().requires_grad_()
    )


def test_cloning_without_a_step_is_zero_and_has_no_gradient():
    log_prob = torch.full((2, 3, 2), NAN, requires_grad=True)
    loss = filtered_behavior_cloning(log_prob, log_prob.detach(), "exponential", torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert log_prob.grad.eq(0).all()
    assert filtered_behavior_cloning(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0


def test_half_precision_cloning_is_computed_in_float32():
    log_prob = -normal(40, 50).abs().to(torch.bfloat16)
    advantage = normal(40, 50, seed=1).to(torch.bfloat16)
    loss = filtered_behavior_cloning(log_prob, advantage, "exponential")
    assert loss.dtype == torch.float32
    assert torch.equal(loss, filtered_behavior_cloning(log_prob.float(), advantage.float(), "exponential"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantage_filter": "Binary"}, r"filter among \['binary', 'exponential', 'leaky_ramp', 'none'\].*'Binary'"),
        ({"log_prob": torch.zeros(2, 3, 2, dtype=torch.int64)}, "floating point log_prob, got torch.int64"),
        ({"advantage": torch.zeros(2, 3, 1)}, r"advantage of the shape .*\(2, 3, 2\), got \(2, 3, 1\)"),
        ({"mask": torch.ones(2, 3)}, "bool mask.*float32"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"bool mask.*\(3,\)"),
        ({"mask": torch.ones(2, 3, 2, 1, dtype=torch.bool)}, r"bool mask.*\(2, 3, 2, 1\)"),
        ({"mask": torch.ones(2, 3, dtype=torch.bool, device="meta")}, "mask on cpu.*on meta"),
        ({"advantage": torch.zeros(2, 3, 2, device="meta")}, "advantage on cpu.*on meta"),
        ({"advantage_filter": 3}, "filter among .* or a function, got 3"),
        ({"advantage_filter": lambda a: a.to("meta")}, "weights on cpu.*on meta"),
        ({"advantage_filter": lambda a: a.sum()}, r"weights of the shape .* from the filter, got \(\)"),
    ],
)
def test_cloning_says_what_is_wrong(change, message):
    right = {"log_prob": torch.zeros(2, 3, 2), "advantage": torch.zeros(2, 3, 2)}
    filtered_behavior_cloning(**right, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=f"filtered_behavior_cloning: expected .*{message}"):
        filtered_behavior_cloning(**{**right, **change})


def test_masked_mean_by_hand():
    x = torch.tensor([[1.0, NAN], [3.0, 5.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    mean = masked_mean(x, mask)
    assert mean.item() == 3
    mean.backward()
    assert x.grad.tolist() == [pytest.approx([1 / 3, 0]), pytest.approx([1 / 3, 1 / 3])]
    wide = torch.stack((torch.ones(2, 2), 3 * torch.ones(2, 2)), -1)
    assert masked_mean(wide, mask).item() == 2
    assert masked_mean(x.detach(), torch.zeros_like(mask)).item() == 0


def test_every_filter_has_a_name():
    functions = {name for name in vars(advantages) if name.endswith("_filter")}
    assert {function.__name__ for function in FILTERS.values()} == functions


# PopArt

BETA = 0.2


def moments_by_loop(batches, beta=BETA, initial_variance=100.0):
    """Mean and variance [G] of a mixture: each batch [M, G] weighs (1 - beta) times the next one.

    The initial statistics are the first batch, with mean 0.
    """
    discounts = batches[0].shape[1]
    weights = [(1 - beta) ** (len(batches) - i) for i in range(len(batches) + 1)]
    result = []
    for g in range(discounts):
        means, squares = [0.0], [initial_variance]
        for batch in batches:
            column = batch[:, g].tolist()
            means.append(sum(column) / len(column))
            squares.append(sum(y * y for y in column) / len(column))
        mean = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
        square = sum(w * s for w, s in zip(weights, squares, strict=True)) / sum(weights)
        result.append((mean, square - mean * mean))
    return torch.tensor(result, dtype=torch.float64).T


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 2**31))
def test_statistics_are_those_of_a_weighted_mixture(sizes, discounts, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [5 + 3 * torch.randn(size, discounts, generator=generator, dtype=torch.float64) for size in sizes]
    popart = PopArt(discounts, beta=BETA)
    for batch in batches:
        popart.update(batch)
    mean, variance = moments_by_loop(batches)
    assert_accurate(popart.mean, mean, floor=64)
    assert_accurate(popart.variance, variance, floor=1024)
    assert popart.batches.item() == len(sizes) + 1


def test_the_settings_of_the_method():
    popart = PopArt(7)
    assert popart.beta == 5e-4
    assert popart.mean.tolist() == [0] * 7
    assert popart.deviation.tolist() == [10] * 7
    batches = [normal(4, 7, seed=i) * 10.0 ** torch.arange(-3, 4) for i in range(30)]
    for batch in batches:
        popart.update(batch.float())
    mean, variance = moments_by_loop([batch.float().double() for batch in batches], beta=5e-4)
    assert_accurate(popart.mean, mean, floor=64)
    assert_accurate(popart.variance, variance, floor=1024)


def test_at_the_first_batch_the_old_statistics_may_count_for_nothing():
    targets = normal(9, 2)
    mean, variance = update_moments(torch.full((2,), 1e3).double(), torch.ones(2).double(), 1, targets, 5e-4)
    assert_accurate(mean, targets.mean(0), floor=1e4)
    assert_accurate(variance, targets.var(0, correction=0), floor=1e7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 0.05)])
def test_a_large_mean_does_not_drown_the_variance(dtype, tolerance):
    # The deviation is 1. In float32, mu^2 = 1e12 is known to 3e4, and a target to 0.03.
    popart = PopArt(2, beta=BETA, initial_variance=1.0, dtype=dtype)
    popart.mean.fill_(1e6)
    batches = [normal(64, 2, seed=i).round(decimals=1) for i in range(5)]
    for batch in batches:
        popart.update(1e6 + batch)
    _, variance = moments_by_loop(batches, initial_variance=1.0)
    assert popart.variance.tolist() == pytest.approx(variance.tolist(), rel=tolerance)


def test_float64_statistics_follow_a_slow_mean():
    # Each step moves the mean by 5e-4 x 1, less than half a unit in the last place of float32 at 1e5.
    popart = PopArt()
    popart.mean.fill_(1e5)
    popart.batches.fill_(1_000_000)
    for _ in range(2000):
        popart.update(torch.tensor([1e5 + 1]))
    assert popart.mean.item() - 1e5 == pytest.approx(1 - (1 - 5e-4) ** 2000, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_normalize_and_denormalize_are_inverse(dtype):
    popart = PopArt(3, beta=BETA)
    popart.update(normal(50, 3) * torch.tensor([1e-2, 1.0, 1e4]) + torch.tensor([0.0, -5.0, 1e5]))
    mean, deviation = popart.mean, popart.variance.sqrt()
    x = (mean + deviation * normal(2, 4, 3, seed=1)).to(dtype)
    normal_x = popart.normalize(x)
    wide = torch.promote_types(dtype, torch.float32)
    assert normal_x.dtype == wide
    assert_accurate(normal_x, (x.double() - mean) / deviation)
    back = popart.denormalize(normal_x)
    assert back.dtype == wide
    assert_accurate(back, normal_x.double() * deviation + mean)
    assert_accurate(back, x.double(), floor=4 + 4 * (deviation / mean.abs().clamp(min=1)).max().item())


def test_normalisation_passes_gradcheck():
    popart = PopArt(3, beta=BETA)
    popart.update(normal(50, 3))
    x = normal(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(popart.normalize, x)
    assert torch.autograd.gradcheck(popart.denormalize, x)


def test_the_deviation_keeps_its_bounds():
    popart = PopArt(3, beta=BETA)
    popart.variance.copy_(torch.tensor([0.0, 4.0, 1e20]))
    assert popart.deviation.tolist() == [1e-4, 2, 1e6]
    wide = PopArt(3, minimum_deviation=0.5, maximum_deviation=1.5)
    wide.variance.copy_(popart.variance)
    assert wide.deviation.tolist() == [0.5, 1.5, 1.5]
    constant = PopArt(1, beta=0.9)
    for _ in range(60):
        constant.update(torch.full((5, 1), 7.0))
    assert constant.deviation.item() == 1e-4
    assert constant.normalize(torch.tensor([7.0])).abs().item() < 1e-9


def heads_of_every_kind(discounts, dtype=torch.float64):
    """Layers [G, E], ensembles [C, G, E], and factors [G] behind a layer of one output; with what they compute."""
    width, critics = 5, 4
    h = normal(3, width, seed=9, dtype=dtype)
    layer = (normal(discounts, width, dtype=dtype), normal(discounts, seed=1, dtype=dtype))
    ensemble = (normal(critics, discounts, width, seed=2, dtype=dtype), normal(critics, discounts, seed=3, dtype=dtype))
    factors = (1 + normal(discounts, seed=4, dtype=dtype), normal(discounts, seed=5, dtype=dtype))

    def outputs():
        return {
            "layer": h @ layer[0].T + layer[1],
            "ensemble": (torch.einsum("me,cge->cmg", h, ensemble[0]) + ensemble[1].unsqueeze(1)),
            "factors": h[:, :1] * factors[0] + factors[1],
        }

    return [layer, ensemble, factors], outputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_updates_preserve_outputs(dtype):
    discounts = 3
    popart = PopArt(discounts, beta=BETA)
    heads, outputs = heads_of_every_kind(discounts, dtype)
    first_normal = outputs()
    first = {name: popart.denormalize(x).double() for name, x in first_normal.items()}
    for i in range(20):
        scale = torch.tensor([0.1, 3.0, 200.0], dtype=torch.float64)
        popart.update(scale * normal(16, discounts, seed=100 + i) + scale, heads=heads)
    # Absolute errors grow with the scale that the outputs are now computed at.
    for name, x in outputs().items():
        assert x.dtype == dtype
        assert (popart.denormalize(x) - first[name]).abs().max() < 1e5 * torch.finfo(dtype).eps, name
        assert (x - first_normal[name]).abs().max() > 0.5, name


def test_preserve_outputs_by_hand():
    # 10 (2 h + 1) + 5 = 20 h + 15 = 4 (5 h + 4) - 1
    numbers = [torch.tensor([x]) for x in (5.0, 10.0, -1.0, 4.0)]
    weight, bias = preserve_outputs(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0]), *numbers)
    assert weight.tolist() == [[5, 0]]
    assert bias.tolist() == [4]
    scalars = [x.squeeze() for x in numbers]
    weight, bias = preserve_outputs(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0]), *scalars)
    assert weight.tolist() == [[5, 0]]
    weight, bias = preserve_outputs(torch.tensor([2.0]), torch.tensor([1.0]), *numbers)
    assert (weight.tolist(), bias.tolist()) == ([5], [4])


@pytest.mark.parametrize("clipped", ["minimum_deviation", "maximum_deviation"])
def test_outputs_are_preserved_at_the_bounds_of_the_deviation(clipped):
    popart = PopArt(2, beta=BETA, **{clipped: 3.0})
    popart.variance.fill_(9.0)
    heads, outputs = heads_of_every_kind(2)
    first = {name: popart.denormalize(x) for name, x in outputs().items()}
    for i in range(5):
        popart.update(20 * normal(8, 2, seed=i) + 4, heads=heads)
        popart.update(0.01 * normal(8, 2, seed=i), heads=heads)
    for name, x in outputs().items():
        assert_accurate(popart.denormalize(x), first[name], floor=1e3)


def test_trained_layers_are_rescaled_in_place():
    popart = PopArt(2, beta=BETA)
    layer = torch.nn.Linear(5, 2)
    parameters = list(layer.parameters())
    h = normal(3, 5, dtype=torch.float32)
    before = popart.denormalize(layer(h)).detach()
    popart.update(3 * normal(40, 2), heads=[(layer.weight, layer.bias)])
    assert all(a is b and a.requires_grad for a, b in zip(parameters, layer.parameters(), strict=True))
    assert_accurate(popart.denormalize(layer(h)), before.double(), floor=64)
    popart.normalize(layer(h)).sum().backward()
    assert layer.weight.grad is not None


def test_masked_targets_are_not_read():
    targets, mask = normal(4, 6, 3), normal(4, 6, seed=1) > 0
    clean, spoilt = PopArt(3), PopArt(3)
    clean.update(targets[mask])
    spoilt.update(targets.masked_fill(~mask.unsqueeze(-1), NAN), mask)
    for name, buffer in clean.state_dict().items():
        assert torch.equal(buffer, spoilt.state_dict()[name])


@pytest.mark.parametrize("kind", ["masked", "empty"])
def test_an_empty_batch_changes_nothing(kind):
    popart = PopArt(3)
    popart.update(normal(5, 3))
    heads, _ = heads_of_every_kind(3)
    before = {name: buffer.clone() for name, buffer in popart.state_dict().items()}
    weights = [x.clone() for head in heads for x in head]
    if kind == "masked":
        popart.update(torch.full((4, 6, 3), NAN), torch.zeros(4, 6, dtype=torch.bool), heads)
    else:
        popart.update(torch.zeros(0, 3), heads=heads)
    assert all(torch.equal(buffer, before[name]) for name, buffer in popart.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(weights, (x for head in heads for x in head), strict=True))


def test_one_value_needs_no_dimension_of_discounts():
    single, many = PopArt(beta=BETA), PopArt(1, beta=BETA)
    layer, copy = torch.nn.Linear(4, 1).double(), torch.nn.Linear(4, 1).double()
    copy.load_state_dict(layer.state_dict())
    for i in range(4):
        targets, mask = 3 + normal(5, 7, seed=i), normal(5, 7, seed=50 + i) > 0
        single.update(targets, mask, [(layer.weight, layer.bias)])
        many.update(targets.unsqueeze(-1), mask, [(copy.weight, copy.bias)])
    assert single.mean.shape == ()
    assert_accurate(single.mean, many.mean.squeeze(), floor=8)
    assert_accurate(single.deviation, many.deviation.squeeze(), floor=8)
    assert_accurate(layer.weight, copy.weight.detach(), floor=8)
    assert_accurate(layer.bias, copy.bias.detach(), floor=8)
    assert single.normalize(torch.zeros(5, 7)).shape == (5, 7)
    assert "discounts=None" in repr(single)
    assert "discounts=1" in repr(many)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_a_gpu_that_is_not_waited_for_counts_the_same_targets(monkeypatch, fraction):
    looking, blind = PopArt(3), PopArt(3)
    heads, others = heads_of_every_kind(3)[0], heads_of_every_kind(3)[0]
    for i in range(3):
        targets = 5 + 10 * normal(4, 6, 3, seed=i)
        mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(i)) < fraction
        targets[~mask] = NAN
        looking.update(targets, mask, heads)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "is_cpu", False)
            blind.update(targets, mask, others, check=False)
            if fraction == 1:
                blind.update(targets, None, others, check=False)
                looking.update(targets, None, heads)
    assert blind.batches == looking.batches
    assert_accurate(blind.mean, looking.mean, floor=64)
    assert_accurate(blind.variance, looking.variance, floor=1024)
    for head, other in zip(heads, others, strict=True):
        for x, y in zip(head, other, strict=True):
            assert_accurate(y, x, floor=1024)


def test_statistics_are_saved_and_continue():
    popart, other = PopArt(3), PopArt(3)
    for i in range(3):
        popart.update(normal(5, 3, seed=i))
    state = popart.state_dict()
    assert {name: x.dtype for name, x in state.items()} == {
        "mean": torch.float64,
        "variance": torch.float64,
        "batches": torch.int64,
    }
    other.load_state_dict(state)
    assert not list(popart.parameters())
    for module in (popart, other):
        module.update(normal(5, 3, seed=9))
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in popart.state_dict().items())


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_a_target_that_is_no_number_raises_and_changes_nothing(value):
    popart = PopArt(3)
    popart.update(normal(5, 3))
    heads, _ = heads_of_every_kind(3)
    before = {name: buffer.clone() for name, buffer in popart.state_dict().items()}
    weights = [x.clone() for head in heads for x in head]
    targets = normal(2, 4, 3)
    targets[1, 2, 0] = value
    with pytest.raises(ValueError, match="expected finite targets, got 1 of 24 that are NaN or infinite; mask"):
        popart.update(targets, heads=heads)
    assert all(torch.equal(buffer, before[name]) for name, buffer in popart.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(weights, (x for head in heads for x in head), strict=True))


@pytest.mark.parametrize(("dtype", "large"), [(torch.float64, 1e200), (torch.float64, -1.7e308), (torch.float32, 1e20)])
def test_targets_whose_squares_overflow_raise_and_change_nothing(dtype, large):
    popart = PopArt(dtype=dtype)
    with pytest.raises(ValueError, match=f"expected targets whose squares {dtype} holds, got up to "):
        popart.update(torch.tensor([large, 0.0], dtype=dtype))
    assert (popart.mean, popart.variance, popart.batches) == (0, 100, 1)


def zeros(*shape):
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((zeros(4, 2),), r"targets of shape \[\.\.\., 3\].*got \(4, 2\)"),
        ((torch.tensor(1.0),), r"targets of shape \[\.\.\., 3\].*got \(\)"),
        ((zeros(4, 3).long(),), "floating point targets, got torch.int64"),
        ((zeros(4, 3), zeros(4)), r"bool mask of shape \(4,\), got torch.float32"),
        ((zeros(4, 3), zeros(4, 3) > 0), r"bool mask of shape \(4,\), got torch.bool \(4, 3\)"),
        ((zeros(4, 3), None, [(zeros(3, 5), None)]), "a bias in every head"),
        ((zeros(4, 3), None, [(zeros(2, 5), zeros(2))]), r"a bias \[\.\.\., 3\].*got \(2,\) and \(2, 5\)"),
        ((zeros(4, 3), None, [(zeros(5, 3), zeros(3))]), r"got \(3,\) and \(5, 3\)"),
        ((zeros(4, 3), None, [(zeros(3, 5, 5), zeros(3))]), r"got \(3,\) and \(3, 5, 5\)"),
        ((zeros(4, 3), None, [(zeros(3), zeros(4, 3))]), r"got \(4, 3\) and \(3,\)"),
        ((zeros(4, 3).to("meta"),), "targets on cpu.*on meta"),
        ((zeros(4, 3), zeros(4).to("meta") > 0), "mask on cpu.*on meta"),
        ((zeros(4, 3), None, [(zeros(3, 5), zeros(3)), (zeros(3, 5).to("meta"), zeros(3))]), "weight .* on meta"),
        ((zeros(4, 3), None, [(zeros(3, 5), zeros(3).long())]), "floating point bias of a head, got torch.int64"),
        ((zeros(4, 3), None, [(zeros(1, 5).expand(3, 5), zeros(3))]), "weight of a head to write to"),
    ],
)
def test_popart_says_what_is_wrong(arguments, message):
    popart = PopArt(3)
    with pytest.raises(ValueError, match=f"PopArt.update: expected .*{message}"):
        popart.update(*arguments)
    assert popart.batches.item() == 1


@pytest.mark.parametrize("method", ["normalize", "denormalize"])
def test_normalisation_says_what_is_wrong(method):
    popart = PopArt(3)
    for x in (zeros(3, 1), zeros(3).long()):
        with pytest.raises(ValueError, match=rf"PopArt.{method}: expected"):
            getattr(popart, method)(x)


@pytest.mark.parametrize(
    "arguments",
    [
        {"discounts": 0},
        {"discounts": 2.5},
        {"dtype": torch.int64},
        {"minimum_deviation": INFINITY, "maximum_deviation": INFINITY},
        {"beta": 0.0},
        {"beta": 1.0},
        {"initial_variance": 0.0},
        {"initial_variance": NAN},
        {"minimum_deviation": 0.0},
        {"minimum_deviation": 2.0, "maximum_deviation": 1.0},
    ],
)
def test_impossible_settings_raise(arguments):
    with pytest.raises(ValueError, match="PopArt: expected"):
        PopArt(**arguments)


# the face


def test_everything_public_but_what_needs_gymnasium_is_in_the_face():
    from twohot import rl
    from twohot.rl import advantages, ensembles, popart, returns

    public = {
        name
        for module in (advantages, ensembles, popart, returns)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
    }
    assert {*rl.__all__} == public | {"FILTERS"}
    assert all(hasattr(rl, name) for name in rl.__all__)


def test_the_filter_goes_by_its_name_of_0_1_with_a_warning():
    log_prob, advantage = torch.tensor([-1.0, -2.0]), torch.tensor([0.5, -0.5])
    with pytest.warns(DeprecationWarning, match="the argument filter is now advantage_filter; 0.3 drops"):
        loss = filtered_behavior_cloning(log_prob, advantage, filter="none")
    assert torch.equal(loss, filtered_behavior_cloning(log_prob, advantage, advantage_filter="none"))
