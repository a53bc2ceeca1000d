"""The pages of docs/drop_in: their edits, applied to stand-ins of the host codes, and training with and without them.

`drop_in_hosts` holds modules with the names and imports of the hosts', in our own lines. The first line of a block says
where it goes: a comment `# FILE` (beside what the file holds, or a new file), `# FILE, in place of NAME and NAME`
(functions or classes), or `# FILE, in FUNCTION` (in place of the lines that the page names, which the stand-in marks
with `# out`).
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from compare import assert_accurate
from paths import HELPERS, ROOT

FOLDER = ROOT / "docs" / "drop_in"
HOSTS = HELPERS / "drop_in_hosts"
STEPS = 4
EXACT = 1e-12 / torch.finfo(torch.float64).eps
PLACE = re.compile(r"# (?P<file>[\w/]+\.py)(?:, in place of (?P<names>[\w ]+)|, in (?P<function>[\w.]+))?")


def blocks(page: str, section: str = "") -> list[str]:
    """The Python blocks of a page, or of the part of it that follows a heading which begins with `section`."""
    text = (FOLDER / f"{page}.md").read_text()
    if section:
        (text,) = [part for part in text.split("\n## ") if part.startswith(section)]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def edited(files: dict[str, str], block: str) -> dict[str, str]:
    """The files of a host after a block has gone where its first line says."""
    first, source = block.split("\n", 1)
    where = PLACE.fullmatch(first)
    assert where, f"expected a first line that says where the block goes, got {first!r}"
    name, names, function = where["file"], where["names"], where["function"]
    text = files.get(name, "")
    lines, tree = text.splitlines(), ast.parse(text)
    if function:
        node = tree
        for part in function.split("."):
            (node,) = [each for each in node.body if getattr(each, "name", None) == part]
        out = [index for index in range(node.lineno, node.end_lineno) if lines[index].endswith("# out")]
        assert out, f"{name}: nothing goes out of {function}"
        place, source = out[-1], textwrap.indent(source, re.match(" *", lines[out[0]])[0])
    elif names:
        named = {each.name: each for each in tree.body if hasattr(each, "name")}
        gone = [named[each] for each in names.split(" and ")]
        out = [index for node in gone for index in range(node.lineno - 1, node.end_lineno)]
        place = out[0]
    else:
        out, place = [], len(lines)
    before, after = ([lines[i] for i in part if i not in out] for part in (range(place), range(place, len(lines))))
    return files | {name: "\n".join([*before, source, *after]) + "\n"}


def host(name: str, sources: list[str], folder: Path, modules: tuple[str, ...]) -> SimpleNamespace:
    """The modules of a host by the last part of their names, with these blocks in it; `folder` is a new one."""
    root = HOSTS / name
    files = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.py"))}
    for source in sources:
        files = edited(files, source)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    before = dict(sys.modules)
    tops = {Path(path).parts[0].removesuffix(".py") for path in files}
    for each in [each for each in sys.modules if each.split(".")[0] in tops]:
        del sys.modules[each]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        found: list[ModuleType] = [importlib.import_module(each) for each in modules]
    finally:
        sys.path.remove(str(folder))
        for each in [each for each in sys.modules if each.split(".")[0] in tops]:
            del sys.modules[each]
        sys.modules.update({each: before[each] for each in before if each.split(".")[0] in tops})
    return SimpleNamespace(**{each.__name__.split(".")[-1]: each for each in found})


def randoms(seed: int) -> Callable[..., Tensor]:
    """Normal random numbers that float32 holds, in the default dtype; the same for each dtype."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        numbers = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers.to(torch.float32).to(torch.get_default_dtype())

    return draw


def traced(train: Callable[[], Iterator[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return [x.detach().clone() for x in train()]
    finally:
        torch.set_default_dtype(before)


def assert_same_training(plain: Callable[[], Iterator[Tensor]], dropped: Callable[[], Iterator[Tensor]]) -> None:
    """Each tensor that training yields is that of the plain form, as exactly as the pages say."""
    truth, rough = traced(plain, torch.float64), traced(plain, torch.float32)
    same, actual = traced(dropped, torch.float64), traced(dropped, torch.float32)
    assert len(truth) == len(same) == len(actual) >= STEPS
    assert max(x.abs().amax() for x in truth) < 1e9
    for exact, reference, tensor, expected in zip(same, rough, actual, truth, strict=True):
        assert_accurate(exact, expected, floor=EXACT)
        assert_accurate(tensor, expected, reference, floor=64)


def descend(parameters: list[Tensor], rate: float) -> Iterator[Tensor]:
    """One SGD step; yields the gradients."""
    for parameter in parameters:
        yield parameter.grad
        with torch.no_grad():
            parameter.sub_(rate * parameter.grad)
        parameter.grad = None
