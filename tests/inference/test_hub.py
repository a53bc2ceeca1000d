"""Agents in folders, and behind a stand-in for the Hub."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import twohot
from hub_endpoint import hub_endpoint
from paths import ROOT
from small import quiet, with_epochs
from twohot.inference import hub
from twohot.inference.hub import PretrainedError
from twohot.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mine"
    train(with_epochs(2), path, quiet())
    return path


def acts(agent):
    """Greedy actions on noise."""
    noise = np.random.default_rng(0).standard_normal((5, 2, *agent.observation_space["observation"].shape))
    agent.reset(2)
    return [agent.act(seen, np.ones(2), greedy=True).tolist() for seen in noise]


def test_a_folder_gives_the_agent_back_and_its_card_says_what_it_is(run, tmp_path):
    agent = twohot.Agent.from_checkpoint(run)
    folder = agent.save_pretrained(tmp_path / "one", license="mit")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "returns.png",
    ]
    assert (folder / "returns.png").read_bytes().startswith(b"\x89PNG")
    same = twohot.Agent.from_pretrained(folder)
    assert same.config == agent.config
    assert same.observation_space.keys() == agent.observation_space.keys()
    assert same.action_space == agent.action_space
    for name, value in agent.networks.state_dict().items():
        assert value.equal(same.networks.state_dict()[name]), name
    assert acts(same) == acts(agent)

    card = (folder / "README.md").read_text()
    head = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    head = {key: json.loads(value) for key, value in head.items()}
    assert head["license"] == "mit"
    scores = json.loads((run / "evaluation.json").read_text())["tasks"]
    found = head["model-index"][0]["results"]
    assert [each["dataset"]["name"] for each in found] == [f"popgym {score['task']}" for score in scores]
    assert [each["metrics"][0]["value"] for each in found] == [score["return"]["mean"] for score in scores]
    for score in scores:
        assert f"| `{score['task']}` | trained |" in card
    assert "![Returns over training](returns.png)" in card
    assert 'from_pretrained("one")' in card

    again = same.save_pretrained(tmp_path / "two", name="one", license="mit")  # scores and curves go on with it
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_agent_without_its_run_says_so(run, tmp_path):
    agent = twohot.Agent.from_checkpoint(run)
    alone = twohot.Agent(agent.networks, agent.config)
    alone.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "Not known: the agent was saved without its run." in card
    assert "model-index" not in card
    assert not (tmp_path / "returns.png").exists()


def test_curves_of_the_agent_before_do_not_stay(run, tmp_path):
    agent = twohot.Agent.from_checkpoint(run)
    folder = agent.save_pretrained(tmp_path / "agent")
    assert (folder / "returns.png").is_file()
    twohot.Agent(agent.networks, agent.config).save_pretrained(folder)
    assert not (folder / "returns.png").exists()


def test_what_is_no_agent_is_said(run, tmp_path):
    folder = twohot.Agent.from_checkpoint(run).save_pretrained(tmp_path / "one")
    with pytest.raises(PretrainedError, match=r"a run directory: Agent\.from_checkpoint reads it"):
        twohot.Agent.from_pretrained(run)
    with pytest.raises(PretrainedError, match="no such folder, and not the name of a repository"):
        twohot.Agent.from_pretrained(tmp_path / "nowhere")
    weights, about = (folder / hub.WEIGHTS).read_bytes(), (folder / hub.CONFIG).read_text()

    def refused(match, **files):
        for name, data in {"model.safetensors": weights, "config.json": about.encode(), **files}.items():
            (folder / name).write_bytes(data)
        with pytest.raises(twohot.errors.TwohotError, match=match):
            twohot.Agent.from_pretrained(folder)

    refused("cannot be read as an agent", **{"model.safetensors": weights[:-9]})
    refused("cannot be read as an agent", **{"model.safetensors": b"\x80\x04cos\nsystem\n."})
    refused("expected the configuration of an agent", **{"config.json": b"{"})
    refused("no 'library'", **{"config.json": b'{"model_type": "bert"}'})
    refused("of format 9", **{"config.json": about.replace('"format": 1', '"format": 9').encode()})
    refused("width", **{"config.json": about.replace('"width": 16', '"width": -2').encode()})
    refused("cannot be read as an agent", **{"config.json": about.replace('"width": 16', '"width": 32').encode()})
    (folder / hub.WEIGHTS).unlink()
    with pytest.raises(PretrainedError, match="cannot be read as an agent"):
        twohot.Agent.from_pretrained(folder)


PROGRAM = """
import sys, numpy as np, twohot
agent = twohot.Agent.from_checkpoint(sys.argv[1])
print(agent.push_to_hub("me/mine", private=True, token="secret", license="mit"))
found = twohot.Agent.from_pretrained("me/mine", token="secret")
print(all(value.equal(found.networks.state_dict()[name]) for name, value in agent.networks.state_dict().items()))
print(agent.push_to_hub("me/mine", token="secret"))
from huggingface_hub import ModelCard
data = ModelCard.load("me/mine", token="secret").data  # as the Hub's own reader takes it
print([(each.dataset_name, each.metric_type) for each in data.eval_results], data.license, data.library_name)
for ask in (lambda: twohot.Agent.from_pretrained("me/other", token="secret"),
            lambda: agent.push_to_hub("me/mine", token="wrong")):
    try:
        ask()
    except twohot.inference.hub.PretrainedError as error:
        print(error)
"""


def test_a_stand_in_for_the_hub_takes_it_and_gives_it_back(run, tmp_path):
    pytest.importorskip("huggingface_hub")
    with hub_endpoint() as endpoint:
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint.address,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        command = [sys.executable, "-c", PROGRAM, str(run)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr + "\n".join(endpoint.asked)
        first, same, second, read, missing, refused = done.stdout.splitlines()
        files = endpoint.repositories["me/mine"]
        created = endpoint.created["me/mine"]
    assert created.get("private") or created.get("visibility") == "private"
    assert first.startswith(f"{endpoint.address}/me/mine/commit/")
    assert same == "True"
    assert second.startswith(f"{endpoint.address}/me/mine/commit/")
    tasks = [("popgym " + task, "mean_reward") for task in with_epochs(2).environment.tasks]
    assert read == f"{tasks} None twohot"
    assert missing.startswith("me/other: the Hub said: ")
    assert refused.startswith("me/mine: the Hub said: ")
    assert {"README.md", "config.json", "model.safetensors", "returns.png"} <= set(files)
    assert 'from_pretrained("me/mine")' in files["README.md"].decode()
    assert not any(b"pickle" in data for data in files.values())
