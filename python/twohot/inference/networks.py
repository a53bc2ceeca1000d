"""The networks of a run, and of what was saved of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from twohot.agent import AgentNetworks, MixedNetworks
from twohot.agent.saved import make_from_spaces
from twohot.config import TrainConfig
from twohot.config.files import from_json
from twohot.runs import checkpoint

Networks = AgentNetworks | MixedNetworks


def load_networks(path: Path) -> tuple[TrainConfig, Networks]:
    """The configuration and networks of a run's newest checkpoint or of one checkpoint, on the CPU, in eval mode.

    Raises:
        CheckpointError: when there is none, or it is corrupt.
    """
    missing = "no checkpoint here; a run writes one every `checkpoint_every` epochs and at its end"
    return checkpoint.read_newest(path, _load, missing)


def _load(path: Path) -> tuple[TrainConfig, Networks]:
    state = checkpoint.read_state(path)
    with checkpoint.reading(path):
        return build_networks(state["config"], state["spaces"], checkpoint.read_tensors(path, "agent"))


def build_networks(
    config: Any, spaces: Mapping[str, Any], tensors: dict[str, torch.Tensor]
) -> tuple[TrainConfig, Networks]:
    """A configuration, and networks in eval mode, of JSON values and all tensors.

    Raises:
        TwohotError, KeyError, ValueError, TypeError: where they are none, or do not go together.
    """
    config = from_json(TrainConfig, config)
    networks = make_from_spaces(config.agent, spaces, predicts=config.objective.predicts)
    checkpoint.load_module(networks, tensors)
    return config, networks.eval()
