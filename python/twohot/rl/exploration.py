"""Exploration: noise on the policy's actions, scheduled in total environment steps, scaled at random in each trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from twohot._moved import renamed_arguments

__all__ = ["Exploration", "Schedule", "linear_schedule"]


def linear_schedule(
    step: int | np.ndarray, start: float | np.ndarray, end: float | np.ndarray, over: int
) -> float | np.ndarray:
    """From `start` at step 0 to `end` at step `over`, and `end` from there on."""
    if over <= 0:
        progress: float | np.ndarray = 1.0
    else:
        progress = min(1.0, step / over) if isinstance(step, int) else np.minimum(1.0, step / over)
    return start + (end - start) * progress


@dataclass(frozen=True)
class Schedule:
    """Size of the noise (epsilon): it falls over the environment steps of all actors, and may fall within a trial too.

    At step t of a trial, with b and e linear in the environment steps from their start to their end over `over` steps:

        epsilon = b + (e - b) min(1, t / trial_steps)          (bilevel: Grigsby et al. 2023, AMAGO)

    Args:
        start, end: b, the noise that trials begin with, at first and after `over` environment steps.
        over: environment steps, of all actors together.
        trial_start, trial_end: e, the noise that trials fall to, at first and after `over` environment steps.
        trial_steps: steps of a trial over which its noise falls; 0 keeps it at b.
    """

    start: float
    end: float
    over: int
    trial_start: float = 0.0
    trial_end: float = 0.0
    trial_steps: int = 0

    def __call__(self, environment_steps: int, trial_step: int | np.ndarray = 0) -> float | np.ndarray:
        """Epsilon, before the trial's multiplier."""
        begin = linear_schedule(environment_steps, self.start, self.end, self.over)
        if not self.trial_steps:
            return begin
        fall_to = linear_schedule(environment_steps, self.trial_start, self.trial_end, self.over)
        return linear_schedule(trial_step, begin, fall_to, self.trial_steps)


class Exploration:
    """Noise of size epsilon x multiplier on the actions of `environments` actors.

    Choices become, with that probability, uniformly random legal ones; numbers get Gaussian noise of that standard
    deviation and stay in [-1, 1]. Buttons (MultiBinary) are flipped: with that probability the actor draws which, each
    with `flip_probability`, and flips these for `flip_steps` steps; a random combination of all buttons would undo
    what the policy does. The multiplier is drawn from U(0, 1) for each trial, so that at any time some trials
    are played nearly without noise (Grigsby et al. 2023).

    With a `duration` D above 1, exploration is extended in time (Dabney et al. 2021, arXiv 2006.01782, whose durations
    have a zeta distribution): a choice that explores, or the noise on numbers, is kept for another step with
    probability 1 - 1 / D, so for D steps on average. Choices begin to explore the more seldom, with probability
    epsilon / (D (1 - epsilon) + epsilon), so that epsilon stays the share of the steps that explore.

    Args:
        environments: actors stepped together. action_space: what they do.
        schedule: epsilon.
        generator: numpy stream of all draws.
        randomize_epsilon: whether there is a multiplier; without it, it is 1.
        flip_probability, flip_steps: of MultiBinary actions.
        duration: D, at least 1; of actions that are no MultiBinary ones.
        asked: whether there is noise only where the environment asks for it.
    """

    @renamed_arguments(random_multiplier="randomize_epsilon", flip="flip_probability")
    def __init__(
        self,
        environments: int,
        action_space: Space[Any],
        schedule: Schedule,
        generator: np.random.Generator,
        randomize_epsilon: bool = True,
        flip_probability: float = 0.15,
        flip_steps: int = 1,
        duration: float = 1.0,
        *,
        asked: bool = False,
    ) -> None:
        self.action_space, self.schedule = action_space, schedule
        self.generator, self.randomize_epsilon = generator, randomize_epsilon
        self.flip_probability, self.flip_steps = flip_probability, flip_steps
        self.duration, self.asked = duration, asked
        self.multiplier = np.ones(environments)
        self._step, self._flips_left = np.zeros((2, environments), np.int64)
        self._flips = np.zeros((environments, *(action_space.shape or ())), bool)
        self._exploring = np.zeros(environments, bool)
        self._drawn = np.zeros(self._flips.shape, np.float32 if isinstance(action_space, spaces.Box) else np.int64)

    def __repr__(self) -> str:
        return f"Exploration(environments={len(self.multiplier)}, {self.action_space}, {self.schedule})"

    def state_dict(self) -> dict[str, Any]:
        """The generator and the multipliers as JSON values: what trials that begin later depend on."""
        return {"generator": self.generator.bit_generator.state, "multiplier": self.multiplier.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with new trials."""
        self.generator.bit_generator.state = state["generator"]
        self.multiplier[:] = state["multiplier"]

    def begin(self, mask: np.ndarray) -> None:
        """A trial begins where mask [environments] (bool) is True: draw its multiplier."""
        self._step[mask] = self._flips_left[mask] = 0
        self._exploring[mask] = False
        if self.randomize_epsilon:
            self.multiplier = np.where(mask, self.generator.random(len(mask)), self.multiplier)

    def __call__(
        self,
        actions: np.ndarray,
        environment_steps: int,
        action_mask: np.ndarray | None = None,
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        """The actions to take.

        Args:
            actions: [environments, *action] of the policy.
            environment_steps: taken so far by all actors.
            action_mask: [environments, choices], 1 where legal; of a MultiDiscrete action the parts side by side.
            where: [environments] (bool), which environments ask for noise; None means all.
        """
        epsilon = self.schedule(environment_steps, self._step) * self.multiplier
        if where is not None:
            epsilon = epsilon * where
        self._step += 1
        if isinstance(self.action_space, spaces.Box):
            noise, _ = self._extended(
                self.generator.standard_normal(actions.shape, np.float32), np.ones(len(actions), bool)
            )
            return (actions + epsilon.astype(np.float32)[:, None] * noise).clip(-1.0, 1.0)
        buttons = isinstance(self.action_space, spaces.MultiBinary)
        if self.duration > 1 and not buttons:
            epsilon = epsilon / (self.duration * (1 - epsilon) + epsilon)
        explore = self.generator.random(len(actions)) < epsilon
        if buttons:
            return self._flipped(actions, explore, action_mask)
        drawn = random_choices(self.action_space, self.generator, len(actions), action_mask)
        drawn, explore = self._extended(drawn, explore, action_mask, where)
        if not np.count_nonzero(explore):
            return actions
        return np.where(_beside(explore, actions), drawn, actions)

    def _extended(
        self,
        drawn: np.ndarray,
        explore: np.ndarray,
        action_mask: np.ndarray | None = None,
        where: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is drawn, and whether it is taken: where an earlier draw goes on, that one."""
        if self.duration == 1:
            return drawn, explore
        before = self._exploring & (self.generator.random(len(drawn)) < 1 - 1 / self.duration)
        if action_mask is not None:
            before &= legal_choices(self.action_space, self._drawn, action_mask)
        if where is not None:
            before &= where
        self._drawn = np.where(_beside(before, drawn), self._drawn, drawn)
        self._exploring = before | explore
        return self._drawn, self._exploring

    def _flipped(self, actions: np.ndarray, explore: np.ndarray, action_mask: np.ndarray | None) -> np.ndarray:
        begin = explore & (self._flips_left == 0)
        drawn = self.generator.random(self._flips.shape) < self.flip_probability
        self._flips = np.where(begin[:, None], drawn, self._flips)
        self._flips_left[begin] = self.flip_steps
        buttons = actions ^ (self._flips & (self._flips_left > 0)[:, None])
        self._flips_left = np.maximum(self._flips_left - 1, 0)
        return buttons if action_mask is None else buttons * (action_mask != 0)


def _beside(rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """rows [environments], so that they broadcast to actions [environments, *action]."""
    return np.expand_dims(rows, tuple(range(1, actions.ndim)))


def legal_choices(space: Space[Any], actions: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
    """[rows] (bool): whether a mask [rows, choices] allows the actions [rows, *action] of a (Multi)Discrete space."""
    counts: np.ndarray | None = getattr(space, "nvec", None)
    if counts is not None:
        actions = actions + np.cumsum([0, *counts[:-1]])
    return (np.take_along_axis(action_mask, np.reshape(actions, (len(actions), -1)), -1) != 0).all(-1)


def random_choices(
    space: Space[Any], generator: np.random.Generator, rows: int, action_mask: np.ndarray | None = None
) -> np.ndarray:
    """Uniformly random actions of a Discrete, MultiDiscrete or MultiBinary space, [rows, *action] int64.

    Args:
        space, generator: which, and where from. rows: how many.
        action_mask: [rows, choices], 1 where legal; at least one in each part; of MultiBinary, which bits may be 1.

    Raises:
        TypeError: for another space.
    """
    if isinstance(space, spaces.MultiBinary):
        bits = generator.integers(2, size=(rows, *space.shape))
        return bits if action_mask is None else bits * (action_mask != 0)
    # The largest of uniform numbers is at every place with the same probability; illegal ones are below all.
    scores = None if action_mask is None else generator.random(action_mask.shape) - (action_mask == 0)
    if isinstance(space, spaces.Discrete):
        if scores is not None:
            return scores.argmax(-1)
        if rows == 1:  # the same number, but numpy takes four times as long where it has to look at a size
            return np.array([generator.integers(space.n)], np.int64)
        return generator.integers(space.n, size=rows)
    choices: np.ndarray | None = getattr(space, "nvec", None)
    if choices is None:
        raise TypeError(f"random_choices: expected a Discrete, MultiDiscrete or MultiBinary space, got {space}")
    if scores is None:
        return generator.integers(choices, size=(rows, len(choices)))
    parts = np.split(scores, np.cumsum(choices)[:-1], axis=-1)
    return np.stack([part.argmax(-1) for part in parts], axis=-1)
