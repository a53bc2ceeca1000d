"""The version, which stands in one place, and what has to agree with it before a release.

python release/version.py            the version, checked against CITATION.cff
python release/version.py 0.2.0      makes this the version: the package, CHANGELOG's section, CITATION.cff
python release/version.py --tag v0.2.0   fails unless the tag, the package, CHANGELOG and CITATION.cff agree
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, CHANGELOG, CITATION = "python/twohot/__init__.py", "CHANGELOG.md", "CITATION.cff"
FORM = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"
UNRELEASED = "## Unreleased\n"


def replaced(pattern: str, by: str, text: str) -> str:
    result, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"expected one line like {pattern!r}, found {count}")
    return result


def version(root: Path = ROOT) -> str:
    found = re.search(r'^__version__ = "(.*)"$', (root / PACKAGE).read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def prepare(new: str, root: Path = ROOT, day: str | None = None) -> None:
    """Writes the version everywhere, with `day` (today) as its date."""
    if not re.fullmatch(FORM, new):
        raise SystemExit(f"expected a version like 0.2.0 or 0.2.0rc1, got {new!r}")
    day = day or datetime.date.today().isoformat()
    texts = {name: (root / name).read_text() for name in (PACKAGE, CHANGELOG, CITATION)}
    if UNRELEASED not in texts[CHANGELOG]:
        raise SystemExit(f"{CHANGELOG} has no section {UNRELEASED.strip()!r} to release")
    texts[PACKAGE] = replaced(r'^__version__ = ".*"$', f'__version__ = "{new}"', texts[PACKAGE])
    texts[CHANGELOG] = texts[CHANGELOG].replace(UNRELEASED, f"{UNRELEASED}\n## {new} - {day}\n", 1)
    texts[CITATION] = replaced(r"^version: .*$", f"version: {new}", texts[CITATION])
    texts[CITATION] = replaced(r"^date-released: .*$", f"date-released: {day}", texts[CITATION])
    for name, text in texts.items():
        (root / name).write_text(text)


def disagreements(tag: str | None, root: Path = ROOT) -> list[str]:
    """A sentence for each place that does not have the version that the package has."""
    ours = version(root)
    found = []
    if not re.fullmatch(FORM, ours):
        found.append(f"{PACKAGE}: {ours!r} is no version like 0.2.0")
    if f"\nversion: {ours}\n" not in (root / CITATION).read_text():
        found.append(f"{CITATION} has another version than {PACKAGE}: {ours}")
    if tag is not None:
        if tag != f"v{ours}":
            found.append(f"the tag is {tag}, the package's version makes it v{ours}")
        if not re.search(rf"^## {re.escape(ours)} - \d{{4}}-\d\d-\d\d$", (root / CHANGELOG).read_text(), re.MULTILINE):
            found.append(f"{CHANGELOG} has no section '## {ours} - DATE'")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", nargs="?", help="the version to write")
    parser.add_argument("--tag", help="the tag that is released")
    arguments = parser.parse_args()
    if arguments.new:
        prepare(arguments.new)
    wrong = disagreements(arguments.tag)
    print("\n".join(wrong) if wrong else version())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
