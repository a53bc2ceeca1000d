"""The timestep encoder: observation, previous action and previous reward of one step to one embedding."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.nn import functional

from twohot.losses import symlog
from twohot.nets.actions import ActionLinear
from twohot.nets.grids import GridEncoder
from twohot.nets.images import ImageEncoder, RandomShift
from twohot.nets.interfaces import TimestepNetwork
from twohot.nets.linear import MLP
from twohot.nets.normalization import make_normalization
from twohot.nets.tokens import TokenEncoder
from twohot.spaces import SpaceError, convention, shape_of

Kind = Literal["image", "grid", "tokens", "vector"]


def kind_of(name: str, space: Space) -> Kind:
    """How an entry of an observation is encoded.

    "grid...": a small grid of integers [H, W, C]. "tokens...": integers [T]. Any other uint8 [H, W, C]: an image.
    Everything else: a vector, whatever its shape. Of a nested entry, "a/b", the last word counts.

    Raises:
        SpaceError: for a grid or tokens of another shape or dtype.
    """
    dimensions, integers = len(shape_of(space)), np.issubdtype(space.dtype, np.integer)
    if convention(name) == "grid":
        if dimensions != 3 or not integers:
            raise SpaceError(
                f"observation {name!r}: expected a grid of integers [height, width, channels], got {space}"
            )
        return "grid"
    if convention(name) == "tokens":
        if dimensions != 1 or not integers:
            raise SpaceError(f"observation {name!r}: expected integer tokens [length], got {space}")
        return "tokens"
    return "image" if dimensions == 3 and space.dtype == np.uint8 else "vector"


def kinds_of(observation_space: spaces.Dict, excluded_keys: Collection[str]) -> dict[str, Kind]:
    """`kind_of` each entry that is not excluded, in the order of their names."""
    return {
        name: kind_of(name, observation_space[name]) for name in sorted(observation_space) if name not in excluded_keys
    }


class TimestepEncoder(TimestepNetwork):
    """Every entry of the observation, the previous action and the previous reward into one MLP.

    Its first layer is the sum of their contributions: a linear layer over the normalised [vectors, symlog(previous
    reward)], an `ActionLinear` of the previous action, and an encoder for each image, grid or sequence of tokens
    (`kind_of`). At a trial's first step there is no previous action, which then contributes nothing; the reward is 0.

    Args:
        observation_space: what is seen; vectors are taken in the order of their names. action_space: of the action.
        hidden, layers: of the MLP. width: E, the embedding.
        images: the network for images, a name of `twohot.nets.images.NETWORKS`. grids: whether those for grids have
            convolutions. random_shift: of images in training.
        vocabulary: different tokens.
        normalize: whether vectors are normalised by running statistics. normalization: by which.
        previous_action, previous_reward: whether they are shown. excluded_keys: of the observation.

    Raises:
        SpaceError: when an entry does not fit its encoder, or nothing is left to see.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: Space,
        *,
        hidden: int,
        layers: int,
        width: int,
        images: str = "impala",
        grids: Literal["convolutional", "linear"] = "convolutional",
        random_shift: RandomShift | None = None,
        vocabulary: int = 256,
        normalize: bool = True,
        normalization: Literal["all_steps", "moving_average"] = "all_steps",
        previous_action: bool = True,
        previous_reward: bool = True,
        excluded_keys: Collection[str] = ("action_mask",),
    ) -> None:
        super().__init__()
        kinds = kinds_of(observation_space, excluded_keys)
        shown = {name: observation_space[name] for name in kinds}
        self.vectors = [name for name, kind in kinds.items() if kind == "vector"]
        self.images = [name for name, kind in kinds.items() if kind == "image"]
        self.show_reward = previous_reward
        size = sum(math.prod(shape_of(shown[name])) for name in self.vectors) + previous_reward
        if not shown and not size and not previous_action:
            raise SpaceError("observation: expected something to see, but every entry, action and reward is hidden")
        self.normalization = make_normalization(normalization, size) if normalize and size else None
        self.previous_action = ActionLinear(action_space, hidden, max(size, 1) ** -0.5) if previous_action else None
        self.inputs = nn.Linear(size, hidden) if size else None
        self.hidden = MLP(hidden, hidden, layers - 1, width)
        self.norm = nn.LayerNorm(width)
        self.random_shift = random_shift or RandomShift(0)
        self.parts = nn.ModuleDict()
        self._keys = {name: module_key(name) for name, kind in kinds.items() if kind != "vector"}
        for name, kind in kinds.items():
            if kind == "image":
                self.parts[module_key(name)] = ImageEncoder(shape_of(shown[name]), hidden, images)
            elif kind == "grid":
                self.parts[module_key(name)] = GridEncoder(
                    shape_of(shown[name]), hidden, channels=32 if grids == "convolutional" else 0
                )
            elif kind == "tokens":
                self.parts[module_key(name)] = TokenEncoder(vocabulary, hidden)

    @property
    def encoded(self) -> dict[str, Any]:
        """The encoders of images, grids and tokens, by the names of what they see."""
        return {name: self.parts[key] for name, key in self._keys.items()}

    def _features(self, observation: dict[str, Tensor], previous_reward: Tensor) -> Tensor:
        """The vectors, and the previous reward unless it is hidden, [..., size]."""
        leading = previous_reward.shape
        features = [observation[name].reshape(*leading, -1).to(previous_reward.dtype) for name in self.vectors]
        if self.show_reward:
            features.append(symlog(previous_reward).unsqueeze(-1))
        return torch.cat(features, dim=-1)

    def update_statistics(self, observation: dict[str, Tensor], previous_reward: Tensor, mask: Tensor) -> None:
        """Merge the steps where mask [...] (bool) is True into the running normalisation."""
        if self.normalization is not None:
            self.normalization.update(self._features(observation, previous_reward), mask)

    def forward(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [..., E] of steps.

        Args:
            observation: each [..., *shape]. previous_action: [..., *action]. previous_reward, time: [...].
            mask: [...] bool, True where a step is real. On a CPU, images, grids and tokens of other steps are not
                read, which saves their time. None: all are real.
        """
        x = self.first_layer(observation, previous_action, previous_reward, time, mask)
        # As rows: of more dimensions torch's linear layers return views, which autograd copies where they are changed.
        return self.norm(self.hidden(x.reshape(-1, x.shape[-1]))).unflatten(0, x.shape[:-1])

    def first_layer(
        self,
        observation: dict[str, Tensor],
        previous_action: Tensor,
        previous_reward: Tensor,
        time: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """What the first layer gives, [..., hidden]. Arguments as `forward`."""
        contributions = []
        if self.inputs is not None:
            features = self._features(observation, previous_reward)
            contributions.append(self.inputs(features if self.normalization is None else self.normalization(features)))
        if self.previous_action is not None:
            contributions.append(self.previous_action(previous_action) * (time > 0).unsqueeze(-1))
        for name, encoder in self.encoded.items():
            part = self.random_shift(observation[name]) if name in self.images else observation[name]
            contributions.append(_encode(encoder, part, time.shape, mask))
        total = contributions[0]
        for contribution in contributions[1:]:
            total = total + contribution
        return functional.leaky_relu(total, inplace=True)


def module_key(name: str) -> str:
    """A name of any characters as a key of a ModuleDict, which takes neither dots nor names of its attributes."""
    if "." in name or name.startswith("%") or hasattr(nn.ModuleDict(), name):
        return "%" + name.replace("%", "%25").replace(".", "%2E")
    return name


def _encode(encoder: nn.Module, x: Tensor, leading: torch.Size, mask: Tensor | None) -> Tensor:
    """x [*leading, ...] in one batch through an encoder to [*leading, hidden]; zeros where the mask is False."""
    # Elsewhere a number of rows that depends on data would have to be waited for, or compiled again.
    if mask is None or x.device.type != "cpu" or torch.compiler.is_compiling():
        return encoder(x.flatten(0, len(leading) - 1)).unflatten(0, leading)
    real = encoder(x[mask])
    return real.new_zeros(*leading, real.shape[-1]).index_put((mask,), real)
