"""An expert in the grid world that is told the rules: it does what `plan` says, on the map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from twohot.envs.xgrid import ACTIONS, GOALS, RULES, SHAPES, XGridVector, plan

FORWARD, CLOCKWISE, COUNTER, PICK, PUT, TOGGLE = range(len(ACTIONS))
WAYS = ((-1, 0), (0, 1), (1, 0), (0, -1))
DIRECTIONS = ("up", "right", "down", "left")
WALKABLE = {SHAPES.index(name) for name in ("floor", "goal", "open door")}
CLOSED, FLOOR = SHAPES.index("closed door"), SHAPES.index("floor")
PICKABLE = {SHAPES.index(name) for name in ("ball", "square", "pyramid", "key", "hex", "star")}
Cell = tuple[int, int]
Tile = tuple[int, int]
Pose = tuple[int, int, int]


class LostError(Exception):
    """The expert sees no way on."""


def ahead(pose: Pose) -> Cell:
    return pose[0] + WAYS[pose[2]][0], pose[1] + WAYS[pose[2]][1]


def around(cell: Cell) -> list[Cell]:
    return [(cell[0] + y, cell[1] + x) for y, x in WAYS]


class Expert:
    """Plays one environment of a vector of one, without autoreset.

    Args:
        vector: whose environment it plays. limit: of its steps.
    """

    def __init__(self, vector: XGridVector, limit: int = 2000) -> None:
        self.vector, self.limit = vector, limit or 2000
        rule_set = vector.rule_set(0)
        self.goal, self.rules = rule_set.goal, rule_set.rules
        self.way = plan(rule_set)
        self.frames: list[np.ndarray] = []
        self.steps, self.reward, self.done = 0, 0.0, False
        self.draws = False
        self._look()

    def play(self, draw: bool = False) -> list[np.ndarray]:
        """An attempt, until its goal; pictures of it if `draw`. Raises LostError."""
        self.draws = draw
        if draw:
            self.frames.append(self.vector.render()[0])
        if self.way is None:
            raise LostError("there is no plan")
        for rule in self.way:
            self._insist(RULES[self.rules[rule, 0]].name, self._tiles(self.rules[rule], RULES), False)
        while not self.done:
            self._insist(GOALS[self.goal[0]].name, self._tiles(self.goal, GOALS), True)
        return self.frames

    def _insist(self, name: str, tiles: list[Tile], goal: bool) -> None:
        """Tries again when what stands in front of a door is out of the way."""
        for _ in range(6):
            try:
                return self._set_off(name, tiles, goal)
            except LostError:
                self._clear()
        self._set_off(name, tiles, goal)

    def _clear(self) -> None:
        self._drop(open_place=True)
        doors = [(int(y), int(x)) for y, x in np.argwhere(np.isin(self.grid[..., 0], (CLOSED, CLOSED + 1)))]
        blocking = {cell for door in doors for cell in around(door) if self._shape(cell) in PICKABLE}
        way = self._path(lambda pose: ahead(pose) in blocking)
        way = way or self._path(lambda pose: self._shape(ahead(pose)) in PICKABLE)
        if way is None:
            raise LostError("there is no path")
        self._follow([*way, PICK])
        self._drop(open_place=True)

    def _tiles(self, coded: np.ndarray, kinds) -> list[Tile]:
        return [(int(coded[1 + 2 * i]), int(coded[2 + 2 * i])) for i in range(len(kinds[coded[0]].inputs))]

    def _set_off(self, name: str, tiles: list[Tile], goal: bool = False) -> None:
        """Does what sets a rule off, or reaches a goal; nothing where that has happened on the way."""
        if self.done or not (goal or all(self._is_there(tile) for tile in tiles)):
            return
        last = name.rsplit(maxsplit=1)[-1]
        direction = DIRECTIONS.index(last) if last in DIRECTIONS else None
        if name == "agent hold":
            if self.pocket == tiles[0]:
                self._act(PICK)
            else:
                self._fetch(tiles[0])
        elif name == "agent on tile":
            if self.pocket == tiles[0]:
                self._drop()
            cell = self._cells(tiles[0])[0]
            self._go(lambda pose: pose[:2] == cell)
            if not self.done:  # it stood there before
                self._go(lambda pose: pose[:2] != cell)
                self._go(lambda pose: pose[:2] == cell)
        elif name.startswith("agent near"):
            self._approach(tiles[0], direction)
        else:
            self._join(*tiles, direction)

    def _approach(self, tile: Tile, direction: int | None) -> None:
        """Stands beside a tile and takes a step forward there."""
        for _ in range(8):
            if self.pocket == tile:
                self._drop(open_place=True)
            cells = self._cells(tile)
            if self.done or not cells:
                return
            wanted = {
                (y - way[0], x - way[1]): (y, x)
                for y, x in cells
                for index, way in enumerate(WAYS)
                if direction is None or index == direction
            }
            way = self._path(lambda pose, wanted=wanted: pose[:2] in wanted and ahead(pose) == wanted[pose[:2]])
            if way is not None:
                self._follow([*way, FORWARD])
                return
            self._fetch(tile)  # and put it where there is room
        raise LostError(f"cannot come near {tile}")

    def _join(self, a: Tile, b: Tile, direction: int | None) -> None:
        """Puts one tile beside the other; `b` lies in the direction, seen from `a`."""
        for turn in range(10):
            if self.done or not (self._is_there(a) and self._is_there(b)):
                return
            for carried, other, sign in ((a, b, -1), (b, a, 1)) if turn % 2 == 0 else ((b, a, 1), (a, b, -1)):
                if self.pocket not in ((0, 0), carried) or not self._can_carry(carried) or not self._cells(other):
                    continue
                places = {
                    (y + sign * WAYS[d][0], x + sign * WAYS[d][1])
                    for y, x in self._cells(other)
                    for d in range(4)
                    if direction is None or d == direction
                }
                if self.pocket != carried:
                    self._fetch(carried)
                places = {
                    place for place in places if self._shape(place) == FLOOR and self._safe(place, carried, other)
                }
                way = self._path(lambda pose, places=places: ahead(pose) in places)
                if way is not None:
                    self._follow([*way, PUT])
                    return
                self._drop(open_place=True)
                break
            else:
                self._drop(open_place=True)
                movable = [tile for tile in (a, b) if self._can_carry(tile)]
                self._fetch(movable[turn % len(movable)])
                self._drop(open_place=True)
        raise LostError(f"cannot join {a} and {b}")

    def _can_carry(self, tile: Tile) -> bool:
        held = any(RULES[rule[0]].name == "agent hold" and (rule[1], rule[2]) == tile for rule in self.rules)
        return tile[0] in PICKABLE and not held

    def _safe(self, place: Cell, tile: Tile, wanted: Tile | None = None) -> bool:
        """Whether a tile that is put there makes nothing of its neighbours but what is wanted."""
        for rule in self.rules:
            if len(RULES[rule[0]].inputs) != 2:
                continue
            a, b = (int(rule[1]), int(rule[2])), (int(rule[3]), int(rule[4]))
            other = b if tile == a else a if tile == b else None
            if other not in (None, wanted) and any(self._tile(cell) == other for cell in around(place)):
                return False
        return True

    def _fetch(self, tile: Tile) -> None:
        """Picks a tile up."""
        if self.pocket == tile or self.done:
            return
        if self.pocket != (0, 0):
            self._drop(open_place=True)
        cells = set(self._cells(tile))
        self._go(lambda pose: ahead(pose) in cells)
        self._act(PICK)

    def _drop(self, open_place: bool = False) -> None:
        """Puts down what is carried where it makes nothing, with floor around if that can be."""
        if self.pocket == (0, 0) or self.done:
            return

        def free(pose: Pose, around_it: int) -> bool:
            place = ahead(pose)
            if self._shape(place) != FLOOR or not self._safe(place, self.pocket):
                return False
            near = sum(self._shape(cell) == FLOOR or cell == pose[:2] for cell in around(place))
            beside_door = any(self._shape(cell) in (CLOSED, CLOSED + 1) for cell in around(place))
            return near >= around_it and not (around_it and beside_door)

        for least in (4, 3, 2, 0) if open_place else (0,):
            way = self._path(lambda pose, least=least: free(pose, least))
            if way is not None:
                return self._follow([*way, PUT])
        raise LostError("nowhere to put what is carried")

    def _go(self, there: Callable[[Pose], bool]) -> None:
        way = self._path(there)
        if way is None:
            raise LostError("there is no path")
        self._follow(way)

    def _path(self, there: Callable[[Pose], bool]) -> list[int] | None:
        """The shortest way to a pose, through closed doors."""
        start = self.pose
        queue, came = deque([start]), {start: (start, -1)}
        while queue:
            pose = queue.popleft()
            if there(pose):
                actions: list[int] = []
                while came[pose][1] >= 0:
                    pose, action = came[pose]
                    actions.append(action)
                through = {TOGGLE: [TOGGLE, FORWARD]}
                return [each for action in reversed(actions) for each in through.get(action, [action])]
            for after, action in self._neighbours(pose):
                if after not in came:
                    came[after] = pose, action
                    queue.append(after)
        return None

    def _neighbours(self, pose: Pose) -> Iterator[tuple[Pose, int]]:
        y, x, direction = pose
        yield (y, x, (direction + 1) % 4), CLOCKWISE
        yield (y, x, (direction - 1) % 4), COUNTER
        cell = ahead(pose)
        if self._shape(cell) in WALKABLE:
            yield (*cell, direction), FORWARD
        elif self._shape(cell) == CLOSED:
            yield (*cell, direction), TOGGLE

    def _follow(self, actions: list[int]) -> None:
        for action in actions:
            self._act(action)

    def _act(self, action: int) -> None:
        if self.done:
            return
        if self.steps >= self.limit:
            raise LostError("it takes too long")
        _, reward, terminated, truncated, _ = self.vector.step(np.array([action]))
        self.steps += 1
        self.reward = float(reward[0])
        self.done = bool(terminated[0])
        if truncated[0]:
            raise LostError("its time is up")
        if self.draws:
            self.frames.append(self.vector.render()[0])
        self._look()

    def _look(self) -> None:
        state = self.vector.state()
        self.grid = state.grid[0]
        y, x, direction, _ = state.agent[0].tolist()
        self.pose: Pose = (y, x, direction)
        self.pocket: Tile = (int(state.pocket[0, 0]), int(state.pocket[0, 1]))

    def _tile(self, cell: Cell) -> Tile:
        return int(self.grid[(*cell, 0)]), int(self.grid[(*cell, 1)])

    def _shape(self, cell: Cell) -> int:
        return int(self.grid[(*cell, 0)])

    def _cells(self, tile: Tile) -> list[Cell]:
        return [(int(y), int(x)) for y, x in np.argwhere((self.grid == tile).all(-1))]

    def _is_there(self, tile: Tile) -> bool:
        return self.pocket == tile or bool(self._cells(tile))
