"""Rule sets: made by `twohot.envs.xgrid`, or in files that XLand-MiniGrid (`twohot[xland]`) has downloaded."""

from __future__ import annotations

import bz2
import io
import pickle
import pickletools
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from twohot.envs.registry import UnknownEnvironmentError
from twohot.envs.vector.jax_batch import HiddenTasks
from twohot.envs.xgrid.benchmarks import Benchmark
from twohot.envs.xgrid.checks import Split
from twohot.envs.xgrid.rules import RuleSet
from twohot.text import printable

RULE_WIDTHS = (1, 2, 4, 8, 12, 18)
"""How many rules a step looks at: the least that are enough for all that are being played. Each is compiled once."""
TRAIN_SHARE = 0.8
"""Of a downloaded benchmark's rule sets, in an order that is drawn from seed 0."""

MOST_BYTES = 2**30
"""Of a downloaded file when it is decompressed: the largest holds three million rule sets of 170 bytes or so."""
MOST_OPCODES = 1000
"""Of the pickle in it: an array takes about fifty."""
INTEGERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")
"""The dtypes that its arrays may have."""


class Source(Protocol):
    """Attributes: most_rules, most_objects: of a rule set. `draw` gives goal [5], rules [n, 7], objects [m, 2]."""

    most_rules: int
    most_objects: int

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


class Made:
    """Rule sets of a benchmark of `twohot.envs.xgrid`, made when they are drawn. A ValueError if it has none."""

    def __init__(self, benchmark: Benchmark, split: Split) -> None:
        benchmark.rule_set(0, split)
        self._benchmark = benchmark
        self._split: Split = split
        self.most_rules, self.most_objects = benchmark.most_rules, benchmark.most_objects

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = int(random.integers(self._benchmark.tasks))
        goals, rules, objects, _ = self._benchmark.arrays(number, 1, self._split)
        return goals[0], rules[0, : self.most_rules], objects[0, : self.most_objects]


class Downloaded:
    """Rule sets of a benchmark that XLand-MiniGrid has downloaded, none of which is in both splits."""

    def __init__(self, name: str, split: Split) -> None:
        self._goals, self._rules, self._objects, order = _downloaded(name)
        train = _trained_on(len(order))
        self._numbers = order[:train] if split == "train" else order[train:]
        self.most_rules, self.most_objects = self._rules.shape[1], self._objects.shape[1]

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = self._numbers[random.integers(len(self._numbers))]
        return self._goals[number], self._rules[number], self._objects[number]


def _trained_on(rule_sets: int) -> int:
    return round(TRAIN_SHARE * rule_sets)


class RuleSets(HiddenTasks):
    """The rule sets that environments play.

    Args:
        num_envs: number of environments. source: what they are drawn from.

    Attributes:
        goals: uint8 [num_envs, 5]. rules: uint8 [num_envs, most, 7]. objects: uint8 [num_envs, most, 2].
    """

    def __init__(self, num_envs: int, source: Source) -> None:
        self._source = source
        self.goals = np.zeros((num_envs, 5), np.uint8)
        self.rules = np.zeros((num_envs, source.most_rules, 7), np.uint8)
        self.objects = np.zeros((num_envs, source.most_objects, 2), np.uint8)

    def draw(self, index: int, random: np.random.Generator) -> None:
        self.goals[index], self.rules[index], self.objects[index] = self._source.draw(random)

    def to_begin(self, indices: np.ndarray) -> np.ndarray:
        return self.objects[indices]

    def to_step(self) -> tuple[np.ndarray, np.ndarray]:
        used = np.flatnonzero(self.rules[:, :, 0].any(0))
        most = int(used[-1]) + 1 if len(used) else 0
        width = next((width for width in RULE_WIDTHS if width >= most), most)
        padding = max(0, width - self.rules.shape[1])
        return self.goals, np.pad(self.rules[:, :width], ((0, 0), (0, padding), (0, 0)))

    def rule_set(self, index: int) -> RuleSet:
        """What an environment plays."""
        rules, objects = self.rules[index], self.objects[index]
        return RuleSet(self.goals[index].copy(), rules[rules[:, 0] > 0], objects[objects[:, 0] > 0])


class _Said:
    """An object as a file describes it: by what it would be made, of what, and in which state. It is not made."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:  # on a class, which a file can name too, this fails
        self.state = state


class _Reconstructed(_Said):
    """An array of numpy's."""


class _OfBuffer(_Said):
    """An array of numpy's, by pickle's protocol 5."""


class _OfJax(_Said):
    """An array of JAX's, made of one of numpy's."""


_STAND_INS = {
    "_frombuffer": _OfBuffer,
    "_reconstruct": _Reconstructed,
    "_reconstruct_array": _OfJax,
    "dtype": _Said,
    "ndarray": _Said,
}


class _ArraysAlone(pickle.Unpickler):
    """Reads descriptions of arrays of numpy and of JAX, and nothing else; nothing that a file names is called."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.partition(".")[0] not in ("jax", "numpy") or global_name not in _STAND_INS:
            raise pickle.UnpicklingError(f"expected arrays alone, got {module_name}.{global_name}")
        return _STAND_INS[global_name]


def _read(path: Path) -> Any:
    """What a compressed file holds, its arrays as described there."""
    with bz2.open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES} bytes")
    # Lengths that a file claims, and places that it keeps objects in, are allocated before they are looked at.
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number > MOST_OPCODES or (opcode.name.endswith("PUT") and cast("int", argument) > MOST_OPCODES):
            raise ValueError(f"expected four arrays, got more than {MOST_OPCODES} parts")
    return _ArraysAlone(io.BytesIO(data)).load()


def _bytes_of(said: Any) -> np.ndarray:
    """The array that a file describes, of whole numbers from 0 to 255."""
    if isinstance(said, _OfBuffer):
        data, dtype, shape, order = said.arguments
    elif isinstance(said, _OfJax | _Reconstructed):
        _, shape, dtype, columns_first, data = said.arguments[2] if isinstance(said, _OfJax) else said.state
        order = "F" if columns_first else "C"
    else:
        raise ValueError("expected arrays alone")
    code, byte_order = dtype.arguments[0], dtype.state[1]
    if code not in INTEGERS or byte_order not in ("<", ">", "|", "=") or not isinstance(data, bytes | bytearray):
        raise ValueError("expected arrays of integers")
    array = np.frombuffer(data, np.dtype(code).newbyteorder(byte_order)).reshape(shape, order=order)
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 255:
        raise ValueError(f"expected numbers from 0 to 255, got {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, np.uint8)


@cache
def _downloaded(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Goals, rules and objects of a file of XLand-MiniGrid's, and an order of them.

    Raises:
        UnknownEnvironmentError: there is no such file here, or it holds something else.
    """
    from xminigrid import benchmarks

    path = Path(benchmarks.DATA_PATH, benchmarks.NAME2HFFILENAME[name])
    if not path.is_file():
        raise UnknownEnvironmentError(
            f"the rule sets of {name!r} are a file that XLand-MiniGrid downloads, and it is not here ({path}): "
            f"`python -c \"import xminigrid; xminigrid.load_benchmark('{name}')\"` brings it, and the environment "
            "variable XLAND_MINIGRID_DATA says where to"
        )
    try:
        found = _read(path)
        goals, rules, objects = (_bytes_of(found[key]) for key in ("goals", "rules", "init_tiles"))
        whole = {goals.shape, (len(goals), 5)}, {rules.shape, (len(goals), *rules.shape[1:2], 7)}
        if len(whole[0]) > 1 or len(whole[1]) > 1 or objects.shape != (len(goals), *objects.shape[1:2], 2):
            raise ValueError(f"goals {goals.shape}, rules {rules.shape}, init_tiles {objects.shape}")
        if not 0 < _trained_on(len(goals)) < len(goals):
            raise ValueError(f"expected rule sets to train on and to test on, got {len(goals)}")
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        said = printable(error) or type(error).__name__
        raise UnknownEnvironmentError(
            f"expected goals, rules and init_tiles of XLand-MiniGrid's {name!r} in {path}: {said}: remove the file, "
            "and let it be downloaded again"
        ) from error
    return goals, rules, objects, np.random.Generator(np.random.PCG64(0)).permutation(len(goals))
