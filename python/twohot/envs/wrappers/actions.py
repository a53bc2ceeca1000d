"""One action space for all tasks of an agent: larger than a task's own where need be, and starting from 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from twohot.envs.checked import shown
from twohot.envs.errors import ActionError, UnsupportedSpaceError
from twohot.spaces import shape_of


def common_action_space(own: Sequence[gym.Space], size: int = 0) -> gym.Space:
    """The smallest space from 0 on in which every task can act.

    Args:
        own: each task's action space: all Discrete, all MultiDiscrete, all MultiBinary or all bounded Boxes.
        size: number of actions, of binary choices or of numbers; 0 takes the largest.

    Returns:
        Discrete(size), MultiDiscrete (each part as large as the largest), MultiBinary(size), or Box(-1, 1, (size,)).

    Raises:
        UnsupportedSpaceError: another space, two kinds of them, or a Box without bounds.
        ValueError: `size` is smaller than a task's own, or given for MultiDiscrete.
    """
    kinds = {type(space) for space in own}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise UnsupportedSpaceError(
            f"expected tasks with one kind of action, got {names}: leave tasks out, or wrap MultiDiscrete in "
            "FlatDiscreteAction"
        )
    if isinstance(own[0], spaces.MultiDiscrete):
        if size:
            raise ValueError(f"expected actions 0 for tasks whose actions are MultiDiscrete, got {size}")
        counts = [space.nvec.ravel() for space in own if isinstance(space, spaces.MultiDiscrete)]
        common = np.ones(max(map(len, counts)), np.int64)
        for each in counts:
            common[: len(each)] = np.maximum(common[: len(each)], each)
        return spaces.MultiDiscrete(common)
    sizes = [_size(space) for space in own]
    size = size or max(sizes)
    if max(sizes) > size:
        raise ValueError(f"expected at most {size} actions, got {max(sizes)}: raise actions")
    if isinstance(own[0], spaces.Discrete):
        return spaces.Discrete(size)
    if isinstance(own[0], spaces.MultiBinary):
        return spaces.MultiBinary(size)
    return spaces.Box(-1, 1, (size,), np.float32)


def _size(space: gym.Space) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box) and not space.is_bounded():
        raise UnsupportedSpaceError(f"expected a Box action with bounds on all sides, got {space}: wrap it in bounds")
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return int(np.prod(space.shape))
    raise UnsupportedSpaceError(
        f"expected an action space of Discrete, MultiDiscrete, MultiBinary or a bounded Box, got {space}"
    )


def pad_actions(env: gym.Env, space: gym.Space) -> PadActions | PadChoices | PadBinary | RescaleActions:
    """`env` wrapped so that it takes actions of `space`, which `common_action_space` gave."""
    if isinstance(space, spaces.Discrete):
        return PadActions(env, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return PadChoices(env, space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return PadBinary(env, math.prod(space.shape))
    return RescaleActions(env, shape_of(space)[0])


def check_actions(actions: Any, space: gym.Space, *leading: int) -> np.ndarray:
    """Actions as an array [*leading, *action], once it is certain that they are those of a space from 0 on.

    Args:
        actions: of any dtype that has the very numbers. space: as `common_action_space` gives. leading: axes in front.

    Raises:
        ActionError: another shape; a NaN; a number that is no choice of the space.
    """
    array = np.asarray(actions)
    if array.ndim == 1 and array.shape == leading and array.dtype.kind in "iu" and isinstance(space, spaces.Discrete):
        listed = array.tolist()  # faster than in numpy
        if min(listed) >= 0 and max(listed) < space.n:
            return array
    fits = array.shape == (*leading, *(space.shape or ())) and array.dtype.kind in "biuf"
    if fits and isinstance(space, spaces.Box):
        flat = array.ravel()
        fits = not math.isnan(flat @ flat)  # a sum of squares has no NaN but one that was there, and is fast
    elif fits:
        if array.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                whole = array.astype(np.int64)
            array, fits = whole, bool((whole == array).all())
        if isinstance(space, spaces.MultiDiscrete):
            choices = space.nvec
        else:
            choices = space.n if isinstance(space, spaces.Discrete) else 2
        fits = fits and not ((array < 0) | (array >= choices)).any()
    if not fits:
        raise ActionError(f"expected actions {[*leading, *(space.shape or ())]} of {space}, got {shown(actions)}")
    return array


def legal_sample(space: gym.Space, mask: np.ndarray | None) -> Any:
    """A random action of a space from 0 on, legal by its mask, [choices], if there is one."""
    if mask is None:
        return space.sample()
    mask = np.asarray(mask, np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return space.sample(tuple(np.split(mask, np.cumsum(space.nvec)[:-1])))
    return space.sample(2 * mask if isinstance(space, spaces.MultiBinary) else mask)  # 2: 0 or 1


class BoxScale:
    """Numbers from -1 to 1 as those of a bounded Box; numbers outside [-1, 1] are cut off there.

    -1 and 1 are exactly the bounds. Floats lie between them in proportion; of an integer (or bool) Box, each number has
    an equal share of [-1, 1], as far as the numbers given are fine enough.

    Args:
        space: a Box with bounds.
    """

    def __init__(self, space: spaces.Box) -> None:
        self._shape, self._dtype = space.shape, space.dtype
        self._low, self._high = space.low.ravel(), space.high.ravel()
        self._whole = space.dtype.kind in "iub"
        if self._whole:
            # In 64 bits without sign, where the largest range fits, and a sum that wraps around is the right one.
            self._first = self._low.astype(np.int64 if space.dtype.kind == "i" else np.uint64).astype(np.uint64)
            last = self._high.astype(np.int64 if space.dtype.kind == "i" else np.uint64).astype(np.uint64)
            self._span = last - self._first
        else:
            low, high = self._low.astype(np.float64), self._high.astype(np.float64)
            self._center, self._half = low / 2 + high / 2, high / 2 - low / 2
            ends = self._between(np.full(low.shape, -1.0)), self._between(np.full(low.shape, 1.0))
            self._meets_ends = all(map(np.array_equal, ends, (self._low, self._high)))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """[..., *shape of the Box] of its dtype, from [..., its size]."""
        numbers = np.minimum(np.maximum(numbers, -1.0), 1.0)  # several times faster than clip on so few
        own = self._integers(numbers.astype(np.float64)) if self._whole else self._floats(numbers)
        return own.reshape((*numbers.shape[:-1], *self._shape))

    def inverse(self, own: np.ndarray) -> np.ndarray:
        """Numbers from -1 to 1, float32 [rows, size], that become integers [rows, size] of the Box.

        The bounds are -1 and 1, and every other integer the middle of its share, as far as float32 has it.
        """
        step = np.asarray(own).astype(np.float64) - self._low.astype(np.float64)
        span = self._span.astype(np.float64)
        middle = (2 * step + 1) / (span + 1) - 1
        return np.where(span == 0, 0, np.where(step <= 0, -1, np.where(step >= span, 1, middle))).astype(np.float32)

    def _floats(self, numbers: np.ndarray) -> np.ndarray:
        own = self._between(numbers)
        if self._meets_ends:
            return own
        return np.where(numbers == 1, self._high, np.where(numbers == -1, self._low, own))

    def _between(self, numbers: np.ndarray) -> np.ndarray:
        own = (self._center + self._half * numbers).astype(self._dtype)
        return np.minimum(np.maximum(own, self._low), self._high)  # rounding must not leave the bounds

    def _integers(self, numbers: np.ndarray) -> np.ndarray:
        share = (numbers + 1) / 2 * (self._span.astype(np.float64) + 1)
        below = np.minimum(share, np.nextafter(2.0**64, 0)).astype(np.uint64)  # 2**64 does not fit
        step = np.where(numbers == 1, self._span, np.minimum(below, self._span))
        return (self._first + step).astype(self._dtype)


class PadActions(gym.Wrapper):
    """Offers `count` actions; one beyond the task's own becomes a uniformly random legal one.

    Random choices come from a separate generator, seeded by `reset(seed=...)`, so that they change no
    random number of the environment.

    Attributes:
        legal: whether the last action was one of the task's own; True after a reset.

    Raises:
        UnsupportedSpaceError: the action space is not Discrete.
        ValueError: the task has more than `count` actions. ActionError: an action is none of them.
    """

    def __init__(self, env: gym.Env, count: int) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Discrete):
            hint = ": wrap it in FlatDiscreteAction" if isinstance(space, spaces.MultiDiscrete) else ""
            raise UnsupportedSpaceError(f"expected a Discrete action space, got {space}{hint}")
        self._own_count, self._count, self._first = int(space.n), int(count), int(space.start)
        if self._own_count > count:
            raise ValueError(f"expected at most {count} actions, got {self._own_count} from {env}: raise actions")
        self.action_space = spaces.Discrete(self._count)
        self._random = np.random.default_rng().random
        self.legal = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            # The second word keeps this stream apart from that of an environment with the same seed.
            self._random = np.random.default_rng((seed, 1)).random
        self.legal = True
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        try:
            action = index(action)
        except TypeError:
            action = int(check_actions(action, self.action_space))
        if not 0 <= action < self._count:
            raise ActionError(f"expected an action in [0, {self._count}), got {action}")
        self.legal = action < self._own_count
        if not self.legal:
            # Three times faster than Generator.integers for one number; uniform to 2**-53 * own_count.
            action = int(self._random() * self._own_count)
        return self.env.step(self._first + action)


class PadChoices(gym.Wrapper):
    """Offers `counts` choices for each part of a MultiDiscrete action.

    A choice beyond the task's own becomes a uniformly random legal one, as in `PadActions`; parts beyond the task's
    own do nothing.

    Attributes:
        legal: whether all choices of the last action that do something were the task's own; True after a reset.

    Raises:
        UnsupportedSpaceError: the action space is not MultiDiscrete.
        ValueError: the task has more parts or choices. ActionError: an action is none of the space.
    """

    def __init__(self, env: gym.Env, counts: np.ndarray) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.MultiDiscrete):
            raise UnsupportedSpaceError(f"expected a MultiDiscrete action space, got {space}")
        self._own, self._first, self._shape = space.nvec.ravel(), space.start.ravel(), space.shape
        self._counts = np.asarray(counts)
        if len(self._own) > len(self._counts) or (self._own > self._counts[: len(self._own)]).any():
            raise ValueError(f"expected at most the choices {self._counts}, got {self._own} from {env}")
        self.action_space = spaces.MultiDiscrete(self._counts)
        self._generator = np.random.default_rng()
        self.legal = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self._generator = np.random.default_rng((seed, 1))
        self.legal = True
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        own = check_actions(action, self.action_space)[: len(self._own)].astype(np.int64)
        illegal = own >= self._own
        self.legal = not illegal.any()
        if not self.legal:
            own[illegal] = self._generator.integers(self._own[illegal])
        return self.env.step((own + self._first).reshape(self._shape))


class PadBinary(gym.Wrapper):
    """Offers `size` binary choices; those beyond the task's own do nothing.

    Raises:
        UnsupportedSpaceError: the action space is not MultiBinary.
        ValueError: the task has more than `size` choices. ActionError: an action is none of the space.
    """

    legal = True

    def __init__(self, env: gym.Env, size: int) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.MultiBinary):
            raise UnsupportedSpaceError(f"expected a MultiBinary action space, got {space}")
        self._shape, self._own_size = space.shape, _size(space)
        if self._own_size > size:
            raise ValueError(f"expected at most {size} binary choices, got {self._own_size} from {env}: raise actions")
        self.action_space = spaces.MultiBinary(size)

    def step(self, action):
        own = check_actions(action, self.action_space)[: self._own_size]
        return self.env.step(own.astype(np.int8).reshape(self._shape))


class RescaleActions(gym.Wrapper):
    """Offers `size` numbers in [-1, 1], which become the task's own as `BoxScale` says; those beyond them do nothing.

    Raises:
        UnsupportedSpaceError: the action space is no Box with finite bounds.
        ValueError: the task has more than `size` numbers. ActionError: an action of another shape, or a NaN.
    """

    legal = True

    def __init__(self, env: gym.Env, size: int) -> None:
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box):
            raise UnsupportedSpaceError(f"expected a Box action space, got {space}")
        self._own_size, self._scale = _size(space), BoxScale(space)
        if self._own_size > size:
            raise ValueError(f"expected at most {size} numbers, got {self._own_size} from {env}: raise actions")
        bounds = (space.low == -1).all() and (space.high == 1).all()
        self._as_is = space.shape == (size,) and space.dtype == np.float32 and bounds
        self.action_space = spaces.Box(-1, 1, (size,), np.float32)

    def step(self, action):
        action = check_actions(action, self.action_space)
        if self._as_is:
            return self.env.step(np.minimum(np.maximum(action, -1.0), 1.0))
        return self.env.step(self._scale(action[: self._own_size]))
