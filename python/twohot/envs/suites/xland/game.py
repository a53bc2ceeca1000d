"""An environment of XLand-MiniGrid (`twohot[xland]`), whose observations are those of the suite `xgrid`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from twohot.envs.vector.jax_batch import JaxGame
from twohot.envs.xgrid.rendering import draw
from twohot.envs.xgrid.rules import ACTIONS, COLOURS, SHAPES


class XLandGame(JaxGame):
    """An environment as XLand-MiniGrid computes it.

    What ends an attempt terminates, its time too, which the reward shows. A success is a positive reward.

    Args:
        name: what XLand-MiniGrid registers. view: an odd number; 0 for its own. steps: of an attempt; 0 for its own.
        unseen: whether the agent's own cell does not show what it carries, as in XLand-MiniGrid.

    Attributes:
        has_rules: whether it is played with rule sets. view: as above, never 0.
    """

    reports_success = True

    def __init__(self, name: str, view: int, steps: int, unseen: bool) -> None:
        from xminigrid.registration import make

        changed = ({"view_size": view} if view else {}) | ({"max_steps": steps} if steps else {})
        self._env, self._params = make(name, **changed)
        self._unseen = unseen
        self.has_rules = hasattr(self._params, "ruleset")
        self.view: int = self._params.view_size
        grid = spaces.Box(0, max(len(SHAPES), len(COLOURS)) - 1, (self.view, self.view, 2), np.uint8)
        self.observation_space = spaces.Dict({"grid": grid, "direction": spaces.Box(0.0, 1.0, (4,), np.float32)})
        self.action_space = spaces.Discrete(len(ACTIONS))

    def begin(self, key: Any, task: Any) -> tuple[Any, Any]:
        params: Any = self._params
        if self.has_rules:  # a reset looks at nothing else of a rule set
            params = params.replace(ruleset=params.ruleset.replace(init_tiles=task))
        begun = self._env.reset(params, key)
        return self._kept(begun.state), self._shown(begun)

    def step(self, state: Any, action: Any, task: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
        from xminigrid.types import TimeStep

        if self.has_rules:
            state = state.replace(goal_encoding=task[0], rule_encoding=task[1])
        unread: Any = {"step_type": None, "reward": None, "discount": None, "observation": None}
        after = self._env.step(self._params, TimeStep(state=state, **unread), action)
        return self._kept(after.state), self._shown(after), after.reward, after.last(), False, after.reward > 0

    def picture(self, state: Any) -> np.ndarray:
        where = (*state.agent.position.tolist(), int(state.agent.direction))
        return draw(state.grid, where, state.agent.pocket, view=self.view)

    def _kept(self, state: Any) -> Any:
        """A state without its key, which nothing draws from, and without the rule set, which `step` is given."""
        without = {"goal_encoding": None, "rule_encoding": None} if self.has_rules else {}
        return state.replace(key=None, **without)

    def _shown(self, timestep: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        agent, grid = timestep.state.agent, timestep.observation
        if not self._unseen:
            place = grid.shape[0] - 1, grid.shape[1] // 2
            grid = grid.at[place].set(jnp.where(agent.pocket.any(), agent.pocket, grid[place]))
        return {"grid": grid, "direction": jax.nn.one_hot(agent.direction, 4)}
