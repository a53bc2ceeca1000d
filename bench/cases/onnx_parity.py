"""Actions of an exported policy in ONNX Runtime beside the agent's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from twohot.agent import AgentNetworks
from twohot.inference.export import METADATA_NAME, export_policy
from twohot.nets.frozen import freeze
from twohot.spaces import shape_of


class OnnxPolicy:
    """A policy in ONNX Runtime, with its memory.

    Args:
        path: of the model. environments: B. threads: of ONNX Runtime.
    """

    def __init__(self, path: Path, environments: int, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shapes = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_NAME])["memory"]
        self._memory = [
            np.zeros([environments if extent == -1 else extent for extent in shape], np.float32) for shape in shapes
        ]
        self._reads = {each.name for each in self._session.get_inputs()}

    def act(
        self, observation: dict[str, np.ndarray], action: np.ndarray, reward: np.ndarray, time: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mode of the policy and a sample of it; moves the memory on."""
        inputs: dict[str, Any] = {f"observation/{name}": value for name, value in observation.items()}
        inputs |= {"previous_action": action, "previous_reward": reward, "time": time}
        inputs |= {f"memory/{index}": value for index, value in enumerate(self._memory)}
        read = {name: value for name, value in inputs.items() if name in self._reads}
        mode, sample, *self._memory = self._session.run(None, read)
        return mode, sample


def largest_difference(networks: AgentNetworks, path: Path, *, steps: int, environments: int = 3) -> float:
    """The largest difference of greedy actions over steps with a memory, and resets; a choice that differs counts 1.

    Args:
        networks: in eval mode. path: to export to.

    Raises:
        AssertionError: samples are of another shape than actions, or all actions are alike, which would show nothing.
    """
    export_policy(networks, path)
    theirs, ours = OnnxPolicy(path, environments), freeze(networks)
    state = ours.initial_state(environments)
    seen_space, action_space = networks.observation_space, networks.action_space
    seen_space.seed(0)
    dtype = torch.float32 if isinstance(action_space, Box) else torch.int64
    action = torch.zeros((environments, *shape_of(action_space)), dtype=dtype)
    reward, stream = torch.zeros(environments), np.random.default_rng(0)
    worst, different = 0.0, set()
    for _ in range(steps):
        drawn = [seen_space.sample() for _ in range(environments)]
        for each in drawn:
            if "action_mask" in each:
                each["action_mask"][0] = 1
        seen = {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
        mode, sample = theirs.act(seen, action.numpy(), reward.numpy(), state.time.numpy().copy())
        given = {name: torch.from_numpy(value) for name, value in seen.items()}
        expected = ours.act(state, given, action, reward, greedy=True)
        assert sample.shape == mode.shape
        worst = max(worst, float(np.abs(mode.astype(np.float64) - expected.numpy()).max()))
        different.add(str(mode[0].tolist()))
        action, reward = expected, torch.from_numpy(stream.standard_normal(environments)).float()
        done = torch.from_numpy(stream.random(environments) < 0.05)
        state.reset(done)
        action[done], reward[done] = 0, 0
    assert len(different) > 1
    return worst
