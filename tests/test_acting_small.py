"""What acting does in other forms than training, because little is done at a time: each against the plain form."""

import copy
import threading

import numpy as np
import pytest
import torch
from gymnasium import spaces

from twohot.nets.actor import bounded_log_softmax
from twohot.nets.linear import MLP
from twohot.nets.packed import MOST_NUMBERS, PackedEncoder, PackedWeights, faster_in_numpy, steady_weights
from twohot.nets.policies import sample_actions
from twohot.nets.positions import MOST_KEPT, SinusoidalPositions
from twohot.nets.timestep import TimestepEncoder

VECTORS = spaces.Dict(
    {"b": spaces.Box(-9, 9, (2, 3), np.float32), "a": spaces.Box(0, 9, (4,), np.int32), "c": spaces.Box(0, 1, (1,))}
)
ACTIONS = {
    "choice": spaces.Discrete(5),
    "choices": spaces.MultiDiscrete([3, 2, 4]),
    "buttons": spaces.MultiBinary(6),
    "numbers": spaces.Box(-1, 1, (3,)),
}


pytestmark = pytest.mark.usefixtures("nothing_forced")


def encoder(space, **options):
    """A timestep encoder that has seen something."""
    torch.manual_seed(0)
    made = TimestepEncoder(VECTORS, space, 40, 2, 32, **options)
    if made.normalization is not None:
        made.normalization.mean.uniform_(-2, 2)
        made.normalization.variance.uniform_(0.01, 4)
    return made


def steps(space, rows, seed=0):
    """Observation, previous action, previous reward and time; the first row begins."""
    random = np.random.default_rng(seed)
    space.seed(seed)
    seen = {
        name: torch.from_numpy(random.integers(0, 9, (rows, *part.shape)).astype(part.dtype))
        for name, part in VECTORS.items()
    }
    action = torch.from_numpy(np.array([space.sample() for _ in range(rows)]))
    reward = torch.from_numpy(random.normal(0, 300, rows).astype(np.float32))
    return seen, action, reward, torch.arange(rows)


def layer_by_layer(module, seen, action, reward, time, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PackedEncoder, "fits", lambda *_: False)
        return module(seen, action, reward, time)


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"normalize": False}, {"previous_reward": False}, {"previous_action": False}],
    ids=["all", "as they are", "no reward", "no action"],
)
@torch.no_grad()
def test_a_step_of_vectors_is_one_native_call(space, options, mlp_calls, monkeypatch):
    module = encoder(space, **options)
    given = steps(space, 13)
    exact = copy.deepcopy(module).double()
    truth = layer_by_layer(exact, given[0], given[1], given[2].double(), given[3], monkeypatch)
    found = module(*given)
    assert [len(sizes) for sizes in mlp_calls] == [4]
    torch.testing.assert_close(found, truth.float(), rtol=2e-5, atol=2e-5)
    if options.get("previous_action", True):
        begun = module(*given[:3], torch.zeros_like(given[3]))
        assert torch.equal(begun[0], found[0])
        assert not torch.allclose(begun[1:], found[1:])


@torch.no_grad()
def test_a_step_after_changes_is_of_the_new_weights(monkeypatch):
    module = encoder(ACTIONS["choice"])
    given = steps(ACTIONS["choice"], 4)
    for change in (
        lambda: module.previous_action.table.add_(1),
        lambda: module.inputs.bias.add_(1),
        lambda: module.hidden[-1].weight.mul_(2),
        lambda: module.norm.weight.mul_(2),
        lambda: module.normalization.mean.add_(1),
    ):
        before = module(*given)
        change()
        torch.testing.assert_close(module(*given), layer_by_layer(module, *given, monkeypatch), rtol=2e-5, atol=2e-5)
        assert not torch.allclose(before, module(*given))


def test_a_window_and_a_gradient_go_layer_by_layer(mlp_calls):
    module = encoder(ACTIONS["choice"])
    seen, action, reward, time = steps(ACTIONS["choice"], 6)
    assert module(seen, action, reward, time).requires_grad
    assert not mlp_calls
    with torch.no_grad():
        window = {name: part[None] for name, part in seen.items()}
        module(window, action[None], reward[None], time[None])
    assert not mlp_calls


@torch.no_grad()
def test_positions_are_kept_in_a_table():
    positions = SinusoidalPositions(32)
    for times in ([0, 3], [], [200, 7, 64], [5, 1000], [MOST_KEPT - 1, 0], [MOST_KEPT, 1], [MOST_KEPT + 9]):
        time = torch.tensor(times, dtype=torch.int64)
        torch.testing.assert_close(positions.rows(time), positions(time), rtol=0, atol=2e-7)
    assert len(positions._kept) == MOST_KEPT


@torch.no_grad()
def test_probabilities_in_numpy_are_those_of_torch():
    torch.manual_seed(0)
    logits = 20 * torch.randn(40, 6)
    logits[0], logits[1] = 80.0 * torch.eye(6)[2], 0.0
    plain = bounded_log_softmax(logits.double(), None, 1e-3, 0.99)
    found = bounded_log_softmax(logits, None, 1e-3, 0.99)
    assert faster_in_numpy(logits)
    torch.testing.assert_close(found, plain.float(), rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32


@torch.no_grad()
def test_samples_in_numpy_are_those_of_torch(monkeypatch):
    log_pi = torch.randn(500, 7, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    log_pi[:, 3] = -torch.inf
    found = sample_actions(log_pi, torch.Generator().manual_seed(5))
    with monkeypatch.context() as patch:
        patch.setattr("twohot.nets.policies.faster_in_numpy", lambda _: False)
        plain = sample_actions(log_pi, torch.Generator().manual_seed(5))
    assert found.dtype == plain.dtype
    assert (found == plain).float().mean() > 0.99
    assert 3 not in found
    assert len(found.unique()) == 6


def test_numpy_is_for_little_without_gradient():
    few, many = torch.zeros(MOST_NUMBERS), torch.zeros(MOST_NUMBERS + 1)
    assert not faster_in_numpy(few)
    with torch.no_grad():
        assert faster_in_numpy(few)
        assert not any(map(faster_in_numpy, (many, few.double(), few.to("meta"))))


def test_steady_weights_are_asked_for_once():
    layer, weights, made = torch.nn.Linear(2, 2), PackedWeights(), []

    def make():
        made.append(1)
        return [layer.weight.detach().clone()]

    def look():
        weights.addresses((layer,), make)
        return len(made)

    @torch.no_grad()
    def change():
        layer.weight.add_(1)

    assert look() == look() == 1
    with steady_weights():
        change()
        assert look() == 2  # what changed before is seen
        change()
        assert look() == 2
        with steady_weights():
            assert look() == 3
        assert look() == 3
        change()
        assert look() == 3
        other = threading.Thread(target=lambda: (change(), look()))
        other.start()
        other.join()
        assert len(made) == 4
    assert look() == 4
    change()
    assert look() == 5


def test_a_failure_leaves_weights_to_be_asked_for():
    layer, weights = torch.nn.Linear(2, 2), PackedWeights()

    def fail():
        raise ValueError("no memory")

    with steady_weights():
        with pytest.raises(ValueError, match="no memory"):
            weights.addresses((layer,), fail)
        assert len(weights.addresses((layer,), lambda: [layer.weight])) == 1


def test_layers_of_an_mlp_are_its_linear_ones():
    network = MLP(3, 5, 2, 7)
    assert [layer.out_features for layer in network.layers] == [5, 5, 7]
