"""Where an environment meets the package: what it gives is exact from here on, or an error that names the task."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np

from twohot.errors import BrokenEnvironmentError, TwohotError
from twohot.exact import read_array

LARGEST = float(np.finfo(np.float32).max)
"""The largest reward: an agent sees and stores rewards as float32."""
OLD_INTERFACE = (
    "an environment of the old gym is brought up to date by gymnasium.make('GymV21Environment-v0', env=...), for which "
    "there is `pip install shimmy`"
)
_RETURNS = f"`step` returns (observation, reward, terminated, truncated, info); {OLD_INTERFACE}"
_TAKES = f"it is `reset(self, *, seed=None, options=None)`; {OLD_INTERFACE}"
_HINTS = {
    "values to unpack (expected 5": _RETURNS,
    "cannot unpack non-iterable": _RETURNS,
    "unexpected keyword argument 'seed'": _TAKES,
    "unexpected keyword argument 'options'": _TAKES,
}
FAILURES = (Exception, SystemExit)
"""What an environment may raise: one that exits would end a training without a word."""

logger = logging.getLogger("twohot")


def raised(name: str, method: str, error: BaseException) -> BrokenEnvironmentError:
    """The error of an exception that came out of an environment, to be raised from it.

    Args:
        name: the task, as it stands in a sentence. method: what was asked of it.
    """
    said = f": {error}" if str(error) else ""
    hints = [hint for part, hint in _HINTS.items() if part in said]
    frames = traceback.extract_tb(error.__traceback__)
    if not hints and frames:
        hints = [f"{frames[-1].filename}, line {frames[-1].lineno}"]
    where = f" ({hints[0]})" if hints else ""
    return BrokenEnvironmentError(f"{name} raised {type(error).__name__} in `{method}`{said}{where}")


def raise_named(error: BaseException, name: str, method: str) -> NoReturn:
    """Raise what came out of an environment, or was said of it, with the task's name, which it may bear already."""
    told = isinstance(error, TwohotError)
    if told and (hasattr(error, "task") or name in str(error)):
        raise error
    named = type(error)(f"{name}: {error}") if told else raised(name, method, error)
    named.task = name
    raise named from error


def checked_reset(result: Any) -> tuple[Any, dict[str, Any]]:
    """What `reset` returned, once it is certain that it is (observation, info).

    Raises:
        BrokenEnvironmentError: it is something else.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise BrokenEnvironmentError(
            f"expected `reset` to return (observation, info) with a dict as info, got {shown(result)}: {OLD_INTERFACE}"
        )
    return result


def checked_step(result: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """What `step` returned, its numbers as Python's own.

    A reward may be any real number, numpy's too, or an array of one; an end may be a bool, a 0 or a 1 in the same way.

    Raises:
        BrokenEnvironmentError: it is something else.
    """
    if not (isinstance(result, tuple) and len(result) == 5):
        raise BrokenEnvironmentError(
            f"expected `step` to return (observation, reward, terminated, truncated, info), got {shown(result)}: "
            f"{OLD_INTERFACE}"
        )
    observation, reward, terminated, truncated, info = result
    if not isinstance(info, dict):
        raise BrokenEnvironmentError(f"expected a dict as the info of `step`, got {shown(info)}")
    return observation, _number(reward), _flag(terminated, "terminated"), _flag(truncated, "truncated"), info


def _number(value: Any) -> float:
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:  # an int that no float holds is no finite reward
            return math.inf
    array = as_numbers(value)
    if array is None or array.size != 1:
        raise BrokenEnvironmentError(f"expected one real number as the reward, got {shown(value)}")
    return float(array.item())


def _flag(value: Any, kind: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    array = as_numbers(value)
    if array is None or array.size != 1 or array.item() not in (0, 1):
        raise BrokenEnvironmentError(f"expected `{kind}` True or False, got {shown(value)}")
    return bool(array.item())


def as_numbers(value: Any) -> np.ndarray | None:
    """Numbers as an array; None for all else."""
    try:
        array = read_array(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None


def checked_column(value: Any, num_envs: int, kind: str) -> np.ndarray:
    """The rewards or ends of all environments of a vector environment, [num_envs], as float64 or bool.

    Args:
        value: [num_envs] or [num_envs, 1]. kind: "reward", "terminated" or "truncated".

    Raises:
        BrokenEnvironmentError: another shape, or anything but numbers; ends that are neither true nor false.
    """
    array = as_numbers(value)
    if array is not None and array.shape in ((num_envs,), (num_envs, 1)):
        array = array.reshape(num_envs)
        if kind == "reward":
            return array.astype(np.float64)
        if array.dtype == bool or ((array == 0) | (array == 1)).all():
            return array.astype(bool)
    wanted = "real numbers" if kind == "reward" else "bools"
    raise BrokenEnvironmentError(f"expected `{kind}` of {num_envs} {wanted}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value in a sentence: short, and with its type, for many print as something else."""
    if isinstance(value, tuple):
        return f"{len(value)} values ({', '.join(type(part).__name__ for part in value)})"
    shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__}{shape} {text if len(text) <= 80 else text[:77] + '...'}"


class Checked(gym.Wrapper):
    """An environment whose exceptions and odd values are errors that name the task.

    Rewards come out as float, ends as bool, the info as a dict. What `close` raises is logged: nothing is lost by it.

    Args:
        env: any environment. name: of the task, as it stands in a sentence.

    Raises:
        BrokenEnvironmentError: in `reset`, `step` and `render`: the environment raised, with that exception as the
            cause, or returned what gymnasium's interface does not have.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        super().__init__(env)
        self.name, self._step = name, env.step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return asked(self.name, "reset", lambda: checked_reset(self.env.reset(seed=seed, options=options)))

    def step(self, action):
        try:
            _, reward, terminated, truncated, info = result = self._step(action)
            if isinstance(reward, float) and type(terminated) is type(truncated) is bool and type(info) is dict:
                return result
            return checked_step(result)
        except FAILURES as error:
            raise_named(error, self.name, "step")

    def render(self):
        try:
            return self.env.render()
        except NotImplementedError:  # gymnasium's own, of an environment that draws nothing
            return None
        except FAILURES as error:
            raise_named(error, self.name, "render")

    def close(self) -> None:
        close(self.env, self.name)


def checked(env: gym.Env, name: str) -> gym.Env:
    """`env` in `Checked`, unless that is in it already."""
    inner = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, Checked):
            return env
        inner = inner.env
    return Checked(env, name)


def asked(name: str, method: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What `call` returns; an exception that it raises names the task."""
    try:
        return call(*arguments, **options)
    except FAILURES as error:
        raise_named(error, name, method)


def close(env: Any, name: str) -> None:
    """Close an environment; what that raises is logged, so that all others are closed too and no result is lost."""
    try:
        env.close()
    except FAILURES as error:
        logger.warning("%s", raised(name, "close", error))
