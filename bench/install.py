"""How long `import twohot.losses` takes after torch, and what installing the loss brings beside torch and numpy.

    python -m bench.install    # in an environment where twohot is installed

Each import is that of a fresh process, with compiled bytecode as an installer leaves it. Sizes are those of the files
of distributions as they are installed here, dependencies included.
"""

from __future__ import annotations

import compileall
import os
import re
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import twohot

LIMIT_MS = 14.0
ROUNDS = 15
PROGRAM = """
import sys, time
import {before}
begin = time.perf_counter()
import {module}
print(1e3 * (time.perf_counter() - begin))
"""


def import_ms(module: str, before: str) -> float:
    """Milliseconds that importing a module takes after another one, the median of fresh processes."""
    command = [sys.executable, "-c", PROGRAM.format(module=module, before=before)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    outputs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(ROUNDS)
    ]
    return statistics.median(float(output.stdout) for output in outputs[1:])


def needed(name: str, extra: str = "") -> set[str]:
    """The distributions that one needs, with an extra of it or without, itself not among them."""
    found, asked = set(), [(name, extra)]
    while asked:
        who, of = asked.pop()
        try:
            requirements = distribution(who).requires or []
        except PackageNotFoundError:  # of another system
            continue
        for requirement in requirements:
            of_extra = re.search(r"extra == [\"'](.*?)[\"']", requirement)
            required = re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
            if (of_extra is None or of_extra[1] == of) and required not in found:
                found.add(required)
                asked.append((required, ""))
    return found - {name}


def megabytes(names: set[str]) -> float:
    """Size of the files of distributions, as far as they are installed."""
    total = 0
    for name in names:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        total += sum(path.stat().st_size for path in (Path(str(file.locate())) for file in files) if path.is_file())
    return total / 1e6


def main() -> int:
    """Print the figures; returns 1 where one is missed."""
    compileall.compile_dir(Path(twohot.__file__).parent, quiet=1)
    torch = needed("torch") | needed("numpy") | {"torch", "numpy"}
    loss, train = needed("twohot") - torch, needed("twohot", "train") - torch
    took = import_ms("twohot.losses", "torch")
    print(f"twohot.losses after torch: {took:.1f} ms (at most {LIMIT_MS:.0f})")
    print(f"twohot.replay after numpy: {import_ms('twohot.replay', 'numpy'):.1f} ms")
    print(f"beside torch and numpy, for the loss: {len(loss)} packages, {megabytes(loss):.0f} MB (at most 0)")
    print(f"beside torch and numpy, with the extra train: {len(train)} packages, {megabytes(train):.0f} MB")
    return int(took > LIMIT_MS or bool(loss))


if __name__ == "__main__":
    sys.exit(main())
