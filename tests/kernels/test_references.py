"""The plain PyTorch truth in each folder of operations is what its operation computes."""

from pathlib import Path

import pytest
import torch

import twohot.kernels
from compare import assert_accurate
from two_hot_truth import normal
from twohot.kernels.critics import op as critics_op
from twohot.kernels.critics import reference as critics_reference
from twohot.kernels.critics.types import Critics, Rows
from twohot.kernels.transformer_layer import op as layer_op
from twohot.kernels.transformer_layer import reference as layer_reference

pytestmark = pytest.mark.usefixtures("one_thread", "nothing_forced")

STEPS, ENTRIES, WIDTH, ROWS, BINS = 7, 4, 32, 30, 33


def critics(outputs, actions):
    def weight(*shape, seed):
        return normal(*shape, seed=seed) / shape[-2] ** 0.5

    return Critics(
        normal(2, STEPS, WIDTH, seed=1),
        normal(2, ENTRIES, WIDTH, seed=2),
        weight(2, actions, WIDTH, seed=3) if actions else None,
        weight(1, 2, WIDTH, WIDTH, seed=4),
        normal(1, 2, WIDTH, seed=5),
        weight(2, WIDTH, outputs, seed=6),
        normal(2, outputs, seed=7),
    )


def rows(actions):
    index = torch.arange(ROWS)
    return Rows(index % STEPS, index % ENTRIES, normal(ROWS, actions, seed=8) if actions else None)


def cast(tensors, dtype):
    """The same in another dtype; gradients are those of these."""
    floating = [x is not None and x.is_floating_point() for x in tensors]
    return type(tensors)(
        *(x.detach().to(dtype).requires_grad_() if f else x for x, f in zip(tensors, floating, strict=True))
    )


def outcome(loss, inputs):
    """A loss, what comes with it, and the gradients of what it is a function of."""
    value, *others = loss
    given = [x for x in inputs if x is not None]
    return [value.detach(), *others, *torch.autograd.grad(value, given)]


@pytest.mark.parametrize("actions", [0, 3])
@pytest.mark.parametrize("labels", ["two_hot", "two_hot_raw", "hl_gauss", None])
def test_critics(labels, actions):
    mask = normal(ROWS, seed=9) > -0.5

    def found(dtype, function):
        given, where = cast(critics(BINS if labels else 1, actions), dtype), rows(actions)
        where = where._replace(action=None if where.action is None else where.action.to(dtype))
        target = 3 * normal(ROWS, seed=10, dtype=dtype)
        if labels:
            arguments = target, mask, -3.0, 3.0, "symlog", "transformed", labels, 0.75
            flat = critics_op.cross_entropy, critics_reference.cross_entropy
        else:
            arguments = target, 1 + 0 * target, 0.5 + 0 * target, mask
            flat = critics_op.squared_error, critics_reference.squared_error
        loss = flat[0](*given, *where, *arguments) if function == "op" else flat[1](given, where, *arguments)
        return outcome(loss, given)

    exact, plain = found(torch.float64, "reference"), found(torch.float32, "reference")
    for actual, truth, other in zip(found(torch.float32, "op"), exact, plain, strict=True):
        assert_accurate(actual, truth, other, floor=64)


@pytest.mark.parametrize("rotary", [None, 100.0])
def test_transformer_layers(rotary):
    width, feed_forward = 64, 96
    shapes = layer_op._shapes(width, feed_forward)
    parameters = [
        normal(*shape, seed=i) / (shape[-1] ** 0.5 if len(shape) > 1 else 2) for i, shape in enumerate(shapes)
    ]
    layer = layer_op.Layer(*parameters)
    settings = layer_op.Settings(heads=2, rotary=rotary, epsilon=1e-5, slope=0.01, dropout=0.0)
    x = normal(2, 9, width, seed=20)

    def found(dtype, function):
        given = cast(layer, dtype)
        leaf = x.to(dtype).requires_grad_()
        out = function(leaf, given)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), (leaf, *given))]

    def plain(leaf, given):
        return layer_reference.run(leaf, settings, given)

    native = found(torch.float32, lambda leaf, given: layer_op.run(leaf, torch.float32, settings, given))
    for actual, truth, other in zip(native, found(torch.float64, plain), found(torch.float32, plain), strict=True):
        assert_accurate(actual, truth, other, floor=64)


def test_every_folder_of_operations_has_one():
    folder = Path(twohot.kernels.__file__).parent
    operations = {path.parent for path in folder.glob("*/op.py")}
    assert operations
    assert {path.parent for path in folder.glob("*/reference.py")} == operations
