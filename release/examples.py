"""All examples and both notebooks with a wheel, as a user has it: `make examples`.

Makes a new environment outside of the checkout, installs the wheel and what examples need into it, and runs a copy of
`examples/` there, each script as it stands. There is no compiler on PATH from the first step on, and nothing is
imported from the checkout. A run of the command line writes to TensorBoard, W&B (offline) and trackio at once, and
`deploy.py` has its policy. What is made stays in build/examples.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wheels import CONSTRAINTS, ROOT, run, without_compiler

EXTRAS = "[examples,trackio,wandb]"
TRAIN = "train gym-small --epochs 4 --run run --writers tensorboard wandb trackio"
MADE = ("run/tensorboard/events.*", "run/wandb/offline-run-*/*.wandb", "trackio/*.db", "run/report.html")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="of the Python that this is run with")
    wheel: Path = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory(prefix="twohot-examples-") as folder:
        place = Path(folder)
        environment, work = place / "environment", place / "examples"
        run(sys.executable, "-m", "venv", environment)
        python, twohot, jupyter = (environment / "bin" / name for name in ("python", "twohot", "jupyter-execute"))
        variables = without_compiler(environment / "bin")
        began = time.perf_counter()
        pip = (python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS)
        run(*pip, f"twohot{EXTRAS} @ {wheel.as_uri()}", cwd=place, env=variables)
        print(f"{wheel.name}{EXTRAS}: installed in {time.perf_counter() - began:.0f} s", flush=True)
        variables |= {"HOME": folder, "WANDB_MODE": "offline", "TRACKIO_DIR": str(work / "trackio")}

        def show(*command: str | Path) -> None:
            print(f"== {' '.join([Path(command[0]).name, *map(str, command[1:])])}", flush=True)
            start = time.perf_counter()
            subprocess.run([str(part) for part in command], cwd=work, env=variables, check=True)
            print(f"== {time.perf_counter() - start:.0f} s", flush=True)

        shutil.copytree(ROOT / "examples", work, ignore=shutil.ignore_patterns("__pycache__"))
        show(python, ROOT / "release" / "smoke.py", "--without-compiler")
        for script in sorted(path.name for path in work.glob("*.py") if path.name != "deploy.py"):
            show(python, script)
        show(twohot, *TRAIN.split())
        show(python, "deploy.py", "run")
        for notebook in sorted(path.name for path in work.glob("*.ipynb")):
            show(jupyter, "--inplace", notebook)
        missing = [pattern for pattern in MADE if not list(work.glob(pattern))]
        shutil.rmtree(ROOT / "build" / "examples", ignore_errors=True)
        shutil.copytree(work, ROOT / "build" / "examples")
    print(f"not made: {', '.join(missing)}" if missing else "all examples and notebooks ran, with no compiler")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
