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

def cross_entropy(
    logits: int,
    dtype: str,
    rows: int,
    bins: int,
    low: float,
    high: float,
    transform: str,
    raw: bool,
    *,
    target: int,
    targets: int,
    offset: int = 0,
    mask: int = 0,
    sigma: float = 0.0,
    raw_labels: bool = False,
    weight: int = 0,
    scale: float = 1.0,
    loss: int = 0,
    readout: int = 0,
    gradient: int = 0,
    threads: int,
) -> float:
    """Cross-entropy of rows of logits, its gradient and their readout; returns the sum of the losses.

    Arrays are addresses of C-contiguous CPU memory, which the caller has checked; 0 means not wanted.
    """

def expectation(
    logits: int,
    dtype: str,
    rows: int,
    bins: int,
    low: float,
    high: float,
    transform: str,
    raw: bool,
    *,
    upstream: int = 0,
    readout: int = 0,
    gradient: int = 0,
    threads: int,
) -> None:
    """The readout of rows of logits, and its gradient."""

def recycled(bytes: int) -> np.ndarray:
    """An uninitialised array of bytes whose memory is kept for the next caller when the array goes."""

def release_recycled() -> None:
    """Give the memory that is kept for recycled() back to the system."""

def recycled_bytes() -> int:
    """Bytes that are kept for recycled() and that nobody uses."""

def cpu_capability() -> Literal["avx512_bf16", "avx512", "avx2", "portable"]:
    """Which compiled form of the kernels this processor runs."""
