"""The page about acting in one's own world runs, with an agent of random weights."""

import re
from dataclasses import replace

import pytest
import torch

import twohot
from paths import ROOT
from small import AGENT, CONFIG
from twohot.agent import AgentNetworks
from twohot.config import EnvironmentConfig
from twohot.envs import make_vector


def test_the_page_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = EnvironmentConfig("gym", ("CartPole-v1", "Acrobot-v1"))
    vector = make_vector("gym", about.tasks, environments=1)
    torch.manual_seed(0)
    networks = AgentNetworks(AGENT, vector.single_observation_space, vector.single_action_space)
    agent = twohot.Agent(networks, replace(CONFIG, environment=about))
    monkeypatch.setattr(twohot.Agent, "from_checkpoint", lambda path: agent)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL):
        exec(code, names)
    assert names["action"].shape == (1,)
    assert (tmp_path / "policy.pt2").exists()
