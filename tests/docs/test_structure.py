"""The package's rooms: few modules in the root, arrows that run down, old names that still import."""

import importlib
import sys
import warnings

import pytest

import twohot
from bench import structure
from twohot._moved import MOVED


def test_the_root_holds_few_modules():
    assert len(structure.root_modules()) <= 10


def test_imports_run_down():
    assert structure.circles(structure.room_graph()) == []
    assert structure.circles(structure.module_graph()) == []
    assert max(structure.floors(structure.room_graph()).values()) <= 9


def test_circles_and_floors_of_a_small_graph():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert structure.circles(graph) == [["b", "c"]]
    assert structure.floors(graph) == {"d": 1, "b": 2, "c": 2, "a": 3, "e": 4}


def test_imports_for_type_checkers_and_in_functions(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "import p.q\n"
        "if TYPE_CHECKING:\n    import p.types\n"
        "def f():\n    from p import r, name\n"
    )
    assert structure.imports(path, {"p", "p.q", "p.r", "p.types"}) == {"p.q", "p.r", "p"}


def test_lines_of_code_are_neither_docstrings_nor_comments_nor_blanks(tmp_path):
    path = tmp_path / "m.py"
    path.write_text('"""Two\nlines."""\n\n# a comment\nx = (\n    1,  # one\n)\n"""Of x."""\ndef f():\n    return x\n')
    assert structure.lines_of_code([path.read_text()]) == 5


@pytest.mark.parametrize("old", MOVED)
def test_old_names_import_and_warn(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}; 0.3 drops the old name"):
        found = importlib.import_module(old)
    new = importlib.import_module(MOVED[old])
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", None) == new.__name__]
    names = [name for name in own if not name.startswith("__")]
    assert names
    assert all(getattr(found, name) is getattr(new, name) for name in names)
    assert dir(found) == dir(new)
    assert new.__spec__.name == new.__name__ == MOVED[old]


def test_what_the_package_shows_is_there():
    assert {"Agent", "Replay", "ValueBins", "losses", "rl"} <= set(dir(twohot))
    assert not [name for name in dir(twohot) if name.startswith("_") and name != "__version__"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(getattr(twohot, name) is not None for name in dir(twohot))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        twohot.nothing  # noqa: B018
