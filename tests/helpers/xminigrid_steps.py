"""The grid world beside XLand-MiniGrid: the same rule sets and states, the same actions, the same steps.

A program, `xminigrid_steps.py HEIGHT WIDTH VIEW`: JAX has threads, and processes that have loaded it cannot be forked.
"""

import sys

import jax
import numpy as np
import xminigrid
from xminigrid.types import AgentState, EnvCarry, State, TimeStep

from twohot.envs.xgrid import GOALS, RULES, RuleSet, XGridState, XGridVector

ENVS, ROUNDS, STEPS = 512, 4, 40
FLOOR, WALL, NOTHING = (1, 7), (2, 6), (0, 0)
SHAPES, DOORS = (3, 4, 5, 6, 7, 11, 12), (8, 9, 10)


def rule_set(random: np.random.Generator, index: int, height: int, width: int) -> RuleSet:
    """Rules of one kind in most environments, of any in the others, of few tiles: they are set off."""
    tiles = [(int(random.choice(SHAPES)), int(random.integers(1, 4))) for _ in range(3)]

    def tile() -> tuple[int, int]:
        return tiles[random.integers(len(tiles))]

    rules = np.zeros((6, 7), np.uint8)
    for row in rules[: random.integers(1, 7)]:
        row[0] = 1 + index // 4 % (len(RULES) - 1) if index % 4 else random.integers(1, len(RULES))
        row[1:3] = tile()
        product = FLOOR if random.random() < 0.2 else tile()
        if len(RULES[row[0]].inputs) == 2:
            row[3:] = [*tile(), *product]
        else:
            row[3:5] = product
    goal = np.zeros(5, np.uint8)
    goal[0] = index % len(GOALS)
    position = int(random.integers(1, height - 1)), int(random.integers(1, width - 1))
    inputs = {"a": tile(), "b": tile(), "position": position}
    values = [value for name in GOALS[goal[0]].inputs for value in inputs[name]]
    goal[1 : 1 + len(values)] = values
    return RuleSet(goal, rules, np.array(tiles, np.uint8))


def state(random: np.random.Generator, sets: list[RuleSet], height: int, width: int) -> XGridState:
    """Crowded rooms with walls and doors of all kinds."""
    count, index = len(sets), np.arange(len(sets))
    objects = np.stack([one.objects for one in sets])
    kind = random.random((count, height, width, 1))
    drawn = random.integers(objects.shape[1], size=(count, height, width))
    doors = random.choice(DOORS, (count, height, width)), random.integers(1, 4, (count, height, width))
    tiles = [objects[index[:, None, None], drawn], np.stack(doors, -1), np.array(WALL)]
    grid = np.select([kind < 0.35, kind < 0.42, kind < 0.45], tiles, np.array(FLOOR)).astype(np.uint8)
    grid[:, [0, -1]] = grid[:, :, [0, -1]] = WALL
    agent, pocket = np.zeros((count, 4), np.int32), np.zeros((count, 2), np.uint8)
    agent[:, :3] = random.integers((1, 1, 0), (height - 1, width - 1, 4), (count, 3))
    grid[index, agent[:, 0], agent[:, 1]] = FLOOR
    kind = random.random((count, 1))
    key = np.stack([np.full(count, 7), random.integers(1, 4, count)], -1)
    carried = objects[index, random.integers(objects.shape[1], size=count)]
    pocket[:] = np.select([kind < 0.4, kind < 0.5], [np.array(NOTHING), key], carried)
    return XGridState(grid, agent, pocket)


def compare(height: int, width: int, view: int) -> None:
    """Random episodes in both; raises AssertionError where they differ, or a kind of rule or goal was not set off."""
    random = np.random.default_rng(view)
    other, params = xminigrid.make("XLand-MiniGrid-R1-9x9")
    params = params.replace(height=height, width=width, view_size=view, max_steps=STEPS)
    step_others = jax.jit(jax.vmap(other.step, in_axes=(None, 0, 0)))
    ours, bare = (
        XGridVector(ENVS, height=height, width=width, view=view, max_steps=STEPS, autoreset_mode="Disabled")
        for _ in range(2)
    )
    set_off, reached = np.zeros(len(RULES), int), np.zeros(len(GOALS), int)
    for round_index in range(ROUNDS):
        sets = [rule_set(random, round_index * 7 + index, height, width) for index in range(ENVS)]
        start = state(random, sets, height, width)
        for index, one in enumerate(sets):
            ours.set_rule_set(index, one)
            ours.set_state(index, start)
            bare.set_rule_set(index, RuleSet(one.goal, one.rules[:0], one.objects))
        theirs = TimeStep(
            state=State(
                key=jax.numpy.zeros((ENVS, 2), "uint32"),
                step_num=jax.numpy.zeros(ENVS, int),
                grid=jax.numpy.asarray(start.grid),
                agent=AgentState(
                    position=jax.numpy.asarray(start.agent[:, :2]),
                    direction=jax.numpy.asarray(start.agent[:, 2]),
                    pocket=jax.numpy.asarray(start.pocket),
                ),
                goal_encoding=jax.numpy.asarray(np.stack([one.goal for one in sets])),
                rule_encoding=jax.numpy.asarray(np.stack([one.rules for one in sets])),
                carry=EnvCarry(),
            ),
            step_type=jax.numpy.zeros(ENVS, "uint8"),
            reward=jax.numpy.zeros(ENVS),
            discount=jax.numpy.ones(ENVS),
            observation=jax.numpy.asarray(ours.observe()),
        )
        live = np.ones(ENVS, bool)
        for step in range(1, STEPS + 1):
            actions = random.choice(6, ENVS, p=[0.3, 0.1, 0.1, 0.2, 0.25, 0.05])
            before = ours.state()
            observation, reward, terminated, truncated, _ = ours.step(actions)
            theirs = step_others(params, theirs, jax.numpy.asarray(actions))
            now, other_state = ours.state(), theirs.state
            pairs = {
                "grid": (now.grid, other_state.grid),
                "position": (now.agent[:, :2], other_state.agent.position),
                "direction": (now.agent[:, 2], other_state.agent.direction),
                "steps": (now.agent[:, 3], other_state.step_num),
                "pocket": (now.pocket, other_state.agent.pocket),
                "observation": (observation, theirs.observation),
                "terminated": (terminated, theirs.discount == 0),
                "over": (terminated | truncated, theirs.step_type == 2),
            }
            for name, (own, their) in pairs.items():
                np.testing.assert_array_equal(own[live], np.asarray(their)[live], err_msg=f"{name}, step {step}")
            # The reward is 1 - 0.9 x a whole number of steps / STEPS: which, both say, and ours to the last bit.
            won = live & terminated
            of_steps = np.rint((1 - np.asarray(theirs.reward, np.float64)[won]) / 0.9 * STEPS)
            np.testing.assert_array_equal(of_steps, np.full(won.sum(), step))
            np.testing.assert_array_equal(reward[won], np.float32(10 * STEPS - 9 * step) / np.float32(10 * STEPS))
            assert (reward[live & ~terminated] == 0).all()
            assert (np.asarray(theirs.reward)[live & ~terminated] == 0).all()
            if step <= 10:
                for index in range(ENVS):
                    bare.set_state(index, before)
                bare.step(actions)
                other_grid, other_pocket = bare.state().grid, bare.state().pocket
                changed = (other_grid != now.grid).any((1, 2, 3)) | (other_pocket != now.pocket).any(1)
                for index in np.flatnonzero(changed & live):
                    kinds = set(sets[index].rules[:, 0].tolist()) - {0}
                    set_off[list(kinds) if len(kinds) == 1 else []] += 1
            np.add.at(reached, [sets[index].goal[0] for index in np.flatnonzero(won)], 1)
            live &= ~(terminated | truncated)
        assert not live.any()
    assert set_off[1:].min() >= 4, set_off
    assert reached[0] == 0
    assert reached[1:].min() >= 4, reached


if __name__ == "__main__":
    compare(*map(int, sys.argv[1:]))
