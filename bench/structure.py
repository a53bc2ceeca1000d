"""How the package is built: modules in its root, floors and circles of its imports, lines of code.

    python bench/structure.py                # of this tree
    python bench/structure.py --since REV    # and what changed: lines of code then, existing files that were edited

A room is a module of the root or a sub-package; it stands one floor above the highest room that it imports. Imports
inside functions count, those for type checkers alone do not.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "twohot"


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    return {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def root_modules() -> list[str]:
    """The modules of the package's root, without `__init__` and `__main__`."""
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))


def imports(path: Path, known: Iterable[str]) -> set[str]:
    """The modules among those known that a file imports."""
    found = set()
    for node in _executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
    return found & set(known)


def module_graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports; a package's own `__init__`, which hands names on, imports nothing."""
    known = modules()
    return {
        name: set() if path.name == "__init__.py" else imports(path, known) - {name} for name, path in known.items()
    }


def room_graph() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        if name in ("twohot", "twohot.__main__"):
            continue
        room = _room(name)
        others = {_room(other) for other in imports(path, known) if other != "twohot"}
        graph.setdefault(room, set()).update(others - {room})
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, by Tarjan's algorithm (1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            start = stack.index(node)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in order:
            visit(node)
    return sorted(found)


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each node, 1 for one that imports nothing; the nodes of a circle share theirs."""
    home = {node: node for node in graph} | {node: circle[0] for circle in circles(graph) for node in circle}
    merged: dict[str, set[str]] = {home[node]: set() for node in graph}
    for node, others in graph.items():
        merged[home[node]] |= {home[other] for other in others} - {home[node]}
    found: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in found:
            found[node] = 1 + max((floor(other) for other in merged[node]), default=0)
        return found[node]

    return {node: floor(home[node]) for node in graph}


def lines_of_code(sources: Iterable[str]) -> int:
    """Lines of Python that hold more than docstrings, comments and blanks."""
    return sum(len(_lines(source)) for source in sources)


def lines_of_cpp(sources: Iterable[str]) -> int:
    """Lines of C++ that hold more than comments and blanks."""
    lines = (line.strip() for source in sources for line in source.splitlines())
    return sum(bool(line) and not line.startswith("//") for line in lines)


def sources_at(revision: str, suffixes: tuple[str, ...]) -> list[str]:
    """What is installed or compiled, at a revision; the kernels once stood beside the package."""
    listed = _git("ls-tree", "-r", "--name-only", revision, "--", "python/twohot", "kernels", "csrc").splitlines()
    paths = [path for path in listed if path.endswith(suffixes) and not path.startswith("csrc/tests/")]
    return [_git("show", f"{revision}:{path}") for path in paths]


def edited_since(revision: str) -> tuple[list[str], int]:
    """The files that were there and were edited since a revision, tests and pages apart; how many files are new."""
    changed = [line.split("\t") for line in _git("diff", "--name-status", "--no-renames", revision).splitlines()]
    edited = [path for kind, path in changed if kind != "A" and not path.startswith(("tests/", "csrc/tests/", "docs/"))]
    new = [path for kind, path in changed if kind == "A"] + _git("ls-files", "-o", "--exclude-standard").splitlines()
    return [path for path in edited if not path.endswith(".md")], len(new)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _lines(source: str) -> set[int]:
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        # Of modules, classes and functions, and the sentences under fields and constants.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, node.end_lineno + 1))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            found |= set(range(token.start[0], token.end[0] + 1))
    return found - docstrings


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that run, those under `if TYPE_CHECKING` left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _executed(other)
            continue
        yield child
        yield from _executed(child)


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def main() -> None:
    """Print what the structure is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", metavar="REV", help="a revision to compare with")
    since = parser.parse_args().since
    rooms, graph = room_graph(), module_graph()
    height = floors(rooms)
    print(f"modules in the root: {len(root_modules())} ({', '.join(root_modules())})")
    print(f"rooms: {len(rooms)}, arrows: {sum(map(len, rooms.values()))}, floors: {max(height.values())}")
    for level in range(max(height.values()), 0, -1):
        print(f"  {level}: {', '.join(sorted(room[7:] for room in rooms if height[room] == level))}")
    print(f"circles of rooms: {circles(rooms) or 'none'}")
    print(f"circles of modules: {circles(graph) or 'none'}")
    cpp = (path for path in (ROOT / "csrc").rglob("*.*") if "tests" not in path.parts)
    print(f"lines of Python: {lines_of_code(path.read_text() for path in modules().values())}", end=", ")
    print(f"of C++: {lines_of_cpp(path.read_text() for path in cpp)}")
    if since:
        edited, new = edited_since(since)
        then = lines_of_code(sources_at(since, (".py",))), lines_of_cpp(sources_at(since, (".cc", ".h")))
        print(f"lines at {since}: of Python {then[0]}, of C++ {then[1]}")
        print(f"existing files edited since, tests and pages apart: {len(edited)}; new files: {new}")
        for path in edited[:20]:
            print(f"  {path}")


if __name__ == "__main__":
    main()
