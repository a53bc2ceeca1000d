"""An exported policy acts, with torch alone, as the agent does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from exported_agents import CASES, make
from twohot.inference.export import METADATA_NAME, ActingStep, ExportError, export_policy
from twohot.nets.frozen import freeze


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """The agent of a case, and the file of its policy."""
    agent, path = make(*CASES["transformer"]), tmp_path_factory.mktemp("policies") / "policy.pt2"
    export_policy(agent, path)
    return agent, path


@pytest.mark.parametrize("name", CASES)
def test_the_program_acts_as_the_agent_through_resets(name, tmp_path, transformer):
    if name == "transformer":
        agent, path = transformer
    else:
        agent, path = make(*CASES[name]), tmp_path / "policy.pt2"
        export_policy(agent, path)
    extra = {METADATA_NAME: ""}
    program = torch.export.load(path, extra_files=extra).module()
    metadata, rows = json.loads(extra[METADATA_NAME]), 3
    memory = tuple(torch.zeros([rows if extent == -1 else extent for extent in shape]) for shape in metadata["memory"])
    policy = freeze(agent)
    state = policy.initial_state(rows)
    agent.observation_space.seed(0)
    dtype = torch.float32 if isinstance(agent.action_space, Box) else torch.int64
    action, reward = torch.zeros((rows, *agent.action_space.shape), dtype=dtype), torch.zeros(rows)
    stream = np.random.default_rng(0)
    different = set()
    for step in range(20):
        drawn = [agent.observation_space.sample() for _ in range(rows)]
        for each in drawn:
            if "action_mask" in each:
                each["action_mask"][0] = 1
        seen = {name: torch.from_numpy(np.stack([each[name] for each in drawn])) for name in drawn[0]}
        time = state.time.clone()
        expected = policy.act(state, seen, action, reward, greedy=True)
        mode, sample, memory = program(seen, action, reward, time, memory)
        assert sample.shape == mode.shape
        if dtype == torch.float32:
            assert (mode - expected).abs().max() < 1e-4
        else:
            assert torch.equal(mode, expected)
        different.add(str(mode[0].tolist()))
        action, reward = expected, torch.from_numpy(stream.standard_normal(rows)).float()
        done = torch.from_numpy(stream.random(rows) < 0.1) | torch.tensor([False, False, step == 9])
        state.reset(done)
        action[done], reward[done] = 0, 0
    assert len(different) > 1


def test_the_program_needs_torch_alone(transformer):
    program = (
        "import sys, torch; policy = torch.export.load(sys.argv[1]).module();"
        "memory = tuple(torch.zeros(2, 1, 2, 6, 8) for _ in range(2));"
        "zero = torch.zeros(1, dtype=torch.int64);"
        "mode, _, _ = policy({'observation': torch.zeros(1, 3)}, zero, torch.zeros(1), zero, memory);"
        "print(mode.shape, 'twohot' in sys.modules)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(transformer[1])]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "torch.Size([1]) False"


def test_an_encoder_of_ones_own_is_refused():
    agent = make(*CASES["transformer"])
    agent.trajectory_encoder = torch.nn.Linear(2, 2)
    with pytest.raises(ExportError, match=r"expected one of the trajectory encoders Transformer.*, got Linear"):
        ActingStep(agent)


def test_what_cannot_be_written_is_said(tmp_path):
    agent = make(*CASES["transformer"])
    with pytest.raises(ExportError, match="at least 2 environments, got 1"):
        export_policy(agent, tmp_path / "policy.pt2", environments=1)
    for path in (tmp_path / "nowhere" / "policy.pt2", tmp_path):
        with pytest.raises(ExportError, match=f"{path}: expected a file in a directory that is there"):
            export_policy(agent, path)
