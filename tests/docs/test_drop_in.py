"""The pages of docs/drop_in as pages, and how their edits are read; `test_drop_in_*.py` run them."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from pathlib import Path

import pytest

from drop_in import FOLDER, HOSTS, edited

PAGES = sorted(FOLDER.glob("*.md"))


def test_there_is_a_page_for_each_host() -> None:
    assert {page.stem for page in PAGES} == {"README", "amago", "dqn_sac", "dreamerv3", "tdmpc2"}
    assert {folder.name for folder in HOSTS.iterdir()} == {"amago", "dreamerv3_torch", "r2dreamer", "sheeprl", "tdmpc2"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_line_widths(page: Path) -> None:
    text = page.read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text) if "://" not in target]
    assert not [target for target in linked if not (page.parent / target).exists()]
    assert not [line for line in text.splitlines() if len(line) > 120]


FILE = """import a


def f(x):
    y = x  # out
    z = y
    return z  # out


class C:
    def f(self):
        return 1  # out
"""


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("# m.py\nimport b\n", FILE + "import b\n"),
        ("# n.py\nimport b\n", "import b\n"),
        ("# m.py, in f\nreturn y\n", FILE.replace("    y = x  # out\n", "").replace("return z  # out", "return y\n")),
        (
            "# m.py, in C.f\nif self:\n    return 2\n",
            FILE.replace("return 1  # out\n", "if self:\n            return 2\n\n"),
        ),
        ("# m.py, in place of C\nC = 1\n", FILE[: FILE.index("class C")] + "C = 1\n\n"),
        ("# m.py, in place of f and C\nf = 1\n", "import a\n\n\nf = 1\n\n\n\n"),
    ],
)
def test_a_block_goes_where_its_first_line_says(block: str, expected: str) -> None:
    name = block[2:6]
    got = edited({"m.py": FILE}, block)
    assert [line for line in got[name].splitlines() if line] == [line for line in expected.splitlines() if line]
    assert set(got) == {"m.py", name}


@pytest.mark.parametrize(
    "block", ["import b\n", "# m.py, in g\nx = 1\n", "# m.py, in place of g\nx = 1\n", "# m\nx = 1\n"]
)
def test_a_block_that_goes_nowhere_is_seen(block: str) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError)):
        edited({"m.py": FILE}, block)


MARKED = re.compile(r"(?:\*Runs (alone|after the head|after the blocks above)\*\n\n)?```python\n(.*?)```", re.DOTALL)


def missing(source: str, given: dict[str, object]) -> set[str]:
    """Names that a block reads, in its functions too, and that neither it nor `given` nor Python has."""
    tree = ast.parse(f"def block():\n{textwrap.indent(source, '    ')}")
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    made |= {(each.asname or each.name).split(".")[0] for node in imports for each in node.names}
    return read - made - set(given) - set(dir(builtins))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_alone_where_the_page_says_so_and_nowhere_else(page: Path) -> None:
    head: dict[str, object] = {}
    above: dict[str, object] = {}
    for mark, source in MARKED.findall(page.read_text()):
        alone: dict[str, object] = {"__name__": "alone"}
        if mark == "alone":
            assert not missing(source, {})
            exec(compile(source, page.name, "exec"), alone)
            head = head or alone
            above |= alone
        elif mark:
            assert missing(source, {})
            names = dict(head if mark == "after the head" else above)
            assert not missing(source, names)
            exec(compile(source, page.name, "exec"), names)
            above |= names
        elif not missing(source, {}):
            with pytest.raises((ImportError, NameError)):
                exec(compile(source, page.name, "exec"), alone)
