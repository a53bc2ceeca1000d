"""The bench of the learner's step: processes in turn, those that are missing or die, and what the goals make of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from torch.utils.flop_counter import FlopCounterMode

from bench.cases import learner_step
from bench.groups import learner
from bench.harness.compare import goal_rows, rows
from bench.harness.worker import (
    ENCODING,
    TARGETS,
    CollectingWorkload,
    LearnerWorkload,
    Worker,
    WorkerCommand,
    as_argument,
    official_command,
)

pytestmark = pytest.mark.bench
STEPS = """
import json, sys
workload = json.loads(sys.argv[1])
answers = {"step": {"seconds": SECONDS}, "product": {"flops": 1e9}, "peak": {"mb": 30.0}}
print(json.dumps({"warm": 1.0, "loss": 0.5}), flush=True)
for line in sys.stdin:
    print(json.dumps(answers[line.strip()]), flush=True)
"""


@pytest.fixture(autouse=True)
def _without_the_official_code(monkeypatch) -> None:
    for name in ("PYTHON", "CHECKOUT"):
        monkeypatch.delenv(f"TWOHOT_OFFICIAL_{name}", raising=False)


def fake(path: Path, seconds: float | None):
    """A process whose steps take so long; None: one that dies."""
    source = STEPS.replace("SECONDS", str(seconds)) if seconds else "raise MemoryError('no room')"
    path.write_text(source)
    return WorkerCommand((sys.executable, str(path)))


def test_steps_in_turn_and_what_the_goals_make_of_them(monkeypatch, tmp_path) -> None:
    ours, eager = fake(tmp_path / "a.py", 2.0), fake(tmp_path / "b.py", 6.0)
    dead = fake(tmp_path / "c.py", None)
    known = dict.fromkeys(learner.OFFICIAL_HALF)
    known |= dict(zip((learner.OURS, learner.HALF, *learner.OFFICIAL), (ours, dead, eager, None), strict=True))
    monkeypatch.setattr(learner, "commands", lambda: known)
    against = learner.OfficialComparison(LearnerWorkload(2, 8), 2.5, learner.OFFICIAL, half=True)
    figures, memory = learner.measure(against.workload, against.names, rounds=3)
    assert figures.values[learner.OURS] == [2.0] * 3
    assert figures.values["official, eager"] == [6.0] * 3
    assert figures.values[learner.PRODUCTS] == [against.workload.flops / 1e9] * 3
    absent = dict.fromkeys(("official, compiled", *learner.OFFICIAL_HALF), "not installed")
    assert figures.missing == {learner.HALF: "MemoryError: no room", **absent}
    assert memory.values == {learner.OURS: [30.0], "official, eager": [30.0]}
    found = {row.provider: row for row in rows(against.comparison(), "huge pages", 2, figures, memory)}
    assert found[learner.OURS].extra_mb == 30
    assert found[learner.OURS].rate == pytest.approx(against.workload.flops / 1e9 / 2, abs=0.1)
    assert found["official, eager"].speedup == 3
    assert found["official, compiled"].mode == "not installed"
    assert found[f"{learner.HALF}: MemoryError: no room"].mode == "failed"
    goals = goal_rows(against.comparison(), "huge pages", 2, figures, memory)
    assert [goal.met for goal in goals] == ["yes", "no", "no", *["not measured"] * 3]
    assert goals[0].p50 == pytest.approx(1 / 3)


def test_without_the_official_code_ours_is_measured_all_the_same() -> None:
    known = learner.commands()
    assert known["official, eager"] is None
    assert known[learner.OURS].command[0] == sys.executable


def test_the_official_code_is_where_the_variables_say(monkeypatch) -> None:
    monkeypatch.setenv("TWOHOT_OFFICIAL_PYTHON", "/official/python")
    monkeypatch.setenv("TWOHOT_OFFICIAL_CHECKOUT", "/official/amago")
    eager, compiled, _, half = (learner.commands()[name] for name in (*learner.OFFICIAL, *learner.OFFICIAL_HALF))
    assert eager.command[0] == compiled.command[0] == "/official/python"
    assert eager.environment["PYTHONPATH"] == "/official/amago"
    assert eager.environment["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in compiled.environment
    assert half == replace(compiled, precision="bfloat16")


AMAGO = {
    "__init__.py": """
import sys

class Experiment:
    def __init__(self, **settings):
        self.settings = settings

    def start(self):
        assert not [name for name in sys.modules if name.startswith("twohot")]

    def collect_new_training_data(self):
        print("what else is printed", self.settings["parallel_actors"])
""",
    "cli_utils.py": "def __getattr__(name): return lambda *_, **__: None",
    "envs/builtin/popgym_envs.py": "POPGymAMAGO = object",
    "loading.py": "def DiskTrajDataset(*_): ...",
    "nets/transformer.py": "VanillaAttention = object",
}


def test_the_official_code_takes_steps_in_a_process_without_twohot(monkeypatch, tmp_path) -> None:
    for name, source in AMAGO.items():
        path = tmp_path / "amago" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setenv("TWOHOT_OFFICIAL_PYTHON", sys.executable)
    monkeypatch.setenv("TWOHOT_OFFICIAL_CHECKOUT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = official_command("collect", {"TMPDIR": str(tmp_path)})
    with Worker("official", command, as_argument(CollectingWorkload(actors=2))) as process:
        assert process.error == ""
        assert process.ask("step") > 0


def test_ours_takes_steps_in_a_process(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    command = learner.commands()[learner.OURS]
    with Worker("ours", command, as_argument(LearnerWorkload(2, 8, threads=1))) as process:
        assert process.error == ""
        assert process.ask("step") > 0


def test_operations_are_those_of_the_products(monkeypatch) -> None:
    """Of the parts that are plain products, against torch's own count."""
    workload = LearnerWorkload(2, 16)
    one, batch = learner_step.learner_and_batch(workload)
    with FlopCounterMode(display=False) as counter:
        h = one.agent.encode(batch.observation, batch.previous_action, batch.previous_reward, batch.time)
    attention = 2 * 2 * 17 * 3 * 16 * 256  # what it needs, done by an operation that the counter does not know
    assert counter.get_total_flops() + attention == pytest.approx(workload.flops_by_part[ENCODING], rel=1e-3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        state = one.agent.target_critics.state_features(h[:, 1:].flatten(0, 1))
        one.agent.target_actor(h[:, 1:].flatten(0, 1))
        features = one.agent.target_critics._hidden(state + torch.zeros(4, 32, 7, 256))
        torch.einsum("cmgh,cnh->cmgn", features, one.agent.target_critics.head[0])
    assert counter.get_total_flops() == pytest.approx(workload.flops_by_part[TARGETS], rel=1e-3)


@pytest.mark.parametrize("kind", ["discrete", "continuous", "images"])
def test_both_sides_get_the_same_batch(kind) -> None:
    workload = LearnerWorkload(2, 4, kind)
    arrays, again = workload.arrays(), workload.arrays()
    assert all((arrays[name] == again[name]).all() for name in arrays)
    seen = spaces.Box(0, 255, (64, 64, 3), "uint8") if kind == "images" else spaces.Box(-9, 9, (32,))
    action = spaces.Box(-1, 1, (4,)) if kind == "continuous" else spaces.Discrete(6)
    batch = learner_step.batch_of(workload, seen, action)
    for name in ("action", "reward", "terminated"):
        assert (getattr(batch, name).numpy() == arrays[name]).all()
    assert (batch.observation["observation"].numpy() == arrays["observation"]).all()
    assert (batch.previous_reward[:, 1:] == batch.reward).all()
    assert batch.previous_action[:, 0].eq(0).all()
    assert batch.mask.all()
