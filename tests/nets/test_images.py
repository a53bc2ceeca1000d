"""Networks for images against formulas over pixels, and the random shift."""

import pytest
import torch
from torch import nn

from compare import assert_accurate
from network_formulas import (
    convolution,
    group_norm,
    integers,
    largest_of_three,
    leaky_relu,
    linear,
    perturb,
    residual_block,
)
from perturbation import DEVIATIONS, in_float64
from twohot.nets.images import NETWORKS, ImageEncoder, RandomShift, ResidualBlock
from twohot.spaces import SpaceError

MIN_SIZES = {"impala": (15, 16), "nature": (36, 37), "drq": (15, 17)}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(*shape, seed=0):
    return integers(256, *shape, seed=seed, dtype=torch.uint8)


def by_formulas(module, x):
    """A network of `NETWORKS` over one image x [C, H, W], layer by layer."""
    layers = list(module)
    if any(isinstance(layer, ResidualBlock) for layer in layers):
        for index in range(0, len(layers) - 1, 4):
            x = largest_of_three(convolution(layers[index], x))
            x = residual_block(layers[index + 3], residual_block(layers[index + 2], x))
        return leaky_relu(x)
    for layer in layers:
        x = convolution(layer, x) if isinstance(layer, nn.Conv2d) else leaky_relu(x)
    return x


@pytest.mark.parametrize("network", NETWORKS)
def test_an_image_encoder_equals_its_formula(network):
    height, width = MIN_SIZES[network]
    module = perturb(ImageEncoder((height, width, 3), 5, network).double(), 0.05)
    x = images(2, height, width, 3)
    actual = module(x)
    for row in range(2):
        pixels = torch.stack([(x[row, :, :, c].double() - 128) / 128 for c in range(3)])
        expected = linear(module.project, by_formulas(module.network, pixels).flatten())
        assert_accurate(actual[row].detach(), expected.detach(), floor=1e4)


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        ("impala", [(16, 3)] * 5 + [(32, 3)] * 10),
        ("nature", [(32, 8), (64, 4), (64, 3)]),
        ("drq", [(32, 3)] * 4),
    ],
)
def test_networks_have_the_layers_of_their_papers(network, sizes):
    layers = [layer for layer in NETWORKS[network](3).modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size[0]) for layer in layers] == sizes
    assert (
        ImageEncoder((64, 64, 3), 2, network).project.in_features
        == {
            "impala": 7 * 7 * 32,
            "nature": 4 * 4 * 64,
            "drq": 25 * 25 * 32,
        }[network]
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("side", [0, 1])
def test_images_that_are_too_small_are_refused(network, side):
    shape = list(MIN_SIZES[network])
    shape[side] = 14 if network != "nature" else 35
    with pytest.raises(SpaceError, match=f"large enough for the '{network}' network, got"):
        ImageEncoder((*shape, 3), 4, network)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_reach_every_parameter(network):
    module = ImageEncoder((40, 36, 1), 4, network)
    module(images(3, 40, 36, 1)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_pixels_are_exact_in_bfloat16():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(every.bfloat16().sub_(128).div_(128).double(), (every.double() - 128) / 128)


@pytest.mark.parametrize("network", NETWORKS)
def test_autocast_is_near_float32_and_keeps_float32_gradients(network):
    module, x = ImageEncoder((40, 40, 3), 8, network), images(4, 40, 40, 3)
    exact, sensitivity = in_float64(module, x, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(x)
    actual.float().sum().backward()
    assert actual.dtype == torch.bfloat16
    assert_accurate(actual, exact, floor=DEVIATIONS, sensitivity=sensitivity)
    assert DEVIATIONS * torch.finfo(torch.bfloat16).eps * sensitivity.mean() < exact.std()
    assert all(parameter.grad.dtype == torch.float32 for parameter in module.parameters())


# The random shift


def test_shifted_images_are_the_image_moved_by_whole_pixels_with_repeated_edges():
    x = images(3, 4, 6, 9, 2)
    module = RandomShift(2)
    moves = set()
    for _ in range(20):
        out = module(x)
        assert out.dtype == torch.uint8
        for b in range(3):
            for t in range(4):
                found = []
                for dy in range(-3, 4):
                    for dx in range(-3, 4):
                        rows = [min(max(i + dy, 0), 5) for i in range(6)]
                        columns = [min(max(j + dx, 0), 8) for j in range(9)]
                        if torch.equal(x[b, t][rows][:, columns], out[b, t]):
                            found.append((dy, dx))
                assert len(found) == 1
                moves |= set(found)
    assert moves == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def row_moves(module, batch=64, steps=5):
    """How far each image moved downwards, [B, L]: the rows of the images are numbered."""
    x = torch.arange(9).view(9, 1, 1).expand(batch, steps, 9, 9, 1)
    return module(x)[:, :, 4, 4, 0] - 4


def test_moves_are_uniform_and_of_each_step_by_itself():
    moved = row_moves(RandomShift(2), 400, 10)
    counts = torch.bincount(moved.flatten() + 2, minlength=5)
    assert len(counts) == 5
    # Six standard deviations of a binomial count.
    assert (counts - 800).abs().max() < 6 * (4000 * 0.2 * 0.8) ** 0.5
    assert (moved.double().std(1) > 0).float().mean() > 0.9
    x = torch.arange(9).view(1, 9, 1).expand(400, 10, 9, 9, 1)
    assert torch.corrcoef(torch.stack((moved.flatten(), (RandomShift(2)(x)[:, :, 4, 4, 0] - 4).flatten())))[0, 1] < 0.1


def test_moves_of_a_window_are_alike():
    moved = row_moves(RandomShift(3, by="window"))
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    assert len(moved[:, 0].unique()) == 7


def test_a_share_of_the_sequences_moves():
    x = images(400, 6, 5, 7, 1)
    still = RandomShift(4, fraction=0.75)(x).eq(x).flatten(1).all(1).float().mean().item()
    assert still == pytest.approx(0.25, abs=6 * (0.25 * 0.75 / 400) ** 0.5)


@pytest.mark.parametrize("module", [RandomShift(3).eval(), RandomShift(0), RandomShift(3, fraction=0.0)])
def test_nothing_moves_in_evaluation_or_without_pixels_or_share(module):
    x = images(2, 3, 6, 6, 1)
    state = torch.get_rng_state()
    assert module(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_of_many_environments_may_be_shifted_too():
    x = images(5, 6, 6, 3)
    assert RandomShift(1)(x).shape == x.shape


def test_group_norm_formula_sees_groups():
    norm = nn.GroupNorm(4, 8).double()
    x = torch.randn(8, 3, 5, dtype=torch.float64)
    assert torch.allclose(group_norm(norm, x), norm(x.unsqueeze(0))[0])
