"""A release from its tag to what a user sees, with an index of this machine: `make release-rehearsal`.

Clones the committed state, makes the next version and its tag there, builds sdist and wheel from the tag as a new
checkout has it, serves them and all that they ask for from a local index, and then does as a user does, with no
compiler: a new environment, `pip install`, `twohot train`. Printed is what that takes, from `pip install` to the table
of returns.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import wheels
from version import version
from wheels import CONSTRAINTS, ROOT, run

EXTRAS = "[train,popgym]"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


def build(clone: Path, new: str) -> tuple[str, list[Path]]:
    """The tag, and sdist and wheel from a checkout of it."""
    tag = f"v{new}"
    origin = clone.with_name("origin")
    run("git", "clone", "--quiet", ROOT, origin)
    run(sys.executable, origin / "release" / "version.py", new)
    who = ["-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost"]
    run("git", *who, "commit", "--quiet", "--all", "--message", f"release {new}", cwd=origin)
    run("git", *who, "tag", "--annotate", "--message", tag, tag, cwd=origin)
    run("git", "clone", "--quiet", "--branch", tag, "--depth", "1", f"file://{origin}", clone)
    checked = run(sys.executable, clone / "release" / "version.py", "--tag", tag).strip()
    assert checked == new, checked
    # Those of the clone: what the tag lacks, it cannot use.
    made = run(sys.executable, "-c", BUILD, cwd=clone / "release")
    return tag, [Path(line) for line in made.splitlines()[-2:]]


BUILD = """
import sys, wheels
wheels.WORK.mkdir(parents=True)
source = wheels.sdist()
built = wheels.wheel(sys.executable, source, wheels.zig_compiler())
wheels.run(wheels.tool("twine"), "check", "--strict", source, built)
print(source)
print(built)
"""


def index(folder: Path, files: list[Path], wheel: Path) -> None:
    """A simple index (PEP 503): a folder for each project, with the release and all that it asks for."""
    store = folder.with_name("downloads")
    command = ["-m", "pip", "download", "--quiet", "--constraint", CONSTRAINTS, "--dest", store]
    run(sys.executable, *command, f"twohot{EXTRAS} @ {wheel.as_uri()}")
    for path in [*files, *(each for each in store.iterdir() if not each.name.startswith("twohot-"))]:
        project = folder / re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower()
        project.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, project)


def use(folder: Path, url: str, options: list[str]) -> None:
    """As a user does: an environment, `pip install` from the index alone, a training; away from everything else."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment)
    binaries = environment / "bin"
    variables = {"PATH": str(binaries), "HOME": str(folder), "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
    began = time.perf_counter()
    run(binaries / "pip", "install", "--no-cache-dir", "--index-url", url, f"twohot{EXTRAS}", cwd=folder, env=variables)
    installed = time.perf_counter()
    table = run(binaries / "twohot", "train", "quickstart", *options, cwd=folder, env=variables)
    ended = time.perf_counter()
    print(table[-3000:])
    print(f"pip install: {installed - began:.0f} s")
    print(f"twohot train quickstart {' '.join(options)}: {ended - installed:.0f} s")
    print(f"from pip install to the table: {ended - began:.0f} s, with no compiler", flush=True)
    print(
        run(binaries / "python", ROOT / "release" / "smoke.py", "--without-compiler", cwd=folder, env=variables).strip()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--version", help="the version that is rehearsed; by default the package's, with a new last number"
    )
    parser.add_argument("options", nargs="*", default=["--epochs", "12"], help="of twohot train quickstart, after --")
    arguments = parser.parse_args()
    if run("git", "status", "--porcelain", cwd=ROOT):
        print("what is not committed is not part of the rehearsal")
    first, second, third = re.findall(r"\d+", version())[:3]
    new = arguments.version or f"{first}.{second}.{int(third) + 1}"
    with tempfile.TemporaryDirectory(prefix="twohot-release-") as folder:
        place = Path(folder)
        tag, files = build(place / "clone", new)
        print(f"{tag}: {', '.join(path.name for path in files)}")
        wheels.examine(files[-1])
        index(place / "index", files, files[-1])
        handler = functools.partial(Quiet, directory=str(place / "index"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            user = place / "user"
            user.mkdir()
            use(user, f"http://127.0.0.1:{server.server_port}/", arguments.options)
            server.shutdown()
    print(f"{tag} is rehearsed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
