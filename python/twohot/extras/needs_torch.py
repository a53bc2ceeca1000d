"""Imported before torch: where `pip install --no-deps` left it out, a sentence says what brings it."""

from importlib.util import find_spec

from twohot.extras import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError(
        "everything but twohot.replay needs torch, which is not installed: pip install torch (on Linux without a GPU "
        "from PyTorch's index of CPU builds, some hundred MB in place of several GB)"
    )
