"""Settings that must be there before torch is imported, the same as the command line's; fixtures of several files."""

import multiprocessing
import os
import signal
from multiprocessing import forkserver

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from perturbation import perturb_as_asked
from twohot import _native

perturb_as_asked()

for number in (signal.SIGINT, signal.SIGHUP):  # ignored in a shell's background job and under nohup, and inherited
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

IMPLEMENTATIONS = [
    ("native", torch.float32),
    ("native", torch.bfloat16),
    ("native", torch.float16),
    ("reference", torch.float32),
    ("reference", torch.bfloat16),
    ("auto", torch.float64),
]


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch for the tests of a module."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda pair: f"{pair[0]} {str(pair[1]).removeprefix('torch.')}")
def dtype(request, monkeypatch):
    """The dtype of logits; the implementation that it is paired with is forced."""
    name, dtype = request.param
    monkeypatch.setenv("TWOHOT_BACKEND", name)
    return dtype


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch) -> str:
    """The name of the implementation that is forced."""
    monkeypatch.setenv("TWOHOT_BACKEND", request.param)
    return request.param


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    """Pieces of 256 rows, the fewest that there are."""
    from twohot.kernels.linear_two_hot import op

    monkeypatch.setattr(op, "_TILE_ELEMENTS", 1)


@pytest.fixture
def nothing_forced(monkeypatch):
    """Every operation chooses its implementation by itself."""
    monkeypatch.delenv("TWOHOT_BACKEND", raising=False)
    monkeypatch.delenv("TWOHOT_ATTENTION", raising=False)


@pytest.fixture
def preloaded_workers(monkeypatch):
    """Workers of environments are forked by a process that has imported the package; it keeps the variables it had."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["twohot.envs.vector.workers"])
    # Now: where a worker is started, signals are blocked, and every later fork of this process would be deaf to them.
    forkserver.ensure_running()
    monkeypatch.setattr("twohot.envs.vector.workers._CONTEXT", context)


@pytest.fixture
def mlp_calls(monkeypatch):
    """The sizes of each native call of an MLP."""
    made = []
    step = _native.mlp_step

    def counted(*arguments, **options):
        made.append(arguments[3])
        return step(*arguments, **options)

    monkeypatch.setattr("twohot.nets.packed.native.mlp_step", counted)
    return made
