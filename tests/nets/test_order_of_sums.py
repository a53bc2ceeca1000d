"""No update depends on the order in which threads add up: the same seed gives the same weights with any number."""

import pytest
import torch
from gymnasium.spaces import Discrete, MultiDiscrete
from torch.utils._python_dispatch import TorchDispatchMode

from network_formulas import integers
from tests.learning.test_learner_inputs import CASES, make_batch, make_learner
from twohot.nets.actions import ActionLinear


class OrderedSums(TorchDispatchMode):
    """Refuses torch's one operation on a CPU whose threads add to the same number as they come."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.overloadpacket in (torch.ops.aten.index_put, torch.ops.aten.index_put_):
            _, indices, _, *rest = arguments
            # A mask names each place once.
            if rest and rest[0] and not any(x is not None and x.dtype == torch.bool for x in indices):
                places = torch.stack([x.flatten() for x in torch.broadcast_tensors(*filter_none(indices))])
                assert len(places.unique(dim=1).T) == len(places.T), "numbers are added up in any order"
        return function(*arguments, **(options or {}))


def filter_none(indices):
    return [x for x in indices if x is not None]


def test_what_is_refused():
    table = torch.ones(3, 2, requires_grad=True)
    with OrderedSums():
        table[torch.tensor([0, 2])].sum().backward()
        torch.nn.functional.embedding(torch.tensor([0, 2, 0]), table).sum().backward()
        with pytest.raises(AssertionError, match="in any order"):
            table[torch.tensor([0, 2, 0])].sum().backward()


@pytest.mark.parametrize("case", CASES)
def test_an_update(case):
    learner, batch = make_learner(case), make_batch(CASES[case][0])
    with OrderedSums():
        learner.step(batch)


@pytest.mark.parametrize("clip", [1.0, 0.9])
@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete([2, 3])], ids=["discrete", "multi-discrete"])
def test_choices_as_rows(space, clip):
    layer = ActionLinear(space, 4, 1.0, clip)
    action = integers(2, 50, *space.shape)
    expected = layer.vector(action) @ layer.table
    with OrderedSums():
        out = layer(action)
        out.sum().backward()
    torch.testing.assert_close(out, expected)
