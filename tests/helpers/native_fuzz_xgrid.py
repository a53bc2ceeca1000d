"""The calls of `native_fuzz` that play in the grid world."""

import numpy as np

from native_fuzz import Draw
from twohot.envs.suites.xgrid import XGridBatch
from twohot.envs.xgrid import Benchmark, RuleSet, XGridState, XGridVector, plan


def _benchmark(draw: Draw) -> dict:
    return {
        "min_depth": draw.size(0, 1),
        "max_depth": draw.size(1, 4, 8),
        "branching": draw.size(0, 50, 100),
        "distractors": draw.size(0, 3, 8),
        "dead_ends": draw.size(0, 2, 6),
        "goals": draw.choice((), ("agent near",), ("tile near", "agent hold")),
        "rules": draw.choice((), ("agent hold",), ("tile near left",)),
        "object_types": draw.choice(46, 50),
        "shared_goals": draw.choice(False, True),
        "tasks": draw.size(1, 1000),
        "seed": draw.size(0, 2**64 - 1),
    }


def worlds(draw: Draw):
    """Some steps, and states put back."""

    def play(
        actions,
        seed,
        benchmark,
        height,
        width,
        rooms,
        locked,
        view,
        show_carried,
        max_steps,
        attempts,
        same_map,
        threads,
    ):
        size = {"height": height, "width": width, "rooms": rooms, "locked": locked}
        vector = XGridVector(
            130,
            Benchmark(**benchmark),
            **size,
            view=view,
            show_carried=show_carried,
            max_steps=max_steps,
            attempts=attempts,
            same_map=same_map,
            threads=threads,
        )
        vector.reset(seed=seed)
        for _ in range(20):
            vector.step(actions)
        vector.set_state(1, vector.state(), 0)
        return vector.observe(), vector.tasks

    arguments = {
        "actions": draw.integers(6, 130).numpy(),
        "seed": draw.size(0, 2**40),
        "benchmark": _benchmark(draw),
        "height": draw.size(19, 25),
        "width": draw.size(19, 25),
        "rooms": draw.size(2, 4, 6, 9),
        "locked": draw.choice(True, False),
        "view": draw.size(0, 3, 5, 31),
        "show_carried": draw.choice(True, False),
        "max_steps": draw.size(0, 7),
        "attempts": draw.size(1, 3),
        "same_map": draw.choice(True, False),
        "threads": draw.size(1, 2),
    }
    return play, arguments, False


def rule_sets(draw: Draw):
    def read(benchmark, first, count, split):
        made = Benchmark(**benchmark)
        arrays = made.arrays(first, count, split)
        found = RuleSet(arrays[0][0], arrays[1][0], arrays[2][0])
        assert plan(found) is not None
        assert not arrays[1][:, made.most_rules :].any()
        assert not arrays[2][:, made.most_objects :].any()
        return arrays[3], found.identity

    return read, {"benchmark": _benchmark(draw), "first": 0, "count": 1, "split": draw.choice("train", "test")}, False


def given_states(draw: Draw):
    """Rule sets and states of random bytes, most of which are none."""
    vector = XGridVector(2, max_steps=50)
    state, own = vector.state(), vector.rule_set(0)

    def put(goal, rules, objects, grid, agent, pocket, index):
        vector.set_rule_set(index, RuleSet(goal, rules, objects))
        vector.set_state(index, XGridState(grid, agent, pocket))
        vector.step(np.array([3, 4]))
        return vector.observe()

    arguments = {"goal": own.goal, "rules": own.rules, "objects": own.objects}
    arguments |= {"grid": state.grid, "agent": state.agent, "pocket": state.pocket, "index": draw.size(0, 1)}
    return put, arguments, False


def batches(draw: Draw):
    """What the suite calls."""
    batch = XGridBatch(3, ("small-r1-9x9", "medium-r4-13x13-steps9"), "test")

    def play(task, actions):
        batch.choose(0, task)
        batch.reset(0, np.random.default_rng(0))
        batch.step(actions)
        return batch.observe()["grid"]

    def advance(mask):
        vector = XGridVector(3, autoreset_mode="Disabled")
        return vector.reset(options={"reset_mask": mask})[0]

    if draw.turn % 2:
        return advance, {"mask": np.array([True, False, True])}, False
    return play, {"task": draw.size(0, 1), "actions": draw.integers(6, 3).numpy()}, False


XGRID_CASES = (worlds, rule_sets, given_states, batches)
