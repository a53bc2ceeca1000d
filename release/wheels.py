"""An sdist, and from it a manylinux_2_28 wheel for each Python, examined and tried where there is no compiler.

`make wheels` runs it in an environment that has release/tools.txt. Zig's compiler links against the glibc that is
named, whatever the machine has, with a C++ library of its own inside of the module: no image of an old system is
needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheels"
DIST = ROOT / "dist"
GLIBC = "2.28"
PLATFORM = f"manylinux_{GLIBC.replace('.', '_')}_{platform.machine()}"
CONSTRAINTS = ROOT / "constraints.txt"
BUILD_NEEDS = ("scikit-build-core", "pybind11", "cmake", "ninja")


def pythons() -> list[str]:
    """One of each supported version, on PATH or of pyenv."""
    found = []
    for v in re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()):
        places = [shutil.which(f"python{v}"), *map(str, Path.home().glob(f".pyenv/versions/{v}.*/bin/python"))]
        found += [each for each in places if each and succeeds(each, "--version")][:1]  # pyenv's on PATH may not run
    return found


def succeeds(*command: str | Path) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def tool(name: str) -> Path:
    return Path(sys.executable).parent / name


def environment(python: str, folder: Path, *packages: str | Path, options: Sequence[str] = ()) -> Path:
    """The Python of a new environment with these packages."""
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", *options, folder)
    result = folder / "bin" / "python"
    run(result, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, *packages)
    return result


def without_compiler(*folders: Path) -> dict[str, str]:
    """This process's variables, where programs are found in these folders alone."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "PYTHONPATH")}
    return kept | {"PATH": os.pathsep.join(map(str, folders))}


def header_flags(python: str, folder: Path) -> str:
    """What lets Zig, which does not look into the system's folders, find the second half of Debian's pyconfig.h."""
    code = "import sysconfig as s; print(s.get_path('include')); print(s.get_config_var('MULTIARCH') or '')"
    include, system = run(python, "-c", code).splitlines()
    second = Path(include).parent / system / Path(include).name
    if not system or not second.exists():
        return ""
    link = folder / "include" / system / second.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(second)
    return f"-I{folder / 'include'}"


def zig_compiler() -> Path:
    """A command that compiles for this processor's architecture and an old glibc, as one name for CMake and ccache.

    Beside it are the archiver's, so that nothing of the system's is needed.
    """
    import ziglang

    zig = Path(ziglang.__file__).parent / "zig"
    folder = WORK / "zig"
    folder.mkdir(exist_ok=True)
    commands = {"zig-c++": f"c++ -target {platform.machine()}-linux-gnu.{GLIBC}", "ar": "ar", "ranlib": "ranlib"}
    for name, command in commands.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{zig}" {command} "$@"\n')
        path.chmod(0o755)
    return folder / "zig-c++"


def sdist() -> Path:
    shutil.rmtree(WORK / "sdist", ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", WORK / "sdist", ROOT)
    [found] = (WORK / "sdist").glob("*.tar.gz")
    return found


def wheel(python: str, source: Path, compiler: Path) -> Path:
    """Built from the sdist, which is unpacked to one place so that ccache knows it again."""
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    folder = WORK / version
    builder = environment(python, folder / "build", *BUILD_NEEDS)
    shutil.rmtree(folder / "raw", ignore_errors=True)
    variables = os.environ | {
        "CXX": str(compiler),
        "CXXFLAGS": header_flags(python, folder),
        "LDFLAGS": "-s",  # there may be no program that strips
        "PATH": os.pathsep.join(map(str, (builder.parent, compiler.parent, os.environ["PATH"]))),
        # Only the bindings would be optimised while linking, and Zig compiles its C++ library anew for it.
        "SKBUILD_CMAKE_DEFINE": "CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
    }
    if shutil.which("ccache"):
        variables |= {
            "CMAKE_CXX_COMPILER_LAUNCHER": "ccache",
            "CCACHE_BASEDIR": str(WORK),
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_COMPILERTYPE": "clang",
            "CCACHE_COMPILERCHECK": f"string:{PLATFORM} {distribution_version('ziglang')}",
        }
    shutil.rmtree(WORK / "source", ignore_errors=True)
    with tarfile.open(source) as archive:
        archive.extractall(WORK / "source", filter="data")
    [unpacked] = (WORK / "source").iterdir()
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    run(builder, *command, folder / "raw", unpacked, env=variables)
    [raw] = (folder / "raw").glob("*.whl")
    shutil.rmtree(folder / "repaired", ignore_errors=True)
    with_patchelf = os.environ | {"PATH": f"{tool('patchelf').parent}{os.pathsep}{os.environ['PATH']}"}
    run(tool("auditwheel"), "repair", "--plat", PLATFORM, "--wheel-dir", folder / "repaired", raw, env=with_patchelf)
    [result] = (folder / "repaired").glob("*.whl")
    return result


def examine(wheel: Path) -> None:
    shown = run(tool("auditwheel"), "show", wheel)
    [tag] = re.findall(r'consistent with\s+the\s+following\s+platform\s+tag:\s+"(\S+?)"', shown)
    newest = max(re.findall(r"GLIBC_(\d+)\.(\d+)", shown), key=lambda found: tuple(map(int, found)))
    print(f"  auditwheel: {tag}; the newest symbol is of glibc {'.'.join(newest)}")
    if PLATFORM not in wheel.name:
        raise SystemExit(f"{wheel.name} is not for {PLATFORM}")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [entry.filename for entry in archive.infolist() if ".so" in entry.filename]
        print(f"  {wheel.stat().st_size / 2**20:.1f} MiB, native code: {', '.join(libraries)}")
        if len(libraries) != 1:
            raise SystemExit("expected the native module alone")


def try_out(python: str, wheel: Path, extras: str) -> None:
    """In a new environment, with no compiler on PATH; with that Python's own torch, or the index's without CUDA."""
    folder, constraints = WORK / "try", WORK / "constraints.txt"
    text = CONSTRAINTS.read_text()
    [torch] = re.findall(r"^torch==\S+", text, re.MULTILINE)
    own = succeeds(python, "-c", "import torch, importlib.metadata as m; m.version('torch')")  # else pip knows none
    constraints.write_text(text.replace(torch, "") if own else text)
    installed = environment(python, folder, "numpy", options=("--system-site-packages",) if own else ())
    pip = (installed, "-m", "pip", "install", "--quiet")
    if own or succeeds(*pip, "--dry-run", "--no-deps", f"{torch}+cpu"):
        run(*pip, "--constraint", constraints, f"twohot{extras} @ {wheel.as_uri()}")
    else:
        run(*pip, "--no-deps", wheel)
    smoke = run(
        installed, ROOT / "release" / "smoke.py", "--without-compiler", cwd=folder, env=without_compiler(folder)
    )
    print("  " + smoke.strip().replace("\n", "\n  "))
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="*", default=pythons(), help="by default each supported one on PATH")
    parser.add_argument("--extras", default="[train]", help="what is installed with the wheel to try it")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    DIST.mkdir(exist_ok=True)
    source, compiler = sdist(), zig_compiler()
    made = [source]
    print(f"{source.name}: {source.stat().st_size / 2**20:.1f} MiB", flush=True)
    for python in arguments.python:
        built = wheel(python, source, compiler)
        made.append(built)
        print(built.name)
        examine(built)
        try_out(python, built, arguments.extras)
        sys.stdout.flush()
    print(run(tool("twine"), "check", "--strict", *made).strip())
    for path in made:
        shutil.copy2(path, DIST)
    return 0


if __name__ == "__main__":
    sys.exit(main())
