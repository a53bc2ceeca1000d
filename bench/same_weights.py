"""Whether two installations of twohot train the same weights, bit for bit, from one seed on this machine.

    python -m bench.same_weights OLD/bin/python NEW/bin/python [--epochs 3]

Two runs of `quickstart`: as it is, and with actors in processes and the replay on disk. The exit code is 1 where a
weight, a moment of the optimizer or a metric other than a time differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = {
    "quickstart": (),
    "quickstart, actors in processes, replay on disk": (
        *("--collect.workers", "processes"),
        *("--replay.storage", "disk"),
    ),
}


def digests(python: str, run: Path, epochs: int, options: tuple[str, ...]) -> dict[str, str]:
    """What a run leaves, by name: the tensors of its last checkpoint, and its metrics but for times."""
    common = ("--epochs", str(epochs), "--evaluate.final-trials", "2", "--run", str(run))
    subprocess.run([python, "-m", "twohot", "train", "quickstart", *common, *options], check=True, stdout=sys.stderr)
    last = max(path for path in (run / "checkpoints").iterdir() if path.is_dir())
    found = {path.name: _digest(_contents(path)) for path in sorted(last.glob("*.safetensors"))}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
        row["metrics"] = {
            name: value
            for name, value in row["metrics"].items()
            if not name.startswith("time/") and not name.endswith("_per_second")
        }
    return {**found, "metrics": _digest(json.dumps(rows, sort_keys=True).encode())}


def _contents(path: Path) -> bytes:
    """A safetensors file with its header in one order, which differs from one writing to the next."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="the Python of one installation")
    parser.add_argument("new", help="the Python of the other")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    same = True
    for name, options in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            old, new = (
                digests(python, Path(folder) / who, arguments.epochs, options)
                for who, python in (("old", arguments.old), ("new", arguments.new))
            )
        for part in sorted(old.keys() | new.keys()):
            equal = old.get(part) == new.get(part)
            same &= equal
            print(f"{name}: {part}: {'equal' if equal else 'DIFFERS'} ({old.get(part)}, {new.get(part)})")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
