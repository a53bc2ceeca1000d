"""The page about sharing agents runs, with an agent of random weights."""

import re

import pytest
import torch

import twohot
from paths import ROOT
from small import CONFIG
from twohot.agent import AgentNetworks
from twohot.data.spaces import agent_layout


def test_the_page_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = agent_layout(CONFIG.environment, CONFIG.evaluate)
    torch.manual_seed(0)
    agent = twohot.Agent(AgentNetworks(CONFIG.agent, layout.observation, layout.action), CONFIG)
    monkeypatch.setattr(twohot.Agent, "from_checkpoint", lambda path: agent)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hub.md").read_text(), re.DOTALL)
    exec(code, names)
    assert names["same"].config == agent.config
    assert (tmp_path / "mine" / "README.md").is_file()
