"""Rule sets: what rules and goals there are, in words and in the bytes that XLand-MiniGrid writes them in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twohot import _native

ACTIONS = ("forward", "clockwise", "counterclockwise", "pick up", "put down", "toggle")
SHAPES = (
    *("empty", "floor", "wall", "ball", "square", "pyramid", "goal", "key"),
    *("locked door", "closed door", "open door", "hex", "star"),
)
COLOURS = ("empty", "red", "green", "blue", "purple", "yellow", "grey", "black", "orange", "white", "brown", "pink")
DIRECTIONS = ("up", "right", "down", "left")


@dataclass(frozen=True)
class Kind:
    """A kind of rule or goal: its name, what follows its number in bytes, and a sentence.

    Args:
        inputs: names of the tiles or the position that a rule of this kind looks at.
        actions: those after which it is looked at.
    """

    name: str
    inputs: tuple[str, ...]
    actions: tuple[str, ...]
    sentence: str


_MOVES, _PUTS, _BOTH = ("forward",), ("put down",), ("forward", "put down")
_WHERE = {"up": "above", "right": "to the right of", "down": "below", "left": "to the left of"}

RULES: tuple[Kind, ...] = (
    Kind("none", (), (), "No rule: it fills up arrays."),
    Kind("agent hold", ("a",), ("pick up",), "`a` in the pocket turns into the product."),
    Kind("agent near", ("a",), _MOVES, "Each `a` beside the agent turns into the product."),
    Kind("tile near", ("a", "b"), _PUTS, "One in front of the agent, one beside that, which turns into the product; "
         "floor is left in front."),
    *(Kind(f"tile near {d}", ("a", "b"), _PUTS, f"As tile near, where `b` lies {_WHERE[d]} `a`.") for d in DIRECTIONS),
    *(Kind(f"agent near {d}", ("a",), _BOTH, f"`a` {_WHERE[d]} the agent turns into the product.") for d in DIRECTIONS),
)  # fmt: skip
"""By their numbers."""

GOALS: tuple[Kind, ...] = (
    Kind("none", (), (), "No goal: an attempt ends by its time alone."),
    Kind("agent hold", ("a",), ("pick up",), "`a` is in the pocket."),
    Kind("agent on tile", ("a",), _MOVES, "The agent stands on `a`."),
    Kind("agent near", ("a",), _MOVES, "`a` is beside the agent."),
    Kind("tile near", ("a", "b"), _PUTS, "`a` and `b` are side by side, one of them in front of the agent."),
    Kind("tile on position", ("a", "position"), ACTIONS, "`a` is at a position."),
    Kind("agent on position", ("position",), ACTIONS, "The agent is at a position."),
    *(Kind(f"tile near {d}", ("a", "b"), _PUTS, f"As tile near, where `b` lies {_WHERE[d]} `a`.") for d in DIRECTIONS),
    *(Kind(f"agent near {d}", ("a",), _BOTH, f"`a` is {_WHERE[d]} the agent.") for d in DIRECTIONS),
)
"""By their numbers."""


@dataclass(frozen=True, eq=False)
class RuleSet:
    """A task: its goal, its rules in the order in which they are tried, and the objects that an attempt begins with.

    Bytes as XLand-MiniGrid has them: a number of `GOALS` or `RULES`, then tiles as shape and colour, or a position as y
    and x, then zeros.

    Args:
        goal: uint8 [5]. rules: uint8 [n, 7]. objects: uint8 [m, 2].
    """

    goal: np.ndarray
    rules: np.ndarray
    objects: np.ndarray

    @property
    def identity(self) -> int:
        """A hash of the goal and the rules that it needs, whatever their order, dead ends and objects.

        Its last bit is the split."""
        return _native.xgrid_identity(self.goal, self.rules, self.objects)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSet) and self._bytes() == other._bytes()

    def __hash__(self) -> int:
        return hash(self._bytes())

    def __str__(self) -> str:
        goal = f"goal: {_words(GOALS[self.goal[0]], self.goal[1:])}"
        rules = [f"rule: {_words(RULES[rule[0]], rule[1:], product=True)}" for rule in self.rules]
        return "\n".join([goal, *rules, f"objects: {', '.join(map(tile_name, self.objects))}"])

    def _bytes(self) -> tuple[bytes, bytes, bytes]:
        return self.goal.tobytes(), self.rules.tobytes(), self.objects.tobytes()


def plan(rule_set: RuleSet) -> list[int] | None:
    """Rules, by their index, to set off one after the other so that the goal can be reached; None where none is found.

    A breadth-first search over the tiles that there can be, which knows nothing of how rule sets are made.
    """
    return _native.xgrid_plan(rule_set.goal, rule_set.rules, rule_set.objects)


def tile_name(tile: np.ndarray) -> str:
    """A tile in words, such as "red ball"."""
    shape, colour = map(int, tile)
    return SHAPES[shape] if shape < 3 else f"{COLOURS[colour]} {SHAPES[shape]}"


def _words(kind: Kind, values: np.ndarray, product: bool = False) -> str:
    said = [
        f"({values[2 * i]}, {values[2 * i + 1]})" if name == "position" else tile_name(values[2 * i : 2 * i + 2])
        for i, name in enumerate(kind.inputs)
    ]
    at = 2 * len(kind.inputs)
    made = f" -> {tile_name(values[at : at + 2])}" if product and said else ""
    return f"{kind.name}{' ' if said else ''}{', '.join(said)}{made}"
