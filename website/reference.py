"""Which names are public, read from the sources without importing them, and the pages that explain them.

Public is what a module of `twohot` lists in `__all__`, where no part of the module's name begins with an underscore.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

WITHOUT_HEADING = "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"
PACKAGE = Path(__file__).resolve().parents[1] / "python" / "twohot"
GROUPS = {
    "twohot": "The package",
    "twohot.losses": "Losses",
    "twohot.attention": "Attention",
    "twohot.replay": "Replay",
    "twohot.rl": "RL mathematics",
    "twohot.nets": "Networks",
    "twohot.envs": "Environments",
    "twohot.config": "Settings",
    "twohot.presets": "Presets",
}
"""Modules that come first, with their titles; each other one stands under its own name."""


def listed(source: str) -> list[str]:
    """The `__all__` of a module's source; empty where it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == "__all__" for target in node.targets):
            return [name for name in ast.literal_eval(node.value) if not name.startswith("__")]
    return []


@cache
def public_names() -> dict[str, list[str]]:
    """Public names by module, the modules of GROUPS first."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("twohot", *path.relative_to(PACKAGE).with_suffix("").parts)
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names = listed(path.read_text())
        if names and not any(part.startswith("_") for part in module.split(".")):
            found[module] = names
    return {module: found[module] for module in [*GROUPS, *sorted(set(found) - set(GROUPS))]}


def pages() -> dict[str, str]:
    """Markdown of the API reference by address: a page a module, and one that lists them."""
    written, table = {}, ["# API reference", "", "| module | names |", "| --- | --- |"]
    for module, names in public_names().items():
        address = f"api/{module}.md"
        body = [f"# {module}", "", f"::: {module}", WITHOUT_HEADING, ""]
        for name in names:
            body += [f"::: {module}.{name}", ""]
        written[address] = "\n".join(body)
        linked = ", ".join(f"[`{name}`][{module}.{name}]" for name in names)
        table.append(f"| [{module}]({module}.md) | {linked} |")
    return {"api/index.md": "\n".join(table) + "\n", **written}
