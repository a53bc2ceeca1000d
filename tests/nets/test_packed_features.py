"""Images, grids and tokens by native code against their encoders."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from compare import assert_accurate, summation
from twohot import _native
from twohot.nets.grids import GridEncoder
from twohot.nets.images import ImageEncoder
from twohot.nets.packed_features import pack_features
from twohot.nets.tokens import TokenEncoder

pytestmark = pytest.mark.usefixtures("nothing_forced")


def image(name, shape):
    return lambda: ImageEncoder(shape, 32, name)


ENCODERS = {
    "nature": image("nature", (36, 41, 3)),
    "drq": image("drq", (21, 18, 4)),
    "grid": lambda: GridEncoder((5, 4, 3), 32),
    "a cell": lambda: GridEncoder((1, 1, 2), 32),
    "tokens": lambda: TokenEncoder(50, 32),
    "few": lambda: TokenEncoder(7, 32, width=3, hidden=16),
}


def make(name):
    torch.manual_seed(0)
    return ENCODERS[name]().eval()


def shown(encoder, rows, seed=0):
    random = np.random.default_rng(seed)
    if isinstance(encoder, ImageEncoder):
        return random.integers(0, 256, (rows, *encoder.shape), np.uint8)
    if isinstance(encoder, GridEncoder):
        return random.integers(-3, 300, (rows, *encoder.shape), np.int32)
    tokens = random.integers(-1, 60, (rows, 6))
    for row in tokens:
        row[random.integers(0, 7) :] = 0
    tokens[: rows // 4, 1] = 0  # one inside, which is a token like others
    return tokens


def sizes_of_terms(encoder, x):
    """Of an image's or a grid's features, the sum of the sizes of all products that they are made of."""
    sizes = copy.deepcopy(encoder).double()
    for parameter in sizes.parameters():
        parameter.abs_()
    if isinstance(encoder, GridEncoder):
        return sizes.features(torch.from_numpy(x))
    pixels = ((torch.from_numpy(x).double() - 128) / 128).abs().permute(0, 3, 1, 2)
    return sizes.network(pixels).flatten(1)


@pytest.mark.parametrize("rows", [0, 1, 2, 9, 40])
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_features_are_accurate(name, rows):
    encoder = make(name)
    packed, projection = pack_features(encoder)
    x = shown(encoder, rows)
    if not rows:
        assert packed(x).shape == (0, projection.shape[1])
        return
    plain, truth = encoder.features(torch.from_numpy(x)), copy.deepcopy(encoder).double().features(torch.from_numpy(x))
    found = torch.from_numpy(packed(x))
    if isinstance(encoder, TokenEncoder):
        terms = encoder.gru.input_size + encoder.gru.hidden_size
        assert_accurate(found, truth, plain, floor=x.shape[1] * summation(terms))
    else:
        sizes = sizes_of_terms(encoder, x)
        layers = [layer for layer in encoder.network if isinstance(layer, nn.Conv2d)]
        height, width = encoder.network(torch.zeros(1, layers[0].in_channels, *encoder.shape[:2])).shape[2:]

        def last(x):
            return x.unflatten(1, (-1, height, width)).permute(0, 2, 3, 1).flatten(1)

        plain, truth, sizes = last(plain), last(truth), last(sizes)
        floor = sum(summation(layer.weight[0].numel()) for layer in layers)
        assert_accurate(found, truth, plain, floor=floor, sensitivity=sizes)
    truth = encoder.double()(torch.from_numpy(x))
    after = found.double() @ projection.double().T + encoder.project.bias
    torch.testing.assert_close(after, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_no_number_of_rows_or_threads_changes_a_bit(name):
    encoder, before = make(name), torch.get_num_threads()
    packed, _ = pack_features(encoder)
    x, found = shown(encoder, 40), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(packed(x))
    finally:
        torch.set_num_threads(before)
    found.append(np.concatenate([packed(x[index : index + 1]) for index in range(40)]))
    found.append(packed(np.concatenate([x[:7], x]))[7:])  # some are there twice
    found.append(pickle.loads(pickle.dumps(packed))(x))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_numbers_of_a_grid_beyond_its_values_are_the_nearest():
    packed, _ = pack_features(make("grid"))
    x = np.zeros((1, 5, 4, 3), np.int64)
    x[0, 0, 0] = [-5, 256, 2**40]
    near = x.clip(0, 255).astype(np.uint8)
    assert np.array_equal(packed(x), packed(near))
    assert not np.array_equal(packed(x), packed(np.zeros_like(near)))


@pytest.mark.parametrize(
    "change", ["pools", "slope", "outputs", "dtype", "own", "linear", "groups", "padding", "stride"]
)
def test_what_native_code_lacks_has_no_packed_form(change):
    encoder = make("nature")
    if change == "pools":
        encoder = ImageEncoder((20, 20, 3), 8, "impala")
    elif change in {"groups", "padding", "stride"}:
        options = {"groups": {"groups": 4}, "padding": {"padding": "same"}, "stride": {"stride": (1, 2)}}[change]
        encoder.network[2] = nn.Conv2d(32, 64, 4, **options)
    elif change == "linear":
        encoder = GridEncoder((5, 4, 3), 32, channels=0)
    elif change == "slope":
        encoder.network[1].negative_slope = 0.2
    elif change == "outputs":
        encoder.network[0] = nn.Conv2d(3, 40, 8, 4)
    elif change == "dtype":
        encoder.double()
    else:
        encoder = type("Own", (ImageEncoder,), {})((36, 41, 3), 32, "nature")
    assert pack_features(encoder) is None
    assert pack_features(make("nature")) is not None


def test_native_code_checks_its_arguments():
    x = torch.zeros(1 << 14)
    at = x.data_ptr()
    sizes = {"height": 4, "width": 3, "parts": 2, "channels": 2, "slope": 0.0, "table": 0, "parameters": [at, at] * 2}
    sizes["layers"] = [(32, 2, 1, 0), (32, 3, 2, 1)]
    images, pixels = _native.ImagesStep(**sizes), np.zeros((5, 4, 3, 2), np.uint8)
    assert images.outputs == 2 * 1 * 32
    images.fill(pixels, np.empty((5, 64), np.float32), threads=1)
    for wrong in (
        *({"height": 0}, {"parts": 1 << 40}, {"channels": 3}, {"layers": []}, {"parameters": [at] * 3}),
        *({"layers": [(32, 2, 1, 0), layer]} for layer in ((33, 2, 1, 0), (32, 4, 1, 0), (32, 2, 0, 0), (0, 2, 1, 0))),
        *({"layers": [(32, 2, 1, 0), layer]} for layer in ((32, 0, 1, 0), (32, 2, 1, -1), (32, 2, 1, 1 << 40))),
        {"parameters": [at, at, 0, at]},
    ):
        with pytest.raises(ValueError, match="an image's sizes and convolutions"):
            _native.ImagesStep(**{**sizes, **wrong})
    tokens = _native.TokensStep(vocabulary=4, width=3, hidden=16, parameters=[at] * 4, table=at)
    for wrong in ({"vocabulary": 0}, {"width": 0}, {"hidden": 24}, {"parameters": [at] * 3}, {"table": 0}):
        given = {"vocabulary": 4, "width": 3, "hidden": 16, "parameters": [at] * 4, "table": at}
        with pytest.raises(ValueError, match="expected vocabulary, width"):
            _native.TokensStep(**{**given, **wrong})
    assert tokens.outputs == 16
    for call, given, rows, sentence in (
        (images, pixels[0], 5, "pixels: expected 4 dimensions, got 3"),
        (images, pixels[:, :, :2].copy(), 5, "pixels: expected 24 numbers a row, got 16"),
        (images, pixels[:, :, :2], 5, "pixels: expected a C-contiguous array of uint8"),
        (images, pixels.astype(np.int8), 5, "pixels: .* got int8"),
        (images, pixels, 4, "output: .* 5 rows"),
        (tokens, np.zeros((5, 2), np.int32), 5, "tokens: .* got int32"),
        (tokens, np.zeros(5, np.int64), 5, "tokens: expected 2 dimensions, got 1"),
        (tokens, np.zeros((5, 2), np.int64), 3, "output: .* 5 rows"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call.fill(given, np.empty((rows, call.outputs), np.float32), threads=1)
    with pytest.raises(ValueError, match="output: expected 16 numbers a row, got 15"):
        tokens.fill(np.zeros((5, 2), np.int64), np.empty((5, 15), np.float32), threads=1)
    with pytest.raises(TypeError):
        tokens.fill([[1, 2]], np.empty((1, 16), np.float32), threads=1)
