"""What `pip install twohot` leaves out, and the command that brings it on this machine.

The package itself needs torch and numpy. The extra `train` is what training, environments, reports and the command line
need; other extras are for one suite or format each (`pyproject.toml`).
"""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from twohot.errors import TwohotError

TRAIN = ("PIL", "cloudpickle", "gymnasium", "matplotlib", "rich", "safetensors", "tensorboard", "tyro")
"""What the extra `train` brings, as it is imported; but for tomli, which Python itself has from 3.11 on."""


class MissingExtraError(TwohotError, ImportError):
    """Packages of an extra that are not installed; the message has the command that installs them."""


def require(*modules: str, who: str = "training, environments, reports and the command line") -> None:
    """Raise MissingExtraError unless these modules of the extra `train` can be found. Imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        install = here("pip install 'twohot[train]'")
        raise MissingExtraError(
            f"{who} need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: {install}"
        )


def package(module: str, extra: str, what: str) -> ModuleType:
    """A module of an extra, which `what` needs. Raises MissingExtraError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        install = here(f"pip install 'twohot[{extra}]'")
        raise MissingExtraError(f"{what} needs another package: {install} ({error})") from error


def here(command: str) -> str:
    """A command in which 'twohot[EXTRA]' is what installs that extra of this very package: an index may not have it.

    The index is right where the package came from one; a checkout is named by its path, an archive or a repository by
    its address (PEP 610).
    """
    return re.sub(r"'twohot\[([\w,-]+)\]'", lambda found: _requirement(found[1]), command)


def _requirement(extras: str) -> str:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # takes as long to import as twohot.replay

    origin = _origin()
    url = str(origin.get("url", ""))
    if "dir_info" not in origin:
        version_control = origin.get("vcs_info", {})
        if version_control:
            url = f"{version_control.get('vcs')}+{url}@{version_control.get('commit_id')}"
        return f"'twohot[{extras}] @ {url}'" if url else f"'twohot[{extras}]'"
    checkout = Path(url2pathname(urlsplit(url).path))
    if not (checkout / "pyproject.toml").is_file():
        return f"'twohot[{extras}]'"
    where = "." if checkout == Path.cwd() else str(checkout)
    quoted = f"'{where}[{extras}]'" if "'" not in where else shlex.quote(f"{where}[{extras}]")
    return f"-e {quoted}" if origin["dir_info"].get("editable") else quoted


def _origin() -> dict[str, dict]:
    """What the installer noted of where this package is from; empty where it is from an index or was not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = json.loads(distribution("twohot").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}
