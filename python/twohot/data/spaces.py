"""The spaces of a run's agent, and the columns of its replay."""

from __future__ import annotations

from gymnasium import Space, spaces

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.envs import Layout, common_layout
from twohot.replay import Field, Schema
from twohot.spaces import action_dtype, shape_of

__all__ = ["agent_layout", "replay_schema"]


def agent_layout(environment: EnvironmentConfig, evaluation: EvaluateConfig) -> Layout:
    """The spaces of a run's agent: they fit the tasks that it is trained on and those held out.

    Raises:
        ValueError, UnknownEnvironmentError, MissingExtraError, UnsupportedSpaceError: see `common_layout`.
    """
    tasks = (*environment.tasks, *evaluation.held_out_tasks)
    return common_layout(environment.suite, tasks, environment.observation_size, environment.actions)


def replay_schema(observation: spaces.Dict, action: Space) -> Schema:
    """The columns in which a replay stores what an environment with these spaces shows and what is done there."""
    columns = {name: Field(str(part.dtype), shape_of(part)) for name, part in observation.items()}
    return Schema(columns, Field(action_dtype(action), tuple(action.shape or ())))
