"""What this installation can do, and why: versions, devices, native code, environments."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from twohot.errors import CorruptRunError
from twohot.files import read_object

if TYPE_CHECKING:
    from twohot.kernels.backend import Choice

PACKAGES = ("torch", "numpy", "gymnasium", "triton", "popgym")
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""What tells kinds of processors apart, as Linux names it, the newest first."""
START_NAME = "run.json"
"""In a run directory, what `describe_run` said when it was started, and where it was continued off plan."""


def environment_info() -> dict[str, str]:
    """Label to value, in the order in which a person would ask."""
    import torch

    run = describe_run()
    result = {"twohot": run["version"], "python": f"{run['python']} on {run['platform']}"}
    result["native module"] = _native()
    result.update({name: _version(name) for name in PACKAGES})
    result["cpu"] = run["cpu"]
    result["gpu"] = (
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else "none that this torch can use"
    )
    pages = os.environ.get("THP_MEM_ALLOC_ENABLE")
    result["huge pages"] = "on (THP_MEM_ALLOC_ENABLE=1)" if pages == "1" else "off (the twohot command turns them on)"
    return result


def attention_info(device: str, dtype: str, head_size: int) -> dict[str, str]:
    """Which implementation of attention runs for such tensors, and why.

    Args:
        device: type of the device. dtype: name of a torch dtype, of the cache too. head_size: D.
    """
    import torch

    from twohot.kernels.backend import choose_attention, choose_decode

    where, kind = torch.device(device), getattr(torch, dtype)
    choices = {
        "windows": partial(choose_attention, where, kind, head_size, False),
        "windows with softcap": partial(choose_attention, where, kind, head_size, True),
        "one step": partial(choose_decode, where, kind, kind, head_size),
    }
    return {label: _said(choose) for label, choose in choices.items()}


def _said(choose: Callable[[], Choice]) -> str:
    try:
        choice = choose()
    except RuntimeError as error:
        return f"error ({error})"
    return f"{choice.name} ({choice.reason})"


def describe_run() -> dict[str, str]:
    """Where and when a run starts, for its `run.json`.

    Call it once the number of torch's threads is set, which is part of the answer.

    Returns:
        `version` of twohot, `python`, `torch` and `platform`; `cpu`: cores that this process may use, torch's threads
        and vector instructions; `processor`: see `processor`; `commit`: see `commit`; `started`: now, in UTC, as
        ISO 8601 to the second.
    """
    import torch

    import twohot

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "version": twohot.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "platform": platform.platform(),
        "cpu": f"{cpus} cores, {torch.get_num_threads()} torch threads, {capability}",
        "processor": ", ".join(processor()),
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


@cache
def processor() -> tuple[str, str]:
    """The name of the processor, and the newest of INSTRUCTIONS that it has, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = about.get("flags", "").split()
    found = next((name for name in INSTRUCTIONS if name in flags), platform.machine())
    return about.get("model name", platform.processor()), found


@cache
def commit() -> str:
    """The commit of the checkout that this package lies in, marked where files differ from it; else its version."""
    import twohot

    package = Path(twohot.__file__).parent
    git = ["git", "-C", str(package), "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty"]
    try:
        subprocess.run([*git[:3], "ls-files", "--error-unmatch", "__init__.py"], check=True, capture_output=True)
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout of this project
        return twohot.__version__


def read_start(run: Path) -> dict[str, str]:
    """What `run.json` says of how a run was started and continued; empty where there is no such file.

    Raises:
        CorruptRunError: the file holds something else.
    """
    path, remedy = run / START_NAME, "delete it: the report goes without it"
    start = read_object(path, remedy)
    if not all(isinstance(value, str) for value in start.values()):
        raise CorruptRunError(f"{path}: expected a flat object of strings, got {json.dumps(start)[:80]}: {remedy}")
    return start


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _native() -> str:
    try:
        from twohot import _native
    except ImportError as error:
        return f"cannot be imported: {error}"
    return f"{_native.__file__}, {_native.cpu_capability()} kernels ({_native.cpu_capability_reason()})"
