"""What this installation can do, and why: versions, devices, native code, environments."""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import sysconfig
import uuid
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
JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Set by Slurm, PBS, LSF and Grid Engine in their jobs."""
START_NAME = "run.json"
"""In a run directory, what `describe_run` said when it was started, and where it was continued off plan."""


def environment_info() -> dict[str, str]:
    """Label to value, in the order in which a person would ask."""

    run = describe_run()
    result = {"twohot": run["version"], "python": f"{run['python']} on {run['platform']}"}
    result["native module"] = _native()
    result.update({name: _version(name) for name in PACKAGES})
    result["cpu"] = run["cpu"]
    result["gpu"] = run.get("gpu", "none that this torch can use")
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
        `version` of twohot, `python`, `torch`, `numpy`, `gymnasium` and `platform`; `host`; `cpu`: cores that this
        process may use, torch's threads and vector instructions; `processor`: see `processor`; `gpu`: those that torch
        can use; `commit`: see `commit`; `code`: see `own_code`; `command`: what started this process; `job`: see `job`;
        `started`: now, in UTC, as ISO 8601 to the second. `identity`: letters and digits that no other run has, by
        which trackers know it again, wherever its directory is. What does not apply is left out.
    """
    import torch

    import twohot

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capability = torch.backends.cpu.get_cpu_capability()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    described = {
        "version": twohot.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "gymnasium")},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": f"{cpus} cores, {torch.get_num_threads()} torch threads, {capability}",
        "processor": ", ".join(processor()),
        "gpu": ", ".join(torch.cuda.get_device_name(index) for index in range(gpus)),
        "commit": commit(),
        "code": own_code(),
        "command": shlex.join(sys.orig_argv),
        "job": job(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "identity": uuid.uuid4().hex[:12],
    }
    return {label: value for label, value in described.items() if value}


def describe_kernels(device: str, dtype: str, head_size: int, bins: int) -> str:
    """Which implementations run in a training with such tensors, for its `run.json`.

    Args:
        device: of the training. dtype: name of the torch dtype of its updates. head_size: D. bins: N.
    """
    import torch

    from twohot.kernels.backend import choose_attention, choose_decode, choose_two_hot, native

    where, kind = torch.device(device), getattr(torch, dtype)
    choices = {
        "attention": partial(choose_attention, where, kind, head_size, False),
        "a step of attention": partial(choose_decode, where, torch.float32, torch.float32, head_size),
        "two-hot": partial(choose_two_hot, where, kind, bins),
    }
    found = [f"{label} {_said(choose).partition(' (')[0]}" for label, choose in choices.items()]
    return ", ".join([*found, *([f"native code {native.cpu_capability()}"] if native else [])])


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
    """The commit of the checkout that this package lies in, marked where its sources differ; else its version."""
    import twohot

    package = Path(twohot.__file__).parent
    sources = (".", ":/csrc")  # not the rows of a study, which grow while its runs come in
    return described_commit(package, sources, "ls-files", "--error-unmatch", "__init__.py") or twohot.__version__


def own_code() -> str:
    """The commit of the user's checkout and where it is, marked where files differ from it; empty where there is none.

    It is the one of the script that runs; of the working directory where that is `twohot` itself, or a notebook.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = Path(script).resolve().parent if script else Path.cwd()
    if folder in (Path(sysconfig.get_path("scripts")).resolve(), Path(__file__).resolve().parent):
        folder = Path.cwd()
    described = described_commit(folder, (":/",), "rev-parse", "--is-inside-work-tree")
    return f"{described} in {folder}" if described else ""


def job() -> str:
    """The job of a cluster in which this process runs, by the variables that say so; empty where there is none."""
    return ", ".join(f"{name}={os.environ[name]}" for name in JOB_VARIABLES if os.environ.get(name))


def described_commit(folder: Path, sources: tuple[str, ...], *condition: str) -> str:
    """The commit of a folder, with "-dirty" where what `sources` (pathspecs) hold differs from it.

    Empty where the condition, a git command, does not hold, or there is no git.
    """
    git = ["git", "-C", str(folder)]
    describe = [*git, "describe", "--always", "--abbrev=7", "--exclude=*"]
    try:
        subprocess.run([*git, *condition], check=True, capture_output=True)
        found = subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
        differ = [*git, "diff", "--quiet", "HEAD", "--", *sources]
        return f"{found}-dirty" if subprocess.run(differ, check=False, capture_output=True).returncode else found
    except (OSError, subprocess.CalledProcessError):  # no git, no checkout, or no commit in it
        return ""


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
