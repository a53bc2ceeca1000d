"""Processes end: forked children, which say what they cannot use, and those that have a loader under way."""

import subprocess
import sys

import pytest

PREAMBLE = """if True:
    import os, signal, sys, threading, time, warnings
    import numpy as np
    from twohot.replay import Field, Mixture, Replay, Schema
    warnings.simplefilter("ignore")  # of fork among threads
    schema = Schema({"x": Field("float32", (40,))}, Field("int32"))
    replay = Replay.create(schema, capacity_steps=10_000, threads=3)
    def columns(steps=50):
        last = np.arange(steps) == steps - 1
        return {"observation": {"x": np.ones((steps + 1, 40), np.float32)}, "action": np.zeros(steps, np.int32),
                "reward": np.ones(steps, np.float32), "terminated": last, "truncated": np.zeros(steps, bool)}
    for _ in range(20):
        replay.add(**columns())
    def refused(call):
        try: call()
        except RuntimeError as error: assert "fork" in str(error), error
        else: raise AssertionError("nothing raised")
    def forked(work):
        "Runs `work` in a child that then ends as any Python process does; the parent goes on with its exit code."
        child = os.fork()
        if child == 0:
            work()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    def alive():
        return [each for each in threading.enumerate() if each.name == "twohot-replay-loader"]
"""

CHILDREN = {
    "it just ends": "forked(lambda: None)",
    "it lets go of the replay": """
    def work():
        global replay
        del replay
    forked(work)
    """,
    "it closes it": "forked(replay.close)",
    "every call is refused": """
    writer = replay.writer(2)
    mixture = Mixture([replay], [1])
    def work():
        rows = {"x": np.ones((2, 40), np.float32)}
        for call in (replay.stats, replay.ids, replay.refresh, replay.clear, writer.cut, writer.discard,
                     lambda: replay.sample(2, 2), lambda: mixture.sample(2, 2), lambda: replay.add(**columns()),
                     lambda: replay.get(0), lambda: writer.begin(rows), lambda: next(replay.loader(2, 2, batches=3)),
                     lambda: replay.random_state, lambda: replay.set_priorities([0], [1.0]), lambda: replay.table()):
            refused(call)
    forked(work)
    """,
    "a loader is under way": """
    loader = replay.loader(64, 50, batches=1000)
    next(loader)
    def work():
        refused(lambda: next(loader))
    forked(work)
    forked(lambda: None)
    next(loader)
    """,
    "a loader is under way and dropped": """
    loader = replay.loader(64, 50, batches=1000)
    next(loader)
    def work():
        loader.close()
    forked(work)
    """,
    "a child of a child": "forked(lambda: forked(lambda: forked(lambda: None)))",
    "it makes a replay of its own": """
    def work():
        own = Replay.create(schema, capacity_steps=10_000, threads=3)
        own.add(**columns())
        assert own.sample(512, 50).mask.all()
    forked(work)
    """,
    "it opens the directory again": """
    import tempfile
    place = tempfile.mkdtemp()  # a context manager would remove it at the end of the child
    kept = Replay.create(schema, capacity_steps=10_000, directory=place, threads=3)
    kept.add(**columns())
    def work():
        with Replay.open(place) as mine:
            assert mine.sample(512, 50).mask.all()
    forked(work)
    kept.add(**columns())
    kept.close()
    import shutil
    shutil.rmtree(place)
    """,
    "it trains with the losses": """
    import torch
    from twohot.losses import ValueBins, two_hot_cross_entropy
    torch.set_num_threads(2)
    bins = ValueBins.amago2(count=64)
    logits, returns = torch.randn(4096, 64, requires_grad=True), torch.randn(4096)
    before = two_hot_cross_entropy(logits, returns, bins).item()
    def work():
        torch.set_num_threads(1)  # torch's own threads stayed with the parent
        assert abs(two_hot_cross_entropy(logits, returns, bins).item() - before) < 1e-5
        torch.set_num_threads(2)
        from twohot import _native
        rows = np.zeros(4096, np.float32)
        support = _native.Support(-5.0, 5.0, "symlog", "transformed")
        address = (logits.data_ptr(), "float32", 4096, 64, support)
        _native.expectation(*address, readout=rows.ctypes.data, threads=2)
        assert rows.any()
    forked(work)
    """,
}


ENDINGS = {
    "exits with a loader under way": "loader = replay.loader(8, 4, batches=10**9); next(loader)",
    "exits while relabel works": """
    loader = replay.loader(8, 4, batches=10**9, relabel=lambda drawn: time.sleep(0.01)); next(loader)
    """,
    "exits with a loader in a cycle": """
    loader = replay.loader(8, 4, batches=10**9); next(loader)
    cycle = [loader]; cycle.append(cycle); del loader
    """,
    "is interrupted while it waits": """
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    try:
        for _ in replay.loader(8, 4, batches=10**9, relabel=lambda drawn: time.sleep(0.2)): pass
    except KeyboardInterrupt: assert not alive()
    else: raise AssertionError
    """,
    "is interrupted while it learns": """
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    try:
        for _ in replay.loader(8, 4, batches=10**9): time.sleep(0.05)
    except KeyboardInterrupt: pass
    else: raise AssertionError
    """,
    "raises and is not caught": """
    sys.excepthook = lambda *_: None
    for _ in replay.loader(8, 4, batches=10**9): sys.exit(0)
    """,
}


def run(script, *arguments):
    command = [sys.executable, "-c", f"{PREAMBLE}\n    {script.strip()}\n", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_ends(name):
    run(CHILDREN[name])


def test_the_workers_of_a_data_loader_that_forks(tmp_path):
    """A replay in a directory is opened again by each; one in memory is refused there, with what to do."""
    script = """
    import torch
    class Windows(torch.utils.data.IterableDataset):
        def __init__(self, make): self.make = make
        def __iter__(self):
            replay = self.make()
            yield from (torch.from_numpy(replay.sample(4, 8).reward) for _ in range(3))
    kept = Replay.create(schema, capacity_steps=10_000, directory=sys.argv[1])
    kept.add(**columns())
    options = {"num_workers": 2, "batch_size": None, "multiprocessing_context": "fork"}
    assert len(list(torch.utils.data.DataLoader(Windows(lambda: Replay.open(sys.argv[1])), **options))) == 6
    refused(lambda: list(torch.utils.data.DataLoader(Windows(lambda: replay), **options)))
    """
    run(script, tmp_path / "replay")


@pytest.mark.parametrize("name", ENDINGS)
def test_a_process_ends_that(name):
    run(ENDINGS[name])
