"""The package made ready for an interpreter that is already there: nothing is installed, nothing is downloaded.

Needs Python's standard library alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "build" / "gpu-wheels"
"""Wheels of pure Python that a machine without network lacks are put here (docs/kernels.md)."""

FACTS = """
import json, platform, sys, sysconfig
from importlib.util import find_spec
facts = {"python": platform.python_version(), "headers": sysconfig.get_path("include")}
for name in ("torch", "triton", "numpy", "gymnasium", "cloudpickle", "pytest", "xdist", "hypothesis", "pybind11"):
    try:
        facts[name] = getattr(__import__(name), "__version__", "there") if find_spec(name) else ""
    except Exception as error:
        facts[name], facts[name + " says"] = "", f"{type(error).__name__}: {error}"
if facts["torch"]:
    import torch
    facts["torch folder"] = torch.__path__[0]
    facts["cuda"] = torch.version.cuda or (f"ROCm {torch.version.hip}" if torch.version.hip else "")
    if torch.cuda.is_available():
        facts["device"] = torch.cuda.get_device_name()
if facts["pybind11"]:
    import pybind11
    facts["pybind11 cmake"] = pybind11.get_cmake_dir()
print(json.dumps(facts))
"""


def environment() -> dict[str, str]:
    """The variables of a process that finds this checkout, and what came in wheels."""
    paths = [str(ROOT / "python"), str(ROOT), *unpacked(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "THP_MEM_ALLOC_ENABLE": "1"}


def unpacked() -> list[str]:
    """The folder with what is in the wheels, if there are any."""
    folder = WHEELS / "unpacked"
    for wheel in sorted(WHEELS.glob("*.whl")):
        mark = folder / f".{wheel.name}"
        if not mark.exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            mark.touch()
    return [str(folder)] if folder.exists() else []


def facts() -> dict[str, str]:
    """What the interpreter has: versions, "" for what is not there, and the name of its GPU."""
    result = subprocess.run(
        [sys.executable, "-c", FACTS], env=environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def build(known: dict[str, str], seconds: float) -> str:
    """Compile `twohot._native` into python/twohot, for this interpreter; returns what is missing or went wrong, or "".

    pybind11 may be a package, or the headers that torch ships.
    """
    missing = [] if shutil.which("cmake") else ["cmake"]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    if not generator and not shutil.which("make"):
        missing.append("ninja or make")
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    if not compiler or not shutil.which(compiler.split()[0]):
        missing.append("C++20 compiler")
    if not Path(known["headers"], "Python.h").exists():
        missing.append(f"Python.h ({known['headers']})")
    headers = Path(known.get("torch folder", ""), "include")
    if known["pybind11"]:
        binding = f"-Dpybind11_DIR={known['pybind11 cmake']}"
    elif Path(headers, "pybind11").exists():
        binding = f"-DTWOHOT_PYBIND11_HEADERS={headers}"
    else:
        missing.append("pybind11")
    if missing:
        return f"not compiled: there is no {', no '.join(missing)}"
    folder = ROOT / "build" / f"in-place-{sys.implementation.cache_tag}"
    configure = ["cmake", "-S", ROOT, "-B", folder, *generator, f"-DPython_EXECUTABLE={sys.executable}", binding]
    configure += [f"-DTWOHOT_PYTHON_FOLDER={ROOT / 'python' / 'twohot'}", "-DCMAKE_BUILD_TYPE=Release"]
    compile_ = ["cmake", "--build", folder, "--target", "_native", "--parallel", str(os.cpu_count() or 1)]
    for command in (configure, compile_):
        output, code = run(list(map(str, command)), seconds)
        if code is None:
            return f"not compiled: it took longer than {seconds:.0f} s"
        if code:
            print(output[-3000:])
            return f"not compiled: {' '.join(map(str, command[:2]))} failed (above)"
    return ""


def run(command: list[str], seconds: float) -> tuple[str, int | None]:
    """What a command prints, and its exit code; None where it was ended because its time was up."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **options) as process:
        try:
            return process.communicate(timeout=seconds)[0], process.returncode
        except subprocess.TimeoutExpired:
            end(process)
            return process.communicate()[0], None


def end(process: subprocess.Popen) -> None:
    """End a process and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
