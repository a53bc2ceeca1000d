"""What an environment shows reaches the agent by one rule, for every layout, convention, action and way of playing."""

from functools import cache

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import layout_suite
from twohot import envs
from twohot.data.offline_columns import Recorded
from twohot.data.offline_scan import Scan
from twohot.data.rollout import UniformPolicy
from twohot.data.spaces import replay_schema
from twohot.envs import registry
from twohot.spaces import action_dtype, as_dict, as_dict_space, check_action_mask

WAYS = ("gym", "own", "batch", *layout_suite.MODES)


@pytest.fixture(autouse=True)
def own_suite(monkeypatch):
    monkeypatch.setattr(registry, "_SUITES", registry.registered_suites())
    envs.register(layout_suite.OWN)
    envs.register(layout_suite.BATCHES)


def shown_parts(space, value, name=""):
    """The documented rule, written out once more: (name, what is seen) of each part, in the order of the space."""
    last = name.rpartition("/")[2]
    if last == "action_mask":
        yield "action_mask", np.concatenate([np.ravel(part) for part in (value if type(value) is tuple else [value])])
    elif isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
            yield from shown_parts(part, value[key], f"{name}/{key}" if name else str(key))
    elif last.startswith("tokens"):
        yield name, np.asarray(value)
    elif last.startswith("grid") or (space.dtype == np.uint8 and len(space.shape) > 1):
        yield name, value if value.ndim == 3 else value[..., None]
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        chosen = np.ravel(value) - np.ravel(space.start)
        yield name, np.concatenate([np.eye(n)[k] for n, k in zip(counts, chosen, strict=True)]).astype(np.float32)
    else:
        yield name, np.ravel(value).astype(np.float32)


@cache
def expected(name, time, one_vector):
    parts = dict(shown_parts(layout_suite.space_of(name), layout_suite.observation_at(name, int(time))))
    if one_vector and all(part.dtype == np.float32 for part in parts.values()):
        return {"observation": np.concatenate(list(parts.values()))}
    return parts


def legal_actions(vector, observation, generator):
    """What a uniform policy plays, as a rollout gives it to the environments."""
    rows, space = vector.num_envs, vector.single_action_space
    seen = {name: torch.from_numpy(part) for name, part in as_dict(observation).items()}
    actions = UniformPolicy(space).act(None, seen, None, torch.zeros(rows), generator=generator)
    return actions.numpy().astype(action_dtype(space))


def play(vector, task_of, steps, check):
    """Play and call check(row, task, time since the reset, observation of the row) for each row that has begun."""
    generator = torch.Generator().manual_seed(0)
    observation, info = vector.reset(seed=list(range(vector.num_envs)))
    time, task, ended = np.zeros(vector.num_envs, int), np.array(info["task"]), 0
    for _ in range(steps):
        for row in np.flatnonzero(time >= 0):
            check(row, task_of(task[row]), time[row], {k: v[row] for k, v in as_dict(observation).items()})
        observation, reward, terminated, truncated, info = vector.step(legal_actions(vector, observation, generator))
        began = info.get("interrupted", np.zeros(len(time), bool))
        time = np.where(began, 0, np.where(time < 0, -1, time + 1))
        done = terminated | truncated
        assert not reward[began].any()
        for row in np.flatnonzero(done):
            ended += 1
            check(row, task_of(task[row]), time[row], {k: v[row] for k, v in as_dict(observation).items()})
            assert info["attempt_lengths"][row].sum() == info["attempt_returns"][row].sum()
            assert info["attempt_success"][row].all()
            assert info["success_told"][row]
        if done.any():
            waits = getattr(getattr(vector, "batch", None), "mode", None) is AutoresetMode.NEXT_STEP
            observation, info = envs.reset_where(vector, done)
            task = np.where(info["_task"], info["task"], task)
            time[done] = -1 if waits else 0
    return ended


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", layout_suite.names())
def test_every_layout_is_seen_as_documented(name, way):
    one_vector, attempts = way not in ("own", "batch"), 1 if way in ("next_step", "same_step") else 2
    if not one_vector:
        suite, task = {"own": "layouts", "batch": "batches"}[way], name
    else:
        suite, task = ("gym", f"Layout-{name}-v0") if way == "gym" else ("gym_vector", f"Layout-{name}-{way}-v0")
    vector = envs.make_vector(suite, (task,), environments=2, attempts=attempts, context_features=False)
    assert isinstance(vector, envs.BatchedTrials) or way in ("gym", "own")
    space = as_dict_space(vector.single_observation_space)
    check_action_mask(space, vector.single_action_space)
    replay_schema(space, vector.single_action_space)

    def check(row, task, time, observation):
        length = 3 + row * (suite == "gym_vector")
        wanted = expected(name, time % length if time < length * attempts else length, one_vector)
        assert list(space) == sorted(wanted)
        assert set(observation) == set(wanted)
        for part, values in wanted.items():
            np.testing.assert_array_equal(observation[part], values)
            assert observation[part].dtype == space[part].dtype
            if part.rpartition("/")[2].startswith(("grid", "tokens", "camera", "action_mask")):
                assert space[part].dtype in (np.uint8, np.int8, np.int16, np.int32)
            else:
                assert space[part].dtype == np.float32

    assert play(vector, lambda task: name, 10, check) >= 2
    vector.close()


@pytest.mark.parametrize("action", layout_suite.ACTIONS)
def test_tasks_of_every_layout_are_one_agent(action):
    own = [name for name in layout_suite.names() if name.endswith(f"-{action}")]
    vector = envs.make_vector("layouts", own, environments=len(own), assignment="fixed", context_features=False)
    space = vector.single_observation_space

    def check(row, task, time, observation):
        wanted = expected(own[row], time, one_vector=False)
        for part in set(space) - {"action_mask"}:
            values = np.zeros(space[part].shape, space[part].dtype)
            if part in wanted:
                values[tuple(map(slice, wanted[part].shape))] = wanted[part]
            np.testing.assert_array_equal(observation[part], values)
        if "action_mask" in space.spaces:
            every = np.ones(sum(layout_suite.CHOICES[action]))
            np.testing.assert_array_equal(observation["action_mask"], wanted.get("action_mask", every))

    assert play(vector, lambda task: own[task], 7, check) == 2 * len(own)


@pytest.mark.usefixtures("preloaded_workers")
def test_processes_show_the_same():
    names = [name for name in layout_suite.names() if name.endswith("-discrete")]
    play_here, play_there = (
        envs.make_vector("layouts", names, environments=len(names), assignment="fixed", attempts=2, workers=workers)
        for workers in ("in-process", "processes")
    )
    records = ([], [])
    for vector, record in zip((play_here, play_there), records, strict=True):
        play(vector, lambda task: names[task], 13, lambda *seen, record=record: record.append(seen[2:]))
        vector.close()
    np.testing.assert_equal(*records)


def test_recorded_parts_are_named_by_the_same_rule():
    scan = Scan("recorded", Recorded())
    rows = {
        "in/grid": np.zeros((3, 2, 2, 1), np.int64),
        "in/tokens": np.ones((3, 4), np.int64),
        "grid/x": np.ones((3, 2)),
    }
    ends = np.zeros(2, bool)
    scan.add(
        {"observation": rows, "action": np.ones(2, int), "reward": np.zeros(2), "terminated": ends, "truncated": ends}
    )
    found = scan.observation_space(None, context_features=False)
    assert {name: (part.dtype, part.shape) for name, part in found.items()} == {
        "in/grid": (np.int32, (2, 2, 1)),
        "in/tokens": (np.int32, (4,)),
        "grid/x": (np.float32, (2,)),
    }
