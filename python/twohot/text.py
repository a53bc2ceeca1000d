"""Text from outside (paths, names of tasks, messages of exceptions) where it is printed, drawn, or made a file name."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_NAME = 100
"""Characters of a file name that are taken from a text."""
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789")}
)
"""What Windows takes for a device, whatever suffix follows."""


def printable(text: object) -> str:
    """The text in one line: control characters, lone surrogates and the like as Python escapes, all else as it is."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(character if _prints(character) else _escaped(character) for character in text)


def _prints(character: str) -> bool:
    return character.isprintable() or character == "\N{NO-BREAK SPACE}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...? " with up to three of the names that are known and close to this one; "" if none is."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}? " if close else ""


def did_you_mean_setting(setting: str, known: Iterable[str]) -> str:
    """`did_you_mean` for dotted names, `section.learning_rate` or `--section.learning-rate`.

    Those of the same last word come first, then those of its initials, then those of nearly its letters.
    """
    names = [(*name.lstrip("-").rpartition(".")[::2], name) for name in known]
    section, _, word = setting.lstrip("-").rpartition(".")
    close = difflib.get_close_matches(word, {last for _, last, _ in names}, cutoff=0.6)
    for fits in (lambda last: last == word, lambda last: _initials(last) == word, lambda last: last in close):
        found = [(theirs == section, name) for theirs, last, name in names if fits(last)]
        meant = [name for here, name in found if here] or [name for _, name in found]
        if meant:
            return f"did you mean {' or '.join(meant[:3])}? "
    return ""


def _initials(words: str) -> str:
    return "".join(word[:1] for word in re.split("[-_]", words))


def file_stems(names: Sequence[str]) -> list[str]:
    """A file name, without its suffix, for each of these texts: of portable characters, and different from all others.

    A name of letters, digits, dots, hyphens and underscores serves as it is. Names that come to the same, be it but for
    capitals, those of which nothing is left, and those of devices get a part of their hash.
    """
    stems = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".")[:MAX_NAME].rstrip(".") for name in names]
    counts = Counter(stem.casefold() for stem in stems)
    return [
        stem
        if counts[stem.casefold()] == 1 and stem.strip("-.") and not names_device(stem)
        else f"{stem.replace('.', '-') or 'task'}-{_digest(name)}"
        for stem, name in zip(stems, names, strict=True)
    ]


def names_device(name: str) -> bool:
    """Whether Windows would open a device, such as `con.gif`, instead of a file of that name."""
    return name.partition(".")[0].casefold() in DEVICES


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
