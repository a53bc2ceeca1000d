"""An agent of several domains beside agents of each alone: a step of the learner, and a step of acting."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces

from bench.harness.group import Group, Table
from bench.harness.measure import Record, Row, interleaved, percentiles
from bench.tables import conditions, number, table
from twohot.agent import AgentNetworks, Member, MixedNetworks
from twohot.config import AgentConfig, ObjectiveConfig, OptimizerConfig
from twohot.data.spaces import replay_schema
from twohot.learning.learner import Learner
from twohot.learning.mixed_batch import MixedBatch
from twohot.nets.frozen import freeze
from twohot.nets.frozen_members import freeze_members
from twohot.nets.interfaces import Given
from twohot.presets.preset import small_agent
from twohot.replay import Batch, Replay
from twohot.spaces import as_dict_space

WINDOWS, STEPS = 24, 64
ROWS, ACTING_STEPS = 16, 48
MIXED, PARTS = "one agent of all", "agents of each, by share of rows"


def _vector(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


IMAGE = {"observation": spaces.Box(0, 255, (64, 64, 3), np.uint8), "context": _vector(4)}
WORDS = {"grid": spaces.Box(0, 10, (7, 7, 3), np.uint8), "tokens": spaces.Box(0, 32, (9,), np.uint8)}
DOMAINS: dict[str, dict[str, Member]] = {
    "four kinds of observation": {
        "gym": Member(("gym:a",), _vector(7), spaces.Box(-1, 1, (1,), np.float32)),
        "popgym": Member(("popgym:a",), _vector(8), spaces.Discrete(4)),
        "procgen": Member(("procgen:a",), spaces.Dict(IMAGE), spaces.Discrete(15)),
        "babyai": Member(("babyai:a",), spaces.Dict({**WORDS, "context": _vector(4)}), spaces.Discrete(7)),
    },
    "four of vectors": {
        "gym": Member(("gym:a",), _vector(7), spaces.Box(-1, 1, (1,), np.float32)),
        "popgym": Member(("popgym:a",), _vector(8), spaces.Discrete(4)),
        "metaworld": Member(("metaworld:a",), _vector(43), spaces.Box(-1, 1, (4,), np.float32)),
        "choices": Member(("choices:a",), _vector(12), spaces.MultiDiscrete([3, 3])),
    },
}
AGENTS = {
    "default sizes": AgentConfig(context=STEPS, images="nature"),
    "small": small_agent(context=STEPS, images="nature"),
}


def _batch(member: Member, windows: int) -> Batch:
    observation, action, random = as_dict_space(member.observation_space), member.action_space, np.random.default_rng(0)
    batch = Replay.create(replay_schema(observation, action), capacity_steps=1).batch(windows, STEPS, torch=True)
    for name, shown in batch.observation.items():
        high = getattr(observation[name], "high", np.ones(1)).max()
        drawn = random.integers(0, int(high) + 1, shown.shape) if high < np.inf else random.standard_normal(shown.shape)
        shown.copy_(torch.from_numpy(drawn))
    action.seed(0)
    taken = np.stack([np.asarray(action.sample()) for _ in range(windows * STEPS)])
    batch.action.copy_(torch.from_numpy(taken).view(batch.action.shape))
    batch.previous_action[:, 1:] = batch.action
    batch.reward.copy_(torch.from_numpy(random.standard_normal(batch.reward.shape)))
    batch.previous_reward[:, 1:] = batch.reward
    batch.time.copy_(torch.arange(STEPS + 1))
    batch.mask.fill_(True)
    return batch


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def mixed_step() -> list[Row]:
    """A learner's step of a batch of four domains, against the sum of steps of each alone by share of rows."""
    torch.set_num_threads(1)
    objective = ObjectiveConfig()
    rows = []
    for (size, config), (kinds, members) in ((agent, kind) for kind in DOMAINS.items() for agent in AGENTS.items()):
        torch.manual_seed(0)
        alone = {name: _learner(config, member) for name, member in members.items()}
        mixed = Learner(MixedNetworks(config, members).eval(), objective, OptimizerConfig())
        batch = MixedBatch({name: _batch(member, WINDOWS // len(members)) for name, member in members.items()})
        providers = {name: lambda each=each: _timed(each) for name, each in alone.items()}
        providers[MIXED] = lambda mixed=mixed, batch=batch: _timed(lambda: mixed.step(batch))
        figures = interleaved(providers, 3 if size != "small" else 15)
        parts = np.mean([figures[name] for name in members], axis=0)
        shape = f"B {WINDOWS}, L {STEPS}, {WINDOWS // len(members)} windows each"
        rows += _compared(f"step, {kinds}, {size}", shape, figures[MIXED], parts, 1.2)
    return rows


def _learner(config: AgentConfig, member: Member) -> Callable[[], object]:
    agent = AgentNetworks(config, member.observation_space, member.action_space).eval()
    learner, batch = Learner(agent, ObjectiveConfig(), OptimizerConfig()), _batch(member, WINDOWS)
    return lambda: learner.step(batch)


def mixed_acting() -> list[Row]:
    """A step of acting of 16 rows in four domains, against policies of each that have 16 rows, by share of rows."""
    torch.set_num_threads(1)
    rows = []
    for (size, config), (kinds, members) in ((agent, kind) for kind in DOMAINS.items() for agent in AGENTS.items()):
        torch.manual_seed(0)
        networks = MixedNetworks(config, members).eval()
        providers = {name: _acting_alone(networks[name], member) for name, member in members.items()}
        providers[MIXED] = _acting_together(networks, members)
        figures = interleaved(providers, 15)
        parts = np.mean([figures[name] for name in members], axis=0)
        rows += _compared(f"acting, {kinds}, {size}", f"{ROWS} rows", figures[MIXED], parts, 1 / 0.7)
    return rows


def _given(member: Member, rows: int) -> list[Given]:
    """What a policy of a domain acts on, step by step."""
    batch = _batch(member, rows)
    return [
        Given(
            {key: value[:, step].contiguous().numpy() for key, value in batch.observation.items()},
            batch.previous_action[:, step].contiguous().numpy(),
            batch.previous_reward[:, step].contiguous().numpy(),
        )
        for step in range(ACTING_STEPS)
    ]


def _acting_alone(networks: AgentNetworks, member: Member) -> Callable[[], float]:
    """Milliseconds of a step of the policy of one domain, which has all rows."""
    policy, given, generator = freeze(networks), _given(member, ROWS), torch.Generator().manual_seed(0)

    def run() -> None:
        state = policy.initial_state(ROWS)
        for asked in given:
            policy.act(state, *asked.tensors(), generator=generator).numpy()

    return lambda: _timed(run) / ACTING_STEPS


def _acting_together(networks: MixedNetworks, members: dict[str, Member]) -> Callable[[], float]:
    """Milliseconds of a step of the policies of all domains, among which rows are shared out."""
    policies, rows = freeze_members(networks.each()), ROWS // len(members)
    shown = {name: _given(member, rows) for name, member in members.items()}
    given = [{name: steps[step] for name, steps in shown.items()} for step in range(ACTING_STEPS)]
    generators = {name: torch.Generator().manual_seed(0) for name in members}

    def run() -> None:
        states = policies.initial_states(dict.fromkeys(members, rows))
        for asked in given:
            policies.act(states, asked, generators)

    return lambda: _timed(run) / ACTING_STEPS


def _compared(case: str, shape: str, mixed: np.ndarray, parts: np.ndarray, at_most: float) -> list[Row]:
    ratio = float(np.median(mixed / parts))
    met = "yes" if ratio <= at_most else "no"
    goal = f"at most {at_most:.3g} x {PARTS}"
    return [
        Row(case, MIXED, "", *percentiles(mixed), "ms", shape, share_of_limit=ratio, limit=PARTS, target=goal, met=met),
        Row(case, PARTS, "", *percentiles(parts), "ms", shape),
    ]


def write_table(records: list[Record]) -> list[str]:
    """Milliseconds of both, and their ratio."""
    found = [record for record in records if record["provider"] == MIXED]
    parts = {record["case"]: record for record in records if record["provider"] == PARTS}
    rows = [
        [
            record["case"],
            record["shape"],
            number(float(record["p50"])),
            number(float(parts[record["case"]]["p50"])),
            f"{float(record['share_of_limit']):.2f} x",
            record["target"].partition(" x ")[0],
        ]
        for record in found
    ]
    headings = ["what", "size", f"{MIXED}, ms", f"{PARTS}, ms", "ratio", "asked"]
    return [*table(headings, rows), "", conditions(records[0])]


GROUP = Group(
    measures="a step of the learner and of acting, of an agent of four domains beside agents of each: 2 minutes",
    gates=("agent/test_mixed.py",),
    cases=(mixed_step, mixed_acting),
    tables=(Table("domains", write_table, ("domains",), "docs/many_domains.md"),),
)
