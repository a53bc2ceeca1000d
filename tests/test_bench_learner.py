"""The bench of the learner's step: processes in turn, those that are missing or die, and what the goals make of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
MODULES = tuple(path.stem for path in (ROOT / "bench").glob("*.py"))
STEPS = """
import json, sys
work = json.loads(sys.argv[1])
answers = {"step": {"seconds": SECONDS}, "product": {"flops": 1e9}, "peak": {"mb": 30.0}}
print(json.dumps({"warm": 1.0, "loss": 0.5}), flush=True)
for line in sys.stdin:
    print(json.dumps(answers[line.strip()]), flush=True)
"""


@pytest.fixture
def learner(monkeypatch):
    """bench/learner.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    for name in ("PYTHON", "CHECKOUT"):
        monkeypatch.delenv(f"TWOHOT_OFFICIAL_{name}", raising=False)
    import learner

    yield learner
    for name in MODULES:
        sys.modules.pop(name, None)


def fake(learner, path: Path, seconds: float | None):
    """A process whose steps take so long; None: one that dies."""
    source = STEPS.replace("SECONDS", str(seconds)) if seconds else "raise MemoryError('no room')"
    path.write_text(source)
    return learner.Provider(sys.executable, path, {})


def test_steps_in_turn_and_what_the_goals_make_of_them(learner, monkeypatch, tmp_path) -> None:
    ours, eager = fake(learner, tmp_path / "a.py", 2.0), fake(learner, tmp_path / "b.py", 6.0)
    dead = fake(learner, tmp_path / "c.py", None)
    known = dict(zip((learner.OURS, learner.HALF, *learner.OFFICIAL), (ours, dead, eager, None), strict=True))
    monkeypatch.setattr(learner, "providers", lambda: known)
    beside = learner.Beside(learner.Work(2, 8), 2.5, learner.OFFICIAL, half=True)
    figures, memory = learner.measure(beside.work, beside.names, rounds=3)
    assert figures.values[learner.OURS] == [2.0] * 3
    assert figures.values["official, eager"] == [6.0] * 3
    assert figures.values[learner.PRODUCTS] == [beside.work.flops / 1e9] * 3
    assert figures.obstacles == {learner.HALF: "MemoryError: no room", "official, compiled": "not installed"}
    assert memory.values == {learner.OURS: [30.0], "official, eager": [30.0]}
    rows = {row.provider: row for row in learner.rows(beside.contest(), "huge pages", 2, figures, memory)}
    assert rows[learner.OURS].extra_mb == 30
    assert rows[learner.OURS].rate == pytest.approx(beside.work.flops / 1e9 / 2, abs=0.1)
    assert rows["official, eager"].times_ours == 3
    assert rows["official, compiled"].mode == "not installed"
    assert rows[f"{learner.HALF}: MemoryError: no room"].mode == "failed"
    goals = learner.goal_rows(beside.contest(), "huge pages", 2, figures, memory)
    assert [goal.met for goal in goals] == ["yes", "no", "no", "not measured", "not measured"]
    assert goals[0].p50 == pytest.approx(1 / 3)


def test_without_the_official_code_ours_is_measured_all_the_same(learner) -> None:
    known = learner.providers()
    assert known["official, eager"] is None
    assert known[learner.OURS].python == sys.executable


def test_the_official_code_is_where_the_variables_say(learner, monkeypatch) -> None:
    monkeypatch.setenv("TWOHOT_OFFICIAL_PYTHON", "/official/python")
    monkeypatch.setenv("TWOHOT_OFFICIAL_CHECKOUT", "/official/amago")
    eager, compiled = (learner.providers()[name] for name in learner.OFFICIAL)
    assert eager.python == compiled.python == "/official/python"
    assert eager.environment["PYTHONPATH"] == "/official/amago"
    assert eager.environment["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in compiled.environment
    assert eager.script.exists()


def test_operations_are_those_of_the_products(learner, monkeypatch) -> None:
    """Of the parts that are plain products, against torch's own count."""
    from torch.utils.flop_counter import FlopCounterMode

    import learner_step
    from work import ENCODING, TARGETS

    work = learner.Work(2, 16)
    one, batch = learner_step.learner_and_batch(work)
    with FlopCounterMode(display=False) as counter:
        h = one.agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    attention = 2 * 2 * 17 * 3 * 16 * 256  # what it needs, done by an operation that the counter does not know
    assert counter.get_total_flops() + attention == pytest.approx(work.flops_by_part[ENCODING], rel=1e-3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        state = one.agent.target_critics.state_features(h[:, 1:].flatten(0, 1))
        one.agent.target_actor(h[:, 1:].flatten(0, 1))
        features = one.agent.target_critics._hidden(state + torch.zeros(4, 32, 7, 256))
        one.agent.target_critics._head(features)
    assert counter.get_total_flops() == pytest.approx(work.flops_by_part[TARGETS], rel=1e-3)


@pytest.mark.parametrize("kind", ["discrete", "continuous", "images"])
def test_both_sides_get_the_same_batch(learner, kind) -> None:
    from gymnasium import spaces

    import learner_step

    work = learner.Work(2, 4, kind)
    arrays, again = work.arrays(), work.arrays()
    assert all((arrays[name] == again[name]).all() for name in arrays)
    seen = spaces.Box(0, 255, (64, 64, 3), "uint8") if kind == "images" else spaces.Box(-9, 9, (32,))
    action = spaces.Box(-1, 1, (4,)) if kind == "continuous" else spaces.Discrete(6)
    batch = learner_step.batch_of(work, seen, action)
    for name in ("action", "reward", "terminated"):
        assert (getattr(batch, name).numpy() == arrays[name]).all()
    assert (batch.observation["observation"].numpy() == arrays["observation"]).all()
    assert (batch.previous_reward[:, 1:] == batch.reward).all()
    assert batch.previous_action[:, 0].eq(0).all()
    assert batch.mask.all()
