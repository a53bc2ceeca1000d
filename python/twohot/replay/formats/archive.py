"""Arrays in .npz archives that nobody need trust: no object, no more memory than the file has bytes for."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from twohot.files import require_file
from twohot.replay.formats.trajectory import FormatError

_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LARGE, TIMES = 1 << 30, 100
"""An archive that claims more bytes than `LARGE`, and more than `TIMES` its own, is not read."""


def check_size(path: Path, claimed: int) -> None:
    """Raises FormatError for a file that claims far more than it can hold but by being made for it."""
    if claimed > LARGE and claimed > TIMES * path.stat().st_size:
        raise FormatError(
            f"{path}: says that it holds {claimed} bytes in {path.stat().st_size}, which only a file does that is made "
            "to fill the memory; if it is yours, write it without compression"
        )


class Archive:
    """The arrays of an open .npz file, read when they are asked for; an error names the file and the key."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        entries = file.infolist()
        check_size(path, sum(entry.file_size for entry in entries))
        self.path = path
        self.names = [entry.filename.removesuffix(_SUFFIX) for entry in entries]
        self._file = file
        self._entries = dict(zip(self.names, entries, strict=True))
        if len(self._entries) != len(entries):
            raise FormatError(f"{path}: a key comes twice among {', '.join(self.names)}")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._entries:
            raise FormatError(f"{self.path}: no key {name!r}; there are {', '.join(self.names)}")
        try:
            return self._read(self._entries[name])
        except FormatError as error:
            raise FormatError(f"{self.path}: {name}: {error}") from None
        except Exception as error:  # numpy and zipfile raise anything for bytes that they cannot read
            raise FormatError(f"{self.path}: {name}: corrupt ({error})") from error

    def _read(self, entry: zipfile.ZipInfo) -> np.ndarray:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError("compressed otherwise than numpy does it")
        with self._file.open(entry) as stream:
            assert isinstance(stream, zipfile.ZipExtFile)
            if not stream.peek(len(np.lib.format.MAGIC_PREFIX)).startswith(np.lib.format.MAGIC_PREFIX):
                raise FormatError("expected an array, got other bytes")
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise FormatError(f"expected an array of format 1.0 or 2.0, got {version}")
            shape, _, dtype = _HEADERS[version](stream)
            if dtype.hasobject:
                raise FormatError("objects, which only unpickling could read; nothing is unpickled here")
            bytes_of = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or stream.tell() + bytes_of != entry.file_size:
                raise FormatError(f"corrupt (shape {shape!s:.60} of {dtype} does not fill its {entry.file_size} bytes)")
        with self._file.open(entry) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read()  # to its end, where its checksum is compared
        return array


@contextmanager
def opened(path: Path) -> Generator[Archive, None, None]:
    """The archive at a path.

    Raises:
        OSError: where the file cannot be opened.
        FormatError: where it is no .npz archive.
    """
    with require_file(path).open("rb") as handle:
        magic = handle.read(len(np.lib.format.MAGIC_PREFIX))
        if magic == np.lib.format.MAGIC_PREFIX:
            raise FormatError(f"{path}: expected an .npz archive, got a single array")
        try:
            file = zipfile.ZipFile(handle)
            for entry in file.infolist():
                file.open(entry).close()  # compares its name with the one that stands before its bytes
        except Exception as error:  # as above
            raise FormatError(
                f"{path}: expected an .npz archive, got a corrupt one or another file ({error})"
            ) from error
        with file:
            yield Archive(path, file)
