"""The acting step as a program of plain operations: of torch, for wherever torch runs, or in ONNX."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from twohot.agent import AgentNetworks
from twohot.errors import TwohotError
from twohot.extras import MissingExtraError, here
from twohot.files import atomic_write
from twohot.kernels.attention.reference import rotate, rotation
from twohot.nets.frozen_networks import frozen_copy
from twohot.nets.set_memory import SetMemory
from twohot.nets.trajectory import FeedForwardMemory, GRUMemory, IdentityMemory
from twohot.nets.transformer import Transformer
from twohot.spaces import ACTION_MASK, shape_of, space_to_json

METADATA_NAME = "twohot.json"
"""Name, inside of the file, of what a program's inputs are."""
Memory = tuple[Tensor, ...]


class ExportError(TwohotError, ValueError):
    """A policy that cannot be exported."""


class TransformerStep(nn.Module):
    """`Transformer.step` with keys and values [layers, B, H, L, D] that go in and come out."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def memory(self, environments: int) -> Memory:
        """Empty keys and values."""
        cache = self.transformer.initial_cache(environments)
        return cache.keys, cache.values

    def forward(self, x: Tensor, time: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Memory]:
        """x [B, E], time [B] to h [B, E] of the mode and of a sample, and the memory of the next step."""
        transformer, (rows, size) = self.transformer, keys.shape[3:]
        here = torch.arange(rows, device=x.device) == (time % rows).unsqueeze(-1)  # [B, L]
        known = (torch.arange(rows, device=x.device) <= time.unsqueeze(-1))[:, None, None]  # [B, 1, 1, L]
        rotary = transformer.positions.rotary
        angles = None if rotary is None else rotation(time.unsqueeze(-1), size, rotary, torch.float32)
        here = here[:, None, :, None]
        x = (transformer.mapped(x) + transformer.positions(time)).unsqueeze(1)
        kept: list[tuple[Tensor, Tensor]] = []

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            """[B, 1, H, D] of one step, over the memory of the layer whose turn it is."""
            layer = len(kept)
            if angles is not None:
                q, k = rotate(q, *angles), rotate(k, *angles)
            q, k, v = (each.transpose(1, 2) for each in (q, k, v))  # [B, H, 1, D]
            k, v = torch.where(here, k, keys[layer]), torch.where(here, v, values[layer])
            kept.append((k, v))
            score = (q @ k.mT) * size**-0.5  # [B, H, 1, L]
            return (score.masked_fill(~known, -torch.inf).softmax(-1) @ v).transpose(1, 2)

        for layer in transformer.blocks:
            x = layer.block(x, attend)
        h = transformer.norm(x).squeeze(1)
        return h, h, tuple(torch.stack(each) for each in zip(*kept, strict=True))


class GRUStep(nn.Module):
    """`GRUMemory.step` with a state [layers, B, E] that goes in and comes out."""

    def __init__(self, encoder: GRUMemory) -> None:
        super().__init__()
        self.encoder = encoder

    def memory(self, environments: int) -> Memory:
        """A state of zeros."""
        return (self.encoder.initial_cache(environments).state,)

    def forward(self, x: Tensor, time: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Memory]:
        """As `TransformerStep`."""
        states, state = self.encoder.gru(x.unsqueeze(1), state * (time > 0)[:, None])
        h = self.encoder.norm(self.encoder.out(states.squeeze(1)))
        return h, h, (state,)


class SetStep(nn.Module):
    """`SetMemory.step` with a cache, each [1, B, ...], that goes in and comes out."""

    def __init__(self, encoder: SetMemory) -> None:
        super().__init__()
        self.encoder = encoder

    def memory(self, environments: int) -> Memory:
        """The embedding of the step before, the belief, and the noise of its sample; all 0."""
        cache = self.encoder.initial_cache(environments)
        return cache.before[None], cache.total[None], cache.noise[None]

    def forward(
        self, x: Tensor, time: Tensor, before: Tensor, total: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Memory]:
        """As `TransformerStep`; the mode is that of the belief's mean."""
        encoder = self.encoder
        total = encoder.next_total(x, time, before[0], total[0])
        noise = torch.where(encoder.begins(time).unsqueeze(-1), torch.randn_like(noise[0]), noise[0])
        return encoder.output(x, total, None), encoder.output(x, total, noise), (x[None], total[None], noise[None])


class NoMemoryStep(nn.Module):
    """A trajectory encoder that sees one step at a time."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def memory(self, environments: int) -> Memory:
        """Nothing."""
        return ()

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Memory]:
        """As `TransformerStep`."""
        h = self.encoder(x, time)
        return h, h, ()


STEPS: dict[type, type] = {
    Transformer: TransformerStep,
    GRUMemory: GRUStep,
    SetMemory: SetStep,
    FeedForwardMemory: NoMemoryStep,
    IdentityMemory: NoMemoryStep,
}


class ActingStep(nn.Module):
    """One step of a policy as a function of what it sees and remembers.

    Args:
        networks: trained; copied.

    Raises:
        ExportError: for a custom trajectory encoder.
    """

    def __init__(self, networks: AgentNetworks) -> None:
        super().__init__()
        kind = type(networks.trajectory_encoder)
        if kind not in STEPS:
            known = ", ".join(each.__name__ for each in STEPS)
            raise ExportError(f"export: expected one of the trajectory encoders {known}, got {kind.__name__}")
        self.encoder, self.actor = frozen_copy(networks.timestep_encoder), frozen_copy(networks.actor)
        self.step = STEPS[kind](frozen_copy(networks.trajectory_encoder))

    def forward(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Tensor, Memory]:
        """The policy's mode and a sample of it, each [B, *action], and the memory of the next step.

        Args:
            observation: each [B, *shape]. previous_action: [B, *action], float32 or int64. previous_reward: [B]; both
                are 0 at first.
            time: [B] int64, index of the step in its trial: 0 begins a new one, whatever the memory holds.
            memory: as it came out of the step before, and zeros at first.
        """
        x, legal = self.encoder(observation, previous_action, previous_reward, time), observation.get(ACTION_MASK)
        expected, drawn, memory = self.step(x, time, *memory)
        policy = self.actor.acting(expected, legal)
        sampled = policy if drawn is expected else self.actor.acting(drawn, legal)
        return policy.mode(), sampled.sample(), memory


def export_policy(networks: AgentNetworks, path: str | Path, *, environments: int = 2) -> None:
    """Write the acting step as a program for any number of environments.

    To a path that ends with .onnx as an ONNX model, to any other, usually named .pt2, as a `torch.export` program:

        program = torch.export.load("policy.pt2").module()
        mode, sample, memory = program(observation, previous_action, previous_reward, time, memory)

    The arguments are those of `ActingStep.forward`. The program checks their shapes and dtypes; it does not look for
    NaN, as `Agent.act` does. Shapes of the memory, and spaces, stand as JSON in the file itself, under the name
    "twohot.json" (`torch.export.load(path, extra_files={"twohot.json": ""})`, or the metadata of the ONNX model).

    An ONNX model's inputs are "observation/NAME" of each part, "previous_action", "previous_reward", "time" and
    "memory/0" ..., without those that the step does not read; its outputs "mode", "sample" and "next_memory/0" ....

    Args:
        networks: trained. path: of the file. environments: B of the example that is traced, at least 2.

    Raises:
        ExportError: for a custom trajectory encoder, fewer than 2 environments, or a path to no file. TwohotError: for
            ONNX where its packages are not installed.
    """
    if environments < 2:
        raise ExportError(f"expected an example of at least 2 environments, got {environments}")
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        raise ExportError(f"{path}: expected a file in a directory that is there")
    traced = Traced(networks, environments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how it traces
        program = torch.export.export(traced.step, traced.example, dynamic_shapes=traced.dynamic)
        if Path(path).suffix == ".onnx":
            return _save_onnx(program, traced, Path(path))
    torch.export.save(program, path, extra_files={METADATA_NAME: json.dumps(traced.metadata)})


class Traced:
    """The acting step, and an example of its arguments.

    Args:
        networks: trained. environments: B of the example.

    Attributes:
        step: an `ActingStep`. example: its arguments. dynamic: which of their axes are B.
        metadata: shapes of the memory, -1 for B, and spaces.
    """

    def __init__(self, networks: AgentNetworks, environments: int) -> None:
        self.step = ActingStep(networks.cpu())
        observed, acted = networks.observation_space, networks.action_space
        observation = {
            name: torch.zeros((environments, *shape_of(space)), dtype=getattr(torch, str(space.dtype)))
            for name, space in observed.items()
        }
        kind = torch.float32 if isinstance(acted, Box) else torch.int64
        action = torch.zeros((environments, *shape_of(acted)), dtype=kind)
        memory = self.step.step.memory(environments)
        time = torch.zeros(environments, dtype=torch.int64)
        self.example = observation, action, torch.zeros(environments), time, memory
        batch = torch.export.Dim("environments", min=1)
        self.dynamic = (
            {name: {0: batch} for name in observation},
            {0: batch},
            {0: batch},
            {0: batch},
            tuple({1: batch} for _ in memory),
        )
        self.metadata: dict[str, Any] = {
            "memory": [[-1 if axis == 1 else extent for axis, extent in enumerate(each.shape)] for each in memory],
            "observation": space_to_json(observed),
            "action": space_to_json(acted),
        }


def _save_onnx(program: Any, traced: Traced, path: Path) -> None:
    observation, *_, memory = traced.example
    kept = range(len(memory))
    names = [*(f"observation/{name}" for name in observation), "previous_action", "previous_reward", "time"]
    try:
        model = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[*names, *(f"memory/{index}" for index in kept)],
            output_names=["mode", "sample", *(f"next_memory/{index}" for index in kept)],
            verbose=False,
        )
    except ImportError as error:
        install = here("pip install 'twohot[onnx]'")
        raise MissingExtraError(f"ONNX needs other packages: {install} ({error})") from error
    assert model is not None
    model.model.metadata_props[METADATA_NAME] = json.dumps(traced.metadata)
    with atomic_write(path) as partial:
        model.save(partial)
