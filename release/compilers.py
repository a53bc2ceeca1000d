"""How fast native code is as two compilers make it: python release/compilers.py ONE.so OTHER.so

Each measures in processes of its own, in turn, five times. Printed are the medians of their medians in microseconds,
and the second's share of the first. The modules are those of wheels of one Python, or of a build in place.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, SECONDS = 5, 0.35


def use(module: str) -> None:
    """Imports that file as `twohot._native`."""
    spec = importlib.util.spec_from_file_location("twohot._native", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["twohot._native"] = loaded
    spec.loader.exec_module(loaded)
    import twohot

    twohot._native = loaded  # type: ignore[attr-defined]


def calls() -> dict[str, Callable[[], object]]:
    import torch

    from bench.cases.quickstart_updates import learner_and_batch
    from twohot.attention import KVCache, causal_attention, decode_attention
    from twohot.losses import ValueBins, two_hot_cross_entropy

    torch.manual_seed(0)
    torch.set_num_threads(1)
    result: dict[str, Callable[[], object]] = {}
    bins = ValueBins(-10_000, 10_000, 128)
    targets = torch.randn(4096) * 100
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        logits = torch.randn(4096, 128, dtype=dtype, requires_grad=True)
        qkv = torch.randn(3, 4, 128, 8, 32, dtype=dtype, requires_grad=True)

        def loss(logits=logits) -> None:
            two_hot_cross_entropy(logits, targets, bins).mean().backward()
            logits.grad = None

        def attention(qkv=qkv) -> None:
            causal_attention(*qkv.unbind()).sum().backward()
            qkv.grad = None

        result |= {f"two-hot loss, {name}": loss, f"attention, {name}": attention}
    cache = KVCache(layers=1, environments=16, heads=8, head_size=32, length=256)
    one = torch.randn(3, 16, 8, 32).unbind()

    def decode() -> None:
        decode_attention(*one, cache, layer=0)
        cache.advance()

    for _ in range(256):
        decode()
    learner, batch = learner_and_batch(1)
    return result | {"attention, one step": decode, "quickstart's update": lambda: learner.step(batch)}


def measure(module: str) -> None:
    use(module)
    found = {}
    for name, call in calls().items():
        call()
        began, times = time.perf_counter(), []
        while time.perf_counter() - began < SECONDS or len(times) < 5:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        found[name] = 1e6 * statistics.median(times)
    print(json.dumps(found))


def main() -> int:
    if sys.argv[1] == "--measure":
        measure(sys.argv[2])
        return 0
    found: list[list[dict[str, float]]] = [[], []]
    for _ in range(ROUNDS):
        for number, module in enumerate(sys.argv[1:3]):
            command = [sys.executable, __file__, "--measure", module]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found[number].append(json.loads(done.stdout.splitlines()[-1]))
    for name in found[0][0]:
        one, other = (statistics.median(each[name] for each in rounds) for rounds in found)
        print(f"{name:28} {one:9.0f} {other:9.0f} {other / one:6.2f}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
