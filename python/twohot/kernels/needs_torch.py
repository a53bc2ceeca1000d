"""Imported before torch: where `pip install --no-deps` left it out, a sentence says what brings it."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError(
        "everything but twohot.replay needs torch, which is not installed: pip install torch (on Linux without a GPU "
        "from PyTorch's index of CPU builds, some hundred MB in place of several GB)",
        name="torch",
    )
