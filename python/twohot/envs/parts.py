"""Parts of an observation: what an environment declares, what an agent sees of it, and what is refused in between.

Every value that an environment shows goes through `read` or `write` of its part, which give exactly that value or raise
an `ObservationError`. Floats become float32, and may lie outside the bounds of their Box, as gymnasium allows; finite
choices, tokens, grids, masks, shapes and dtypes may not.
"""

from __future__ import annotations

import math
from operator import index
from typing import Any, NoReturn, TypeGuard

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.errors import ObservationError, UnsupportedSpaceError
from twohot.exact import read_array
from twohot.spaces import OBSERVATION, convention

SUPPORTED_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple or Dict of those"
INTEGERS = (np.uint8, np.int16, np.int32)
"""What tokens and grids are stored in."""
FEW = 12
"""Choices that Python writes faster than numpy."""
MAX_CHOICES = 2**20
"""Choices in one-hot: one mistaken number must not fill the memory."""
MAX_CHANNELS, MIN_SIDE = 4, 16
"""Bytes [C, H, W] are an image if C is at most, and H and W are at least, this."""


class Part:
    """One part of an observation.

    Args:
        name: "a/b" of part b of part a; "observation" if it is the whole. own: its space. where: the environment, in
            words. leading: sizes of axes in front of the space's own, such as that of a vector's environments.

    Attributes:
        space: what an agent sees. flat: whether that is a float32 vector, which may stand beside others in one.
    """

    space: spaces.Box | spaces.MultiBinary
    flat = True

    def __init__(self, name: str, own: gym.Space, where: str, leading: tuple[int, ...]) -> None:
        self.name, self.own, self.where, self.leading = name, own, where, leading
        self._shape = (*leading, *(own.shape or ()))

    def read(self, value: Any) -> np.ndarray:
        """[*leading, *shape of `space`] of its dtype; may be the environment's own array.

        Raises:
            ObservationError: for a value that is not in the own space.
        """
        shown = np.zeros((*self.leading, *self.space.shape), self.space.dtype)
        self.write(value, shown)
        return shown

    def write(self, value: Any, entries: np.ndarray) -> None:
        """Set zeros [*leading, *shape of `space`] to what `read` gives."""
        entries[...] = self.read(value)

    def declared(self, value: Any, dtype: np.dtype) -> np.ndarray:
        """The very numbers of a value as an array of the own shape and an integer or bool dtype.

        Raises:
            ObservationError: where there is none.
        """
        if type(value) is np.ndarray and value.dtype == dtype and value.shape == self._shape:
            return value
        array = self.numbers(value)
        with np.errstate(invalid="ignore"):
            cast = array.astype(dtype)
        if not (cast == array).all():
            self.refuse(value, f"values of {dtype}")
        return cast

    def bits(self, value: Any) -> np.ndarray:
        """A value as an array of the own shape, int8, of nothing but 0 and 1.

        Raises:
            ObservationError: where it is none.
        """
        array = self.declared(value, np.dtype(np.int8))
        if np.count_nonzero(array.view(np.uint8) > 1):  # a negative number is large without its sign
            self.refuse(value, "0 or 1 in each entry")
        return array

    def numbers(self, value: Any) -> np.ndarray:
        """A value as an array of numbers of the own shape.

        Raises:
            ObservationError: where it is none.
        """
        try:
            array = read_array(value)
            if array.dtype == object:
                array = read_array(array.tolist())
        except ValueError:
            self.refuse(value, f"numbers of shape {self._shape}")
        if isinstance(value, np.ma.MaskedArray) or array.shape != self._shape or array.dtype.kind not in "biuf":
            self.refuse(value, f"numbers of shape {self._shape}")
        return array

    def refuse(self, value: Any, wanted: str) -> NoReturn:
        """Raise the error that names the part, what was expected and what came."""
        raise ObservationError(
            f"{self.where}: expected {wanted} in {_named(self.name)}, which is declared as {_brief(self.own)}, "
            f"got {_described(value)}: fix the environment, or the space it declares"
        )


class Numbers(Part):
    """A Box of any dtype and shape as a vector of float32."""

    def __init__(self, name: str, own: spaces.Box, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        with np.errstate(over="ignore"):
            low, high = own.low.ravel().astype(np.float32), own.high.ravel().astype(np.float32)
        self.space = spaces.Box(low, high, dtype=np.float32)
        self._dtype, self._is_vector = own.dtype, len(own.shape) == 1
        self._is_plain = self._is_vector and own.dtype == np.float32

    def read(self, value: Any) -> np.ndarray:
        if self._fits(value):
            return value
        value = self.numbers(value) if self._dtype.kind == "f" else self.declared(value, self._dtype)
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which is refused later on
            value = value.astype(np.float32, copy=False)
        return value if self._is_vector else value.reshape(*self.leading, -1)

    def write(self, value: Any, entries: np.ndarray) -> None:
        entries[...] = value if self._fits(value) else self.read(value)

    def _fits(self, value: Any) -> bool:
        """Whether a value may be taken as it is. Dtypes are singletons; one that is none takes the longer way."""
        return (
            self._is_plain and type(value) is np.ndarray and value.dtype is self._dtype and value.shape == self._shape
        )


class Bits(Part):
    """A MultiBinary as a vector of float32."""

    def __init__(self, name: str, own: spaces.MultiBinary, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        self.space = spaces.Box(0, 1, (math.prod(own.shape),), np.float32)

    def read(self, value: Any) -> np.ndarray:
        return self.bits(value).astype(np.float32).reshape(*self.leading, -1)


class Choice(Part):
    """A Discrete, one-hot."""

    def __init__(self, name: str, own: spaces.Discrete, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        _check_choices(name, own, where, int(own.n))
        self._count, self._first = int(own.n), int(own.start)
        self.space = spaces.Box(0, 1, (self._count,), np.float32)

    def write(self, value: Any, entries: np.ndarray) -> None:
        try:
            choice = index(value) - self._first
        except TypeError:
            choice = int(self.declared(value, np.dtype(np.int64))) - self._first
        if not 0 <= choice < self._count:
            self.refuse(value, f"a choice from {self._first} to {self._first + self._count - 1}")
        entries[choice] = 1.0


class Choices(Part):
    """A MultiDiscrete, or the Discrete of several rows: one block with a single 1 for each entry."""

    def __init__(self, name: str, own: spaces.MultiDiscrete | spaces.Discrete, where: str, leading) -> None:
        super().__init__(name, own, where, leading)
        _check_choices(name, own, where, int(np.sum(own.n if isinstance(own, spaces.Discrete) else own.nvec)))
        counts, first = (own.n, own.start) if isinstance(own, spaces.Discrete) else (own.nvec, own.start)
        self._counts, self._first = np.ravel(counts).astype(np.uint64), np.ravel(first).astype(np.int64)
        ends = np.cumsum(self._counts.astype(np.int64))
        self._offsets = ends - self._counts.astype(np.int64)
        few = not leading and len(self._counts) <= FEW
        self._few = (
            list(zip(*(x.tolist() for x in (self._first, self._counts, self._offsets)), strict=True)) if few else []
        )
        self._rows = tuple(axis[..., None] for axis in np.indices(leading)) if leading else ()
        self.space = spaces.Box(0, 1, (int(ends[-1]),), np.float32)

    def write(self, value: Any, entries: np.ndarray) -> None:
        if self._few and type(value) is np.ndarray and value.shape == self._shape and value.dtype.kind in "iu":
            self._write_few(value, entries)
            return
        chosen = self.declared(value, np.dtype(np.int64)).reshape(*self.leading, -1) - self._first
        if np.count_nonzero(chosen.view(np.uint64) >= self._counts):  # a negative number is large without its sign
            self._refuse_choices(value)
        entries[(*self._rows, chosen + self._offsets)] = 1.0

    def _write_few(self, values: np.ndarray, entries: np.ndarray) -> None:
        """As `write`, in less time than numpy takes to begin."""
        for choice, (first, count, offset) in zip(values.ravel().tolist(), self._few, strict=True):
            if not 0 <= choice - first < count:
                self._refuse_choices(values)
            entries[offset + choice - first] = 1.0

    def _refuse_choices(self, value: Any) -> NoReturn:
        last = self._first + self._counts.astype(np.int64) - 1
        self.refuse(value, f"choices from {self._first.tolist()} to {last.tolist()}")


class Image(Part):
    """Bytes [H, W, C], [H, W] or [C, H, W] as an image [H, W, C]."""

    flat = False

    def __init__(self, name: str, own: spaces.Box, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        self._turned, self._gray = is_channels_first(own.shape), len(own.shape) == 2
        shape = (*own.shape[1:], own.shape[0]) if self._turned else (*own.shape, 1)[:3]
        self.space = spaces.Box(0, 255, shape, np.uint8)

    def read(self, value: Any) -> np.ndarray:
        shown = self.declared(value, self.space.dtype)
        if self._turned:
            return np.ascontiguousarray(np.moveaxis(shown, -3, -1))
        return shown[..., None] if self._gray else shown


class Integers(Part):
    """Tokens [T] or a grid [H, W, C], whose values are looked up: none may lie outside the bounds."""

    flat = False

    def __init__(self, name: str, own: gym.Space, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        tokens = convention(name) == "tokens"
        dimensions = (1,) if tokens else (2, 3)
        shape, dtype = own.shape or (), own.dtype
        if len(shape) not in dimensions or dtype is None or dtype.kind not in "iub":
            wanted = "tokens [length]" if tokens else "a grid [height, width] or [height, width, channels]"
            raise UnsupportedSpaceError(
                f"{where}: {_named(name)}: expected {wanted} of integers, which its name promises, got {_brief(own)}: "
                "give the part another name"
            )
        if isinstance(own, spaces.Box):
            self._low, self._high = own.low, own.high
        elif isinstance(own, spaces.MultiDiscrete):
            self._low, self._high = own.start, own.start + own.nvec - 1
        else:  # MultiBinary
            self._low, self._high = np.zeros(shape, np.int8), np.ones(shape, np.int8)
        low, high = int(self._low.min()), int(self._high.max())
        dtypes = [np.dtype(dtype) for dtype in INTEGERS if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max]
        if low < 0 or not dtypes:
            raise UnsupportedSpaceError(
                f"{where}: {_named(name)}: expected {'tokens' if tokens else 'a grid'} of integers from 0 to at most "
                f"{np.iinfo(np.int32).max}, got {_brief(own)}"
            )
        dtype = dtype if dtype in dtypes else dtypes[0]
        self.space = spaces.Box(0, high, shape if tokens else (*shape, 1)[:3], dtype.type)
        limits = np.iinfo(dtype.type)
        self._any = bool((self._low == limits.min).all() and (self._high == limits.max).all())

    def read(self, value: Any) -> np.ndarray:
        shown = self.declared(value, self.space.dtype)
        if not self._any and ((shown < self._low) | (shown > self._high)).any():
            self.refuse(value, f"integers from {self._low.min()} to {self._high.max()}")
        return shown.reshape(*self.leading, *self.space.shape)


class Mask(Part):
    """Which actions are legal: 0 or 1 for each choice, those of a MultiDiscrete action or of a Tuple side by side."""

    space: spaces.MultiBinary
    flat = False

    def __init__(self, name: str, own: gym.Space, where: str, leading: tuple[int, ...]) -> None:
        super().__init__(name, own, where, leading)
        self._parts: list[Mask] = []
        if isinstance(own, spaces.Tuple) and own.spaces:
            self._parts = [Mask(f"{name}/{place}", part, where, leading) for place, part in enumerate(own.spaces)]
            size = sum(math.prod(part.space.shape) for part in self._parts)
        elif isinstance(own, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) and own.shape:
            size = math.prod(own.shape)
        else:
            raise UnsupportedSpaceError(
                f"{where}: {_named(name)}: expected a mask as Box or MultiBinary with an entry for each choice, or a "
                f"Tuple of those, got {_brief(own)}"
            )
        self.space = spaces.MultiBinary(size)

    def read(self, value: Any) -> np.ndarray:
        if self._parts:
            if not isinstance(value, tuple | list) or len(value) != len(self._parts):
                self.refuse(value, f"a tuple of {len(self._parts)} masks")
            shown = [part.read(each) for part, each in zip(self._parts, value, strict=True)]
            return np.concatenate(shown, axis=-1)
        return self.bits(value).reshape(*self.leading, -1)


def is_image(space: gym.Space) -> TypeGuard[spaces.Box]:
    """Whether a space holds images: bytes [H, W], [H, W, C] or [C, H, W]."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image's channels stand in front."""
    return len(shape) == 3 and shape[0] <= MAX_CHANNELS and min(shape[1:]) >= MIN_SIDE


def vector_part(name: str, own: gym.Space, where: str, leading: tuple[int, ...] = ()) -> Part:
    """A space of numbers or finite choices as a vector, whatever its name.

    Raises:
        UnsupportedSpaceError: for any other space.
    """
    if isinstance(own, spaces.Box):
        return Numbers(name, own, where, leading)
    if isinstance(own, spaces.MultiBinary):
        return Bits(name, own, where, leading)
    if isinstance(own, spaces.Discrete) and not leading:
        return Choice(name, own, where, leading)
    if isinstance(own, spaces.Discrete | spaces.MultiDiscrete):
        return Choices(name, own, where, leading)
    raise UnsupportedSpaceError(
        f"{where}: {_named(name)}: expected an observation space of {SUPPORTED_OBSERVATIONS}, got {_brief(own)}: drop "
        "or encode that part in a wrapper, such as gymnasium.wrappers.FilterObservation, and register an id for it"
    )


def part_of(name: str, own: gym.Space, where: str, leading: tuple[int, ...] = ()) -> Part:
    """What an agent sees of a space of that name, by the conventions of `twohot.spaces`.

    Raises:
        UnsupportedSpaceError: for a space that no agent can see, or that its name does not allow.
    """
    kind = convention(name)
    if kind == "action_mask":
        return Mask(name, own, where, leading)
    if kind:
        return Integers(name, own, where, leading)
    return Image(name, own, where, leading) if is_image(own) else vector_part(name, own, where, leading)


def _check_choices(name: str, own: gym.Space, where: str, count: int) -> None:
    """Raises UnsupportedSpaceError for choices that are too many for one-hot."""
    if not 0 < count <= MAX_CHOICES:
        raise UnsupportedSpaceError(
            f"{where}: {_named(name)}: expected at most {MAX_CHOICES} choices, which are shown one-hot, got "
            f"{_brief(own)}: declare a Box, or tokens [length]"
        )


def _named(name: str) -> str:
    return "the observation" if name == OBSERVATION else f"observation {name!r}"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _described(value: Any) -> str:
    """A value in few words."""
    if isinstance(value, np.ndarray):
        values = f": {_brief(value.tolist())}" if value.size <= 32 else ""
        return f"{value.dtype} of shape {value.shape}{values}"
    return f"{type(value).__name__} {_brief(value)}"
