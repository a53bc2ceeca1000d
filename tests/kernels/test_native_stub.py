"""The stub of the native module names what the module has, and nothing else."""

import ast
import types
from pathlib import Path

import twohot
from twohot import _native

STUB = Path(twohot.__file__).with_name("_native.pyi")
DESCRIPTIVE = {"__doc__", "__module__", "__dict__", "__weakref__"}


def public(name: str) -> bool:
    """Whether a name is not private: `__init__` is public, `_Field` and pybind11's own `_pybind11_...` are not."""
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__") and name not in DESCRIPTIVE)


def declared(body: list[ast.stmt], owner: str = "") -> dict[str, str]:
    """Public name to kind, of the stub; members as `Class.member`."""
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.ClassDef) and public(node.name):
            found[owner + node.name] = "class"
            found |= declared(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and public(node.name):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            is_data = "property" in decorators or any(name.endswith((".setter", ".deleter")) for name in decorators)
            found[owner + node.name] = "data" if is_data else "function"
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            found |= {owner + name: "data" for name in map(ast.unparse, targets) if public(name)}
    return found


def present(scope: types.ModuleType | type, owner: str = "") -> dict[str, str]:
    """Public name to kind, of the module; members as `Class.member`, without what they inherit."""
    found: dict[str, str] = {}
    for name, value in vars(scope).items():
        if not public(name) or (isinstance(scope, types.ModuleType) and name.startswith("__")):
            continue
        if isinstance(value, type):
            found[owner + name] = "class"
            found |= present(value, f"{owner}{name}.")
        else:
            bound = getattr(scope, name)  # a static method is callable once it is bound
            found[owner + name] = "function" if callable(bound) else "data"
    return found


def test_the_stub_and_the_module_have_the_same_names():
    stub = declared(ast.parse(STUB.read_text(encoding="utf-8")).body)
    module = present(_native)
    assert {"ReplayStore": "class", "ReplayStore.add": "function", "ReplayStore.random_state": "data"}.items() <= (
        module.items()
    )
    assert stub == module
