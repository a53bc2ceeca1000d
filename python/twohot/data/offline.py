"""Recorded trajectories as a replay that an agent trains from: a replay directory, a Minari dataset or an import.

data = load_offline("minari:D4RL/door/human-v2")
agent = AgentNetworks(config.agent, data.observation_space, data.action_space)
batches = data.replay.loader(24, 256, batches=1000, torch=True)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from gymnasium import Space, spaces

from twohot.data.offline_columns import (
    OfflineError,
    Recorded,
    action_column,
    cast,
    check_choices,
    columns_action,
    columns_space,
    named,
    observation_columns,
    one_vector,
    with_choices_of_mask,
)
from twohot.data.offline_scan import Scan
from twohot.data.spaces import replay_schema
from twohot.replay import Mixture, Replay
from twohot.replay.arguments import real
from twohot.replay.formats import Trajectory, read_amago, read_minari, read_npz
from twohot.replay.formats.minari import open_minari
from twohot.replay.manifest import exists, repair_command
from twohot.spaces import OBSERVATION, as_dict_space, check_action_mask, check_action_space, shape_of

__all__ = ["Offline", "load_mixture", "load_offline"]

UNBOUNDED = 2**62
"""A capacity that nothing reaches."""
KINDS = ("replay", "minari", "npz", "amago")


Source = TypeVar("Source", Replay, Mixture)


@dataclass(frozen=True)
class Offline(Generic[Source]):
    """Trajectories to train from, and the spaces of an agent that fits them."""

    replay: Source
    observation_space: spaces.Dict
    action_space: Space


def load_offline(
    source: str | Path,
    *,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    recorded_observation_space: Space | None = None,
    recorded_action_space: Space | None = None,
    context_features: bool = True,
    reward_multiplier: float = 1.0,
    fields: Collection[str] | None = None,
    task: int | None = None,
    seed: int = 0,
    threads: int = 2,
) -> Offline[Replay]:
    """Opens or reads a dataset.

    A replay directory whose columns are those of an agent, such as that of a run, is opened as it is and nothing is
    copied. All else is converted into memory: observations become float32 vectors, but for images (uint8, two or three
    dimensions), integers named "grid..." or "tokens..."; lone integers become one-hot; actions become those of
    `twohot.spaces`, numbers rescaled to [-1, 1]. As in a `TrialEnv` with one attempt, four context features follow.

    Args:
        source: a replay directory; "minari:ID" for a local Minari dataset; "npz:PATH" or "amago:PATH" for files that
            `twohot.replay.formats` reads.
        observation_space, action_space: of the environment that the agent will play or be evaluated in (with its
            context features); None infers the smallest that fit. Shorter vectors are padded.
        recorded_observation_space, recorded_action_space: of the environment that was recorded, which say where choices
            start, how many there are, and what numbers run between; None takes those of a Minari dataset. Without,
            choices start from 0, and actions that are numbers run from -1 to 1.
        context_features: whether converted observations get the four features.
        reward_multiplier: finite factor on the rewards that are converted.
        fields: names of the observations to keep; None for all.
        task: label of all converted trajectories; None keeps those of the source.
        seed, threads: as for `Replay.create`.

    Raises:
        OfflineError: naming the source, for data that no agent, or not the one of the given spaces, can see, and for
            numbers that would be others in the columns of an agent.
        FormatError, FileNotFoundError, TwohotError: as the reader says.
    """
    kind, place = _split(source)
    factor = np.float64(real("reward_multiplier", reward_multiplier))
    if not np.isfinite(factor):
        raise ValueError(f"reward_multiplier: expected a finite number, got {factor}")
    if kind == "replay" and recorded_observation_space is None and recorded_action_space is None:
        replay = Replay.open(place, "read", capacity_steps=UNBOUNDED, seed=seed, threads=threads)
        found = _as_it_is(str(source), replay, observation_space, action_space)
        if found is not None:
            return found
    recorded = Recorded.of(recorded_observation_space, recorded_action_space)
    if kind == "minari":
        dataset = open_minari(place)
        told = Recorded.of(dataset.observation_space, dataset.action_space).telling()
        recorded = Recorded(recorded.observation or told.observation, recorded.action or told.action)
    scan = Scan(str(source), recorded, one_hot=kind == "amago")
    for trajectory in _trajectories(kind, place, fields):
        scan.add(trajectory)
    given = as_dict_space(observation_space) if observation_space is not None else None
    observation = scan.observation_space(given, context_features)
    action = action_space if action_space is not None else with_choices_of_mask(scan.action_space(), observation)
    check_action_space(action)
    _check_mask(str(source), observation, action)
    schema = replay_schema(observation, action)
    memory = Replay.create(schema, capacity_steps=UNBOUNDED, seed=seed, threads=threads)
    choices = {} if scan.order else scan.choices()
    for number, trajectory in enumerate(_trajectories(kind, place, fields)):
        columns = trajectory["observation"]
        try:
            if scan.order:
                columns = {OBSERVATION: one_vector(columns, scan.order, scan.choices())}
            reward = cast("reward", trajectory["reward"] * factor, np.dtype(np.float32))
            memory.add(
                observation_columns(columns, reward, observation, context_features, choices),
                action_column(trajectory["action"], action, recorded),
                reward,
                trajectory["terminated"],
                trajectory["truncated"],
                trajectory.get("task", 0) if task is None else task,
            )
        except ValueError as error:
            raise OfflineError(f"{source}: trajectory {number}: {error}") from error
    return Offline(memory, observation, action)


def load_mixture(
    sources: Sequence[str | Path], weights: Sequence[float], *, seed: int = 0, **options: Any
) -> Offline[Mixture]:
    """Several datasets, each drawn from in proportion to its weight; the spaces are the smallest that fit all.

    Args:
        sources, options: as for `load_offline`. Trajectories are labelled by their source's index.
        weights: as for `Mixture`. seed: of the mixture and of every replay.

    Raises:
        OfflineError: for datasets that no one agent can see.
    """
    options = {"seed": seed, **options}
    loaded = [load_offline(source, task=task, **options) for task, source in enumerate(sources)]
    if any(replay.replay.schema != loaded[0].replay.schema for replay in loaded):
        observation = _common_observation([data.observation_space for data in loaded])
        common = {
            "observation_space": options.get("observation_space") or observation,
            "action_space": options.get("action_space") or _common_action([data.action_space for data in loaded]),
        }
        options = {**options, **common}
        loaded = [load_offline(source, task=task, **options) for task, source in enumerate(sources)]
    mixture = Mixture([data.replay for data in loaded], weights, seed=seed)
    action = _common_action([data.action_space for data in loaded])
    return Offline(mixture, loaded[0].observation_space, action)


def _split(source: str | Path) -> tuple[str, str]:
    """The kind and the place of a source."""
    if isinstance(source, Path) or exists(Path(source)):
        kind, place = "replay", str(source)
    else:
        kind, _, place = str(source).partition(":")
    if kind not in KINDS or not place:
        raise OfflineError(
            f"{source}: expected the directory of a replay, or minari:ID, npz:PATH or amago:PATH "
            "(`twohot replay import` makes a directory of those)"
        )
    return kind, place


def _trajectories(kind: str, place: str, fields: Collection[str] | None) -> Iterator[Trajectory]:
    """The trajectories of a source, with their columns as an agent names them."""
    for number, trajectory in enumerate(_read(kind, place, fields)):
        try:
            yield {**trajectory, "observation": named(trajectory["observation"])}
        except ValueError as error:
            raise OfflineError(
                f"{place if kind == 'replay' else f'{kind}:{place}'}: trajectory {number}: {error}"
            ) from error


def _check_mask(source: str, observation: spaces.Dict, action: Space) -> None:
    try:
        check_action_mask(observation, action)
    except ValueError as error:
        raise OfflineError(f"{source}: {error}: action_space says how many choices there are") from error


def _read(kind: str, place: str, fields: Collection[str] | None) -> Iterator[Trajectory]:
    if kind == "replay":
        with Replay.open(place, "read", capacity_steps=UNBOUNDED) as replay:
            problems = replay.verify()  # of a copy nobody could tell any more
            if problems:
                raise OfflineError(f"{problems[0]}: `{repair_command(place)}` keeps all that is intact")
            for number in replay.ids().tolist():
                trajectory = replay.get(number)
                kept = trajectory["observation"]
                missing = sorted(set(fields or ()) - set(kept))
                if missing:
                    raise OfflineError(f"{place}: no observation {missing[0]!r}; there are {', '.join(kept)}")
                trajectory["observation"] = {name: kept[name] for name in (kept if fields is None else fields)}
                yield trajectory
        return
    yield from {"minari": read_minari, "npz": read_npz, "amago": read_amago}[kind](place, fields=fields)


def _check_actions(actions: np.ndarray, space: Space) -> None:
    """Raises ValueError for actions [steps, *shape] that are none of a space."""
    if isinstance(space, spaces.Box):
        if not (np.abs(actions) <= 1 + 1e-5).all():
            raise ValueError(f"action: expected numbers from -1 to 1, got {actions.min()} to {actions.max()}")
        return
    counts = np.array([2 if isinstance(space, spaces.MultiBinary) else getattr(space, "n", 0)])
    check_choices(actions, space.nvec if isinstance(space, spaces.MultiDiscrete) else counts, space)


def _as_it_is(
    source: str, replay: Replay, observation_space: Space | None, action_space: Space | None
) -> Offline[Replay] | None:
    """A replay whose columns are those of an agent already; None, and it is closed, where they are not."""
    schema = replay.schema
    observation = as_dict_space(observation_space) if observation_space is not None else columns_space(schema)
    action = action_space if action_space is not None else columns_action(replay)
    if observation is not None and action is not None:
        if action_space is None:
            action = with_choices_of_mask(action, observation)
        wanted = replay_schema(observation, action)
        columns = {name: (field.dtype, field.shape) for name, field in schema.observation.items()}
        same = columns == {name: (field.dtype, field.shape) for name, field in wanted.observation.items()}
        if same and (schema.action.dtype, schema.action.shape) == (wanted.action.dtype, wanted.action.shape):
            try:
                check_action_mask(observation, action)
                _check_actions(replay.actions(), action)
            except ValueError as error:
                replay.close()
                raise OfflineError(f"{source}: {error}") from error
            return Offline(replay, observation, action)
    replay.close()
    return None


def _common_observation(own: Sequence[spaces.Dict]) -> spaces.Dict:
    parts = dict(max(own, key=lambda space: sum(math.prod(shape_of(part)) for part in space.values())))
    for name, part in parts.items():
        longest = max((space[name] for space in own if name in space.spaces), key=shape_of)
        parts[name] = longest if len(shape_of(part)) == 1 else part
    return spaces.Dict(parts)


def _common_action(own: Sequence[Space]) -> Space:
    if len({type(space) for space in own}) > 1:
        raise OfflineError(f"expected datasets with one kind of action, got {', '.join(map(str, own))}")
    if isinstance(own[0], spaces.Discrete):
        return max((space for space in own if isinstance(space, spaces.Discrete)), key=lambda space: space.n)
    if any(space.shape != own[0].shape for space in own):
        raise OfflineError(f"expected datasets with actions of one size, got {', '.join(map(str, own))}")
    if isinstance(own[0], spaces.MultiDiscrete):
        return spaces.MultiDiscrete(np.max([space.nvec for space in own if isinstance(space, spaces.MultiDiscrete)], 0))
    return own[0]
