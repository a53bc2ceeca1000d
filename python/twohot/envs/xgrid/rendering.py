"""Pictures of the grid world, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from twohot.envs.xgrid.rules import COLOURS, SHAPES

_RGB = {
    "empty": (20, 20, 20), "red": (220, 50, 50), "green": (60, 170, 80), "blue": (60, 110, 220),
    "purple": (150, 80, 190), "yellow": (225, 190, 40), "grey": (120, 120, 120), "black": (40, 40, 40),
    "orange": (240, 135, 40), "white": (250, 250, 250), "brown": (130, 85, 50), "pink": (240, 140, 180),
}  # fmt: skip
_FLOOR, _LINE, _WALL, _AGENT = (232, 230, 224), (205, 202, 195), (95, 95, 100), (30, 30, 30)
_SUB = 4  # points on a side of a pixel
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polygon(*corners: tuple[float, float]) -> Mask:
    """Inside of a convex polygon, whose corners (x, y) go clockwise on the screen."""

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        edges = zip(corners, corners[1:] + corners[:1], strict=True)
        return np.logical_and.reduce([(bx - ax) * (y - ay) >= (by - ay) * (x - ax) for (ax, ay), (bx, by) in edges])

    return inside


def _around(count: int, radius: float, turn: float) -> list[tuple[float, float]]:
    angles = np.pi * (turn + 2 * np.arange(count) / count)
    return [(0.5 + radius * float(np.cos(a)), 0.5 + radius * float(np.sin(a))) for a in angles]


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer, inner = _around(5, 0.42, -0.5), _around(5, 0.19, -0.3)
    tips = [_polygon(outer[i], inner[i], inner[i - 1])(x, y) for i in range(5)]
    return np.logical_or.reduce([*tips, _polygon(*inner)(x, y)])


def _box(left: float, top: float, right: float, bottom: float) -> Mask:
    return lambda x, y: (left <= x) & (x <= right) & (top <= y) & (y <= bottom)


def _key(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distance = np.hypot(x - 0.5, y - 0.28)
    ring = (distance <= 0.18) & (distance >= 0.08)
    return (
        ring | _box(0.45, 0.42, 0.55, 0.9)(x, y) | _box(0.5, 0.68, 0.7, 0.76)(x, y) | _box(0.5, 0.82, 0.66, 0.9)(x, y)
    )


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ~_box(0.12, 0.12, 0.88, 0.88)(x, y)


_MASKS: dict[str, Mask] = {
    "ball": lambda x, y: np.hypot(x - 0.5, y - 0.5) <= 0.33,
    "square": _box(0.2, 0.2, 0.8, 0.8),
    "pyramid": _polygon((0.5, 0.14), (0.88, 0.84), (0.12, 0.84)),
    "goal": _box(0.0, 0.0, 1.0, 1.0),
    "key": _key,
    "locked door": lambda x, y: ~_box(0.42, 0.35, 0.58, 0.65)(x, y),
    "closed door": lambda x, y: _frame(x, y) | _box(0.2, 0.2, 0.8, 0.8)(x, y) & (np.hypot(x - 0.7, y - 0.5) > 0.07),
    "open door": _frame,
    "hex": _polygon(*_around(6, 0.38, 0.0)),
    "star": _star,
}

_OUTLINED = ("ball", "square", "pyramid", "hex", "star")


@lru_cache
def _points(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    at = (np.arange(pixels * _SUB) + 0.5) / (pixels * _SUB)
    return np.meshgrid(at, at)


def _cover(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The share of each pixel that is inside, [pixels, pixels, 1]."""
    return mask.reshape(pixels, _SUB, pixels, _SUB).mean((1, 3))[..., None]


@lru_cache(maxsize=512)
def _tile(shape: int, colour: int, pixels: int) -> np.ndarray:
    name = SHAPES[shape]
    picture = np.empty((pixels, pixels, 3))
    picture[:] = {"empty": _RGB["empty"], "wall": _WALL}.get(name, _FLOOR)
    if name in _MASKS:
        own = np.array(_RGB[COLOURS[colour]], float)
        if name == "closed door":
            picture[:] = own * 0.55
        x, y = _points(pixels)
        if name in _OUTLINED:
            rim = _cover(_MASKS[name](0.5 + 0.88 * (x - 0.5), 0.5 + 0.88 * (y - 0.5)), pixels)
            picture = picture * (1 - rim) + own * 0.45 * rim
        cover = _cover(_MASKS[name](x, y), pixels)
        picture = picture * (1 - cover) + own * cover
    if name != "wall":
        picture[0] = picture[:, 0] = _LINE
    return picture


@lru_cache(maxsize=16)
def _agent(direction: int, pixels: int) -> np.ndarray:
    mask = _polygon((0.5, 0.12), (0.82, 0.85), (0.18, 0.85))(*_points(pixels))
    return _cover(np.rot90(mask, -direction), pixels)


def draw(
    grid: np.ndarray,
    agent: tuple[int, int, int] | None = None,
    pocket: np.ndarray | None = None,
    *,
    view: int = 0,
    pixels: int = 32,
) -> np.ndarray:
    """A grid as a person sees it; cells in the agent's view are brighter.

    Args:
        grid: uint8 [height, width, 2], shape and colour of each tile.
        agent: y, x and direction (up, right, down, left), or None.
        pocket: the tile that the agent carries, shown small on it.
        view: side of what the agent sees, 0 for everything. pixels: side of a tile.

    Returns:
        uint8 [height * pixels, width * pixels, 3].
    """
    height, width = grid.shape[:2]
    rows = [np.concatenate([_tile(*map(int, tile), pixels) for tile in row], axis=1) for row in grid]
    picture = np.concatenate(rows, axis=0)
    if agent is not None:
        y, x, direction = agent
        cell = picture[y * pixels : (y + 1) * pixels, x * pixels : (x + 1) * pixels]
        cover = _agent(direction, pixels)
        cell[:] = cell * (1 - cover) + np.array(_AGENT) * cover
        if pocket is not None and pocket[0] != 0:
            small, at = pixels // 2, pixels // 4
            cell[at : at + small, at : at + small] = _tile(*map(int, pocket), small)
        if view:
            seen = np.zeros((height, width), bool)
            top, left = [
                (y - view + 1, x - view // 2),
                (y - view // 2, x),
                (y, x - view // 2),
                (y - view // 2, x - view + 1),
            ][direction]
            seen[max(top, 0) : max(top + view, 0), max(left, 0) : max(left + view, 0)] = True
            picture[~seen.repeat(pixels, 0).repeat(pixels, 1)] *= 0.62
    return picture.round().astype(np.uint8)
