"""Whether an installed twohot works: loss, attention and replay, and training where its packages are installed too.

Run outside of the checkout, by the Python that twohot is installed in. It needs no compiler, and says which are on PATH
(`--without-compiler` makes one an error).
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cl", "zig")
TRAINING = ("gymnasium", "tyro", "rich", "safetensors")


def has_vectors() -> bool:
    """Whether Linux says that the processor has a form of its own."""
    about = Path("/proc/cpuinfo")
    words = set(about.read_text().split()) if about.exists() else set()
    return {"avx2", "fma", "f16c"} <= words or "asimd" in words


def replay() -> str:
    from twohot.replay import Field, Replay, Schema

    schema = Schema(observation={"state": Field("float32", (4,))}, action=Field("int64"))
    store = Replay.create(schema, capacity_steps=1000, seed=0)
    writer = store.writer(environments=2)
    writer.begin({"state": np.zeros((2, 4), np.float32)})
    for step in range(1, 11):
        last = np.full(2, step == 10)
        states = np.full((2, 4), step, np.float32)
        writer.append(np.full(2, step), np.ones(2, np.float32), last, np.zeros(2, bool), {"state": states})
    batch = store.sample(batch_size=8, length=4)
    drawn, acted = np.asarray(batch.observation["state"]), np.asarray(batch.action)
    assert drawn.shape == (8, 5, 4), drawn.shape
    assert (drawn[:, 1:, 0] == acted).all(), "a window mixes steps"
    return "drew 8 windows of 4 steps"


def loss() -> str:
    import torch

    from twohot.losses import ValueBins, two_hot_cross_entropy

    torch.manual_seed(0)
    bins = ValueBins(-10_000, 10_000, 101)
    logits = torch.randn(256, 101, requires_grad=True)
    targets = torch.randn(256) * 50
    value = two_hot_cross_entropy(logits, targets, bins).mean()
    value.backward()
    assert logits.grad is not None
    # Of softmax less a distribution.
    torch.testing.assert_close(logits.grad.sum(-1), torch.zeros(256), atol=1e-6, rtol=0)
    assert logits.grad.abs().sum() > 0
    return f"two-hot cross-entropy {value.item():.3f}, and its gradient, with torch {torch.__version__}"


def attention() -> str:
    import torch

    from twohot.attention import causal_attention

    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 32, 4, 32).unbind()
    ours = causal_attention(q, k, v)
    swapped = (x.transpose(1, 2) for x in (q, k, v))
    torchs = torch.nn.functional.scaled_dot_product_attention(*swapped, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)
    return "equal to torch's"


def training() -> str:
    command = ["-m", "twohot", "train", "dark-key-small", "--run", "run", "--epochs", "1", "--updates-per-epoch", "4"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (Path(folder) / "run" / "report.html").exists(), "no report"
    return "dark-key-small: an epoch, and its report"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-compiler", action="store_true", help="fail where there is a compiler on PATH")
    arguments = parser.parse_args()
    import twohot
    from twohot import _native

    compilers = [name for name in COMPILERS if shutil.which(name)]
    assert not (arguments.without_compiler and compilers), compilers
    system = f"{platform.machine()}, {' '.join(platform.libc_ver())}"
    print(f"twohot {version('twohot')}, Python {platform.python_version()}, {system}")
    print(f"{Path(_native.__file__).name}, compilers: {', '.join(compilers) or 'none'}")
    print(f"instructions: {_native.cpu_capability()} ({_native.cpu_capability_reason()})")
    assert _native.cpu_capability() != "portable" or not has_vectors(), "the processor's vectors are not used"
    assert twohot.__version__ == version("twohot")

    checks: list[tuple[Callable[[], str], tuple[str, ...]]]
    checks = [(replay, ()), (loss, ("torch",)), (attention, ("torch",)), (training, ("torch", *TRAINING))]
    for check, needed in checks:
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        print(f"{check.__name__}: {'not tried without ' + missing[0] if missing else check()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
