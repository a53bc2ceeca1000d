"""Native parts of twohot. The public faces are `twohot.replay` and its neighbours; arrays are strict here."""

from typing import Any, Literal

import numpy as np

_Field = tuple[str, str, list[int]]

class ReplayStore:
    """A store of trajectories and its sampler. Fields are (name, dtype, shape)."""

    random_state: list[int]
    def __init__(
        self,
        observation: list[_Field],
        action: _Field,
        *,
        capacity_steps: int | None,
        capacity_bytes: int | None,
        seed: int,
        threads: int,
    ) -> None: ...
    def insert(
        self,
        observation: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        task: int,
    ) -> int: ...
    def sample(self, batch_size: int, length: int, by: Literal["trajectory", "step"], out: dict[str, Any]) -> None: ...
    def lengths(self) -> np.ndarray: ...
    def tasks(self) -> np.ndarray: ...
    def returns(self) -> np.ndarray: ...
    def get(self, id: int) -> dict[str, Any]: ...
    def snapshot(self) -> dict[str, Any]: ...
    def stats(self) -> dict[str, int]: ...
    def clear(self) -> None: ...
    def resume(self, next_id: int, evicted_trajectories: int, evicted_steps: int) -> None: ...

class ReplayWriter:
    """Open trajectories of some environments. Serves one thread at a time."""

    def __init__(self, store: ReplayStore, environments: int) -> None: ...
    def begin(self, observation: dict[str, np.ndarray], mask: np.ndarray | None, task: np.ndarray | None) -> None: ...
    def append(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        observation: dict[str, np.ndarray],
        mask: np.ndarray | None,
    ) -> None: ...
    def cut(self) -> None: ...
    def discard(self) -> None: ...

def two_hot_forward(
    logits: int,
    dtype: str,
    *,
    rows: int,
    bins: int,
    targets: int,
    position: int = 0,
    mask: int = 0,
    values: int = 0,
    antisymmetric: bool = False,
    loss: int = 0,
    maximum: int = 0,
    log_sum: int = 0,
    readout: int = 0,
    threads: int,
) -> None:
    """Loss and readout of rows of logits. Arrays are addresses of C-contiguous CPU memory; 0 means not wanted."""

def two_hot_backward(
    logits: int,
    dtype: str,
    *,
    rows: int,
    bins: int,
    targets: int,
    position: int,
    mask: int = 0,
    maximum: int,
    log_sum: int,
    gradient: int,
    out: int,
    threads: int,
) -> None:
    """Gradient of the loss with respect to the logits, from what the forward pass saved."""

def cpu_capability() -> Literal["avx512", "avx2", "portable"]:
    """Which compiled form of the kernels this processor runs."""
