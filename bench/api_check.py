"""Name every interface of torch and Triton that our sources use and that an installation lacks, without importing it.

    python -m bench.api_check              # against the torch and Triton of this interpreter
    python -m bench.api_check FOLDER...    # against unpacked wheels of other versions

A small wheel of torch with all sources: pip download torch==2.11.0 --no-deps --only-binary :all: --platform
macosx_11_0_arm64. Names are followed from imports (`torch.nn.functional.pad`, `tl.dot`), with the keywords of functions
that are written in Python; methods of tensors are told by their names. The exit code is 1 where something is missing.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("python/twohot", "bench")
PACKAGES = ("torch", "triton")
DYNAMIC = ("torch.ops", "torch.classes", "torch.version", "torch._C", "torch.backends", "triton.backends")
"""Modules whose names are made as they are asked for, or when the package is built."""
STUBS = {"torch": ("torch/_C/__init__.pyi", "torch/_C/_VariableFunctions.pyi")}
"""Where a module has names that its own file does not show."""


Definition = ast.AST | tuple[str, str]
"""What binds a name: a node, or for an import the module and the name there."""


@dataclass(frozen=True)
class Use:
    """A name, its keywords where it is called, and where in our sources."""

    name: str
    keywords: tuple[str, ...]
    where: str


def uses(path: Path) -> Iterator[Use]:
    """What a file of ours uses of `PACKAGES`; a method of something unknown as "torch.Tensor.method"."""
    tree = ast.parse(path.read_text())
    aliases: dict[str, str] = {}
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] in PACKAGES:
                    aliases[each.asname or each.name.split(".")[0]] = (
                        each.name if each.asname else each.name.split(".")[0]
                    )
                    yield Use(each.name, (), f"{shown}:{node.lineno}")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            for each in node.names:
                aliases[each.asname or each.name] = f"{node.module}.{each.name}"
                yield Use(f"{node.module}.{each.name}", (), f"{shown}:{node.lineno}")
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        call = calls.get(id(node))
        keywords = tuple(each.arg for each in call.keywords if each.arg) if call else ()
        if isinstance(node, ast.Name) and call and node.id in aliases:
            yield Use(aliases[node.id], keywords, f"{shown}:{node.lineno}")
        if not isinstance(node, ast.Attribute):
            continue
        dotted = _dotted(node)
        if dotted and dotted[0] in aliases:
            if id(node) not in inner:
                yield Use(".".join((aliases[dotted[0]], *dotted[1:])), keywords, f"{shown}:{node.lineno}")
        elif call:
            yield Use(f"torch.Tensor.{node.attr}", (), f"{shown}:{node.lineno}")


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """("a", "b", "c") of a.b.c; () of anything else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return (*before, node.attr)
    return ()


class Installation:
    """The sources and stubs of `PACKAGES` in folders: what they define, without running them."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self._modules: dict[str, dict[str, list[Definition]]] = {}

    def files(self, module: str) -> list[Path]:
        """The files of a module: its own, and its stub."""
        stems = [folder.joinpath(*module.split(".")) for folder in self.folders]
        named = [stem.with_name(stem.name + end) for stem in stems for end in (".py", ".pyi")]
        named += [stem / f"__init__{end}" for stem in stems for end in (".py", ".pyi")]
        named += [folder / each for each in STUBS.get(module, ()) for folder in self.folders]
        return [path for path in named if path.exists()]

    def names(self, module: str) -> dict[str, list[Definition]]:
        """What a module defines, by its names."""
        if module not in self._modules:
            found = self._modules[module] = {}  # there already where modules import each other in a circle
            for path in self.files(module):
                for node in _statements(ast.parse(path.read_text())):
                    self._add(node, module, path.name.startswith("__init__"), found)
        return self._modules[module]

    def _add(self, node: ast.AST, module: str, package: bool, found: dict[str, list[Definition]]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Name):
            found.setdefault(node.id, []).append(node)
        elif isinstance(node, ast.Import):
            for each in node.names:
                found.setdefault(each.asname or each.name.split(".")[0], []).append(node)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for each in node.names:
                if each.name != "*":
                    found.setdefault(each.asname or each.name, []).append((base, each.name))
                    continue
                for name, defined in self.names(base).items():
                    found.setdefault(name, []).extend(defined)

    def definitions(self, module: str, name: str, seen: frozenset = frozenset()) -> list[ast.AST]:
        """The nodes that define a name of a module, where they can be followed."""
        found: list[ast.AST] = []
        for each in self.names(module).get(name, []):
            if not isinstance(each, tuple):
                found.append(each)
            elif each not in seen:
                found += self.definitions(*each, seen | {each}) or [ast.Pass()]
        return found

    @cached_property
    def tensor_names(self) -> set[str]:
        """Methods and attributes of tensors."""
        nodes = [*self.definitions("torch._C", "TensorBase"), *self.definitions("torch._tensor", "Tensor")]
        return {name for node in nodes for name in _members(node)}

    def lacks(self, use: Use) -> str:
        """What of a use is not there: a name, or a keyword; "" where nothing is."""
        parts = use.name.split(".")
        if parts[:2] == ["torch", "Tensor"] and len(parts) > 2:
            return "" if parts[2] in self.tensor_names else ".".join(parts[:3])
        if any(f"{use.name}.".startswith(f"{each}.") for each in DYNAMIC):
            return ""
        depth = max((i for i in range(1, len(parts) + 1) if self.files(".".join(parts[:i]))), default=0)
        if depth == len(parts):
            return ""
        nodes = self.definitions(".".join(parts[:depth]), parts[depth])
        if not nodes:
            return ".".join(parts[: depth + 1])
        accepted = _keywords(nodes) if depth + 1 == len(parts) else None
        wrong = [each for each in use.keywords if accepted is not None and each not in accepted]
        return f"{use.name}({wrong[0]}=)" if wrong else ""


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What a module or class binds: definitions, imports and assigned names, also under `if`, `try` and the like."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, (ast.Assign, ast.AnnAssign)):
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            yield from (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(each, (ast.If, ast.Try, ast.With, ast.For, ast.ExceptHandler)):
            yield from _statements(each)
        elif isinstance(each, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
            yield each


def _members(node: ast.AST) -> set[str]:
    """The names that a class binds."""
    named = (getattr(each, "name", getattr(each, "id", "")) for each in _statements(node))
    return set(named) if isinstance(node, ast.ClassDef) else set()


def _keywords(nodes: list[ast.AST]) -> set[str] | None:
    """The keywords that any of these definitions takes; None where that cannot be told."""
    found: set[str] = set()
    for node in nodes:
        if not isinstance(node, ast.FunctionDef) or node.args.kwarg or node.decorator_list:
            return None  # a decorator may change what it takes
        found |= {each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    return found


def missing(installation: Installation, newest: Installation | None = None) -> dict[str, list[str]]:
    """What is lacking, and where it is used. Methods are of tensors where `newest` has tensors with such a method."""
    known, here = (newest or installation).tensor_names, [name for name in PACKAGES if installation.files(name)]
    found: dict[str, list[str]] = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for use in uses(path):
                if use.name.startswith("torch.Tensor.") and use.name.split(".")[2] not in known:
                    continue
                if use.name.split(".")[0] in here and (what := installation.lacks(use)):
                    found.setdefault(what, []).append(use.where)
    return found


def installed() -> Installation:
    """Of this interpreter."""
    folders = []
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            folders.append(Path(found.origin).parents[1])
    return Installation(list(dict.fromkeys(folders)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="with torch/ or triton/ in them")
    options = parser.parse_args()
    here = installed()
    other = Installation(options.folders) if options.folders else here
    packages = [name for name in PACKAGES if other.files(name)]
    if not packages:
        where = ", ".join(map(str, options.folders)) or "this interpreter"
        parser.error(f"no {' or '.join(PACKAGES)} in {where}: give folders with one of them in it")
    found = missing(other, here if here.files("torch") else None)
    for name, places in sorted(found.items()):
        print(f"{name}: {', '.join(dict.fromkeys(places))}")
    print(f"{len(found)} names are missing of {' and '.join(packages)}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
