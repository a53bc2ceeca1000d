"""Native parts of twohot. The public faces are `twohot.replay` and its neighbours; arrays are strict here."""

from collections.abc import Sequence, Set
from typing import Any, Literal

import numpy as np

_Field = tuple[str, str, list[int], bool, str]
_Sampling = Literal["trajectory", "step", "recency", "priority", "task"]
_WindowAnchor = Literal["anywhere", "start", "end"]

class ReplayStore:
    """A store of trajectories and its sampler. Fields are (name, dtype, shape, may hold NaN, compression)."""

    random_state: list[int]
    def __init__(
        self,
        observation: list[_Field],
        action: _Field,
        step: list[_Field],
        *,
        capacity_steps: int | None,
        capacity_bytes: int | None,
        capacity_trajectories: int | None,
        seed: int,
        threads: int,
        directory: bytes | None,
        mode: Literal["read", "append", "write", "create"],
        segment_bytes: int,
        durable: bool,
        keep_evicted: bool,
        skip_corrupt: bool,
    ) -> None: ...
    def add(
        self,
        observation: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        step: dict[str, np.ndarray] | None,
        task: int,
        protect: bool,
        origin: int,
        trajectory: int | None,
    ) -> int: ...
    def extend(self, columns: dict[str, Any], ids: np.ndarray | None) -> int: ...
    def drain(self) -> dict[str, Any]: ...
    def sample(
        self,
        batch_size: int,
        length: int,
        lookahead: int,
        by: _Sampling,
        window: _WindowAnchor,
        half_life: float | None,
        pad_left: bool,
        out: dict[str, Any],
    ) -> None: ...
    def draw(
        self,
        batch_size: int,
        length: int,
        lookahead: int,
        by: _Sampling,
        window: _WindowAnchor,
        half_life: float | None,
    ) -> dict[str, Any]:
        """Windows, and copies of the trajectories that they come from, for pack()."""

    def pack(self, drawn: dict[str, Any], length: int, lookahead: int, pad_left: bool, out: dict[str, Any]) -> None: ...
    def table(self) -> dict[str, np.ndarray]: ...
    def actions(self) -> np.ndarray: ...
    def get(self, trajectory: int) -> dict[str, Any]: ...
    def snapshot(self) -> dict[str, Any]: ...
    def stats(self) -> dict[str, int]: ...
    def set_priorities(self, ids: np.ndarray, priorities: np.ndarray) -> int: ...
    def refresh(self) -> None: ...
    def evicted_files(self) -> list[str]: ...
    def reclaim(self, names: list[str]) -> int: ...
    def sync(self) -> None: ...
    def position(self) -> dict[str, int]: ...
    def verify(self) -> list[tuple[str, str]]: ...
    def close(self) -> None: ...
    def clear(self) -> None: ...
    def resume(self, next_id: int, evicted_trajectories: int, evicted_steps: int) -> None: ...

class ReplayWriter:
    """Open trajectories of some environments. Serves one thread at a time."""

    def __init__(self, store: ReplayStore, environments: int, chunk_length: int, overlap: int) -> None: ...
    def begin(self, observation: dict[str, np.ndarray], mask: np.ndarray | None, task: np.ndarray | None) -> None: ...
    def append(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        observation: dict[str, np.ndarray],
        mask: np.ndarray | None,
        step: dict[str, np.ndarray] | None,
    ) -> None: ...
    def cut(self) -> None: ...
    def discard(self, mask: np.ndarray | None) -> None: ...

def roll_back(directory: bytes, position: dict[str, int], evicted: Set[str]) -> None:
    """Take back what was committed after `ReplayStore.position` had returned `position`."""

def repair(directory: bytes, observation: list[_Field], action: _Field, step: list[_Field]) -> list[tuple[str, str]]:
    """Make every journal again from intact data; returns files and what is wrong with them."""

class Support:
    """Bins between `low` and `high` in transformed space, and how they are read."""

    def __init__(self, low: float, high: float, transform: str, readout_kind: str) -> None: ...

def cross_entropy(
    logits: int,
    dtype: str,
    rows: int,
    bins: int,
    support: Support,
    *,
    target: int,
    targets: int,
    offset: int = 0,
    mask: int = 0,
    labels: str = "two_hot",
    sigma: float = 0.0,
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
    support: Support,
    *,
    grad_output: int = 0,
    readout: int = 0,
    gradient: int = 0,
    threads: int,
) -> None:
    """The readout of rows of logits, and its gradient."""

def decode_attention(
    keys: int,
    values: int,
    cache_dtype: str,
    environments: int,
    heads: int,
    rows: int,
    size: int,
    *,
    sinks: int = 0,
    query: int,
    key: int,
    value: int,
    dtype: str,
    query_stride: int,
    key_stride: int,
    value_stride: int,
    groups: int = 1,
    cache_position: int,
    cosine: int = 0,
    sine: int = 0,
    scale: float,
    softcap: float = 0.0,
    output: int,
    threads: int,
) -> None:
    """Append the key and value of one step to each environment's ring and attend over the rows in use.

    Arrays are addresses of CPU memory, which the caller has checked.
    """

_Strided = tuple[int, int, int, int]

class AttentionWindow:
    """Whole windows of queries, keys and values, and where attention over them goes.

    An array is (address, elements from a sequence, a step, a head to the next).
    """

    def __init__(
        self,
        query: _Strided,
        key: _Strided,
        value: _Strided,
        dtype: str,
        batch: int,
        steps: int,
        heads: int,
        size: int,
        *,
        groups: int = 1,
        lengths: int = 0,
        cosine: int = 0,
        sine: int = 0,
        window: int = 0,
        sinks: int = 0,
        scale: float,
        softcap: float = 0.0,
        output: _Strided,
        lse: int,
    ) -> None: ...

def causal_attention(window: AttentionWindow, threads: int) -> None:
    """Writes output and lse."""

def causal_attention_backward(
    window: AttentionWindow,
    grad_output: _Strided,
    grad_query: _Strided,
    grad_key: _Strided,
    grad_value: _Strided,
    threads: int,
) -> None:
    """Reads output and lse, and writes the gradients."""

def transformer_step(
    x: int,
    output: int,
    environments: int,
    width: int,
    feed_forward: int,
    parameters: Sequence[int],
    *,
    epsilon: float,
    slope: float,
    keys: int,
    values: int,
    cache_dtype: str,
    layers: int,
    heads: int,
    rows: int,
    size: int,
    sinks: int = 0,
    cache_position: int,
    cosine: int = 0,
    sine: int = 0,
    threads: int,
) -> None:
    """One cached step of a whole Transformer, float32; caches are [layers, environments, heads, rows, size].

    Parameters are addresses: weight and bias of each layer's norm before attention, qkv (whose bias may be 0), out,
    norm, norm, up, norm and down, then of the last norm. Linear weights are [outputs / 32, inputs, 32], filled up.
    """

def mlp_step(
    x: int,
    output: int,
    rows: int,
    sizes: Sequence[int],
    parameters: Sequence[int],
    *,
    epsilon: float,
    slope: float,
    threads: int,
) -> None:
    """Linear layers with leaky ReLU between them, float32, of `sizes` inputs, outputs, outputs and so on.

    Parameters are addresses as for `transformer_step`: weight and bias of each layer, and those of a norm after the
    last or nothing.
    """

class ImagesStep:
    """Convolutions (outputs, kernel, stride, padding) over images, each with leaky ReLU.

    Parameters are addresses of weight [outputs / 32, kernel * kernel * channels, 32] and bias of each; all memory must
    live as long. `table` [parts, 256, channels] has what the values of a pixel's parts stand for, whose sum is taken;
    where it is 0, there are as many channels as parts, and (x - 128) / 128 is taken.
    """

    def __init__(
        self,
        *,
        height: int,
        width: int,
        parts: int,
        layers: Sequence[tuple[int, int, int, int]],
        parameters: Sequence[int],
        table: int,
        channels: int,
        slope: float,
    ) -> None: ...
    @property
    def outputs(self) -> int: ...
    def fill(self, pixels: np.ndarray, output: np.ndarray, *, threads: int) -> None:
        """Fill output [images, outputs] (float32) for pixels [images, height, width, parts] (uint8)."""

class TokensStep:
    """The state of a GRU after the last token that is not 0, over rows of a table [vocabulary, width].

    Parameters are addresses of weight and bias of what it takes and of its state, packed as for `mlp_step`; all memory
    must live as long.
    """

    def __init__(self, *, vocabulary: int, width: int, hidden: int, parameters: Sequence[int], table: int) -> None: ...
    @property
    def outputs(self) -> int: ...
    def fill(self, tokens: np.ndarray, output: np.ndarray, *, threads: int) -> None:
        """Fill output [rows, hidden] (float32) for tokens [rows, length] (int64)."""

class StepForm:
    """What is the same of all steps of a timestep encoder.

    `names` are those of observations. `columns` numbers are normalised, by mean, deviation and bound, whose addresses
    are `affine` (or nothing is) and whose memory must live as long. The previous action is `actions` numbers; `counts`
    says of choices how many each has.
    """

    def __init__(
        self, *, names: Sequence[str], columns: int, actions: int, counts: Sequence[int], affine: Sequence[int]
    ) -> None: ...

class StepInputs:
    """What a timestep encoder sees of some rows: columns, then the previous action, then features, side by side.

    Columns are the numbers of observations and the symlog of the reward, if there is one. The previous action is
    choices (int64) or numbers, and counts 0 where `time` (int64) is 0. Arrays are float32 elsewhere, C-contiguous and
    aligned.

    Raises ValueError for sizes that do not add up, and for choices and times that are out of range.
    """

    def __init__(
        self,
        form: StepForm,
        observation: list[np.ndarray],
        reward: np.ndarray | None,
        action: np.ndarray | None,
        time: np.ndarray,
        features: list[np.ndarray],
    ) -> None: ...
    @property
    def rows(self) -> int: ...
    def fill(self, output: np.ndarray) -> None:
        """Write [rows, columns + actions + numbers of features]."""

class PolicyPart:
    """A timestep encoder and an actor, for some rows of a policy; sizes and parameters as for `mlp_step`.

    The memory of parameters must live as long. `actions` says what the actor's outputs mean: "choices", logits of as
    many actions as `counts` says for each choice in turn; "buttons", the logit of 1 for each, where that of 0 is 0;
    "numbers", means of tanh-Gaussians, then what their log standard deviations are made of; or "", of which no action
    is drawn. `low` and `high` are bounds of the probability of an action, or of a log standard deviation.
    """

    def __init__(
        self,
        *,
        encoder_sizes: Sequence[int],
        encoder_parameters: Sequence[int],
        encoder_epsilon: float,
        actor_sizes: Sequence[int],
        actor_parameters: Sequence[int],
        actions: str,
        counts: Sequence[int],
        low: float,
        high: float,
    ) -> None: ...

class PolicyStep:
    """Parts around one Transformer, each with rows of its own; sizes and parameters as for `transformer_step`.

    The memory of parameters must live as long.
    """

    def __init__(
        self,
        *,
        parts: Sequence[PolicyPart],
        width: int,
        feed_forward: int,
        heads: int,
        layers: int,
        parameters: Sequence[int],
        epsilon: float,
        slope: float,
    ) -> None: ...
    def step(
        self,
        inputs: Sequence[StepInputs],
        outputs: Sequence[tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]],
        *,
        positions: int,
        times: int,
        keys: int,
        values: int,
        cache_dtype: str,
        rows: int,
        sinks: int,
        cache_position: int,
        cosine: int,
        sine: int,
        h: int = 0,
        threads: int,
    ) -> bool:
        """One cached step of each environment: h [environments, width] where it has an address, and outputs of parts.

        Outputs are (x, action, random), or None where nothing is wanted: those of the actor, x [rows, outputs], or
        actions that are drawn from them (int64, or float32 numbers) by random numbers: for each entry of an action one
        in [0, 1), or a standard normal one; without them the most probable actions are taken. Positions are added to
        embeddings: [times, width], or [environments, width] where `times` is 0. Moves cache_position and the inputs'
        times on by one; False, and nothing is done, where positions lack a time.
        """

class Ensemble:
    """Critics as addresses of CPU memory, which the caller has checked; dtype is float32 or bfloat16."""

    def __init__(
        self,
        *,
        critics: int,
        steps: int,
        entries: int,
        actions: int,
        depth: int,
        width: int,
        bins: int,
        slope: float,
        dtype: str,
        state: int,
        critic_stride: int,
        step_stride: int,
        table: int,
        action_weight: int,
        weights: int,
        biases: int,
        head: int,
        head_bias: int,
    ) -> None: ...

class EnsembleGradients:
    """Where gradients go, as addresses of float32 memory of the shapes of an `Ensemble`."""

    def __init__(
        self,
        *,
        state: int,
        critic_stride: int,
        step_stride: int,
        table: int,
        action_weight: int,
        weights: int,
        biases: int,
        head: int,
        head_bias: int,
    ) -> None: ...

def critics_cross_entropy(
    ensemble: Ensemble,
    rows: int,
    *,
    step: int,
    entry: int,
    action: int,
    support: Support,
    target: int,
    mask: int,
    labels: str,
    sigma: float,
    scale: float,
    loss: int,
    readout: int,
    gradients: EnsembleGradients,
    threads: int,
) -> None: ...
def critics_expectation(
    ensemble: Ensemble,
    rows: int,
    *,
    step: int,
    entry: int,
    action: int,
    support: Support,
    readout: int,
    threads: int,
) -> None: ...
def critics_squared_error(
    ensemble: Ensemble,
    rows: int,
    *,
    step: int,
    entry: int,
    action: int,
    target: int,
    factor: int,
    offset: int,
    mask: int,
    scale: float,
    loss: int,
    value: int,
    gradients: EnsembleGradients,
    threads: int,
) -> None: ...
def critics_output(
    ensemble: Ensemble, rows: int, *, step: int, entry: int, action: int, output: int, threads: int
) -> None: ...
def pack_weight(
    weight: int, outputs: int, inputs: int, *, backward: bool, dtype: str, packed: int, threads: int
) -> None:
    """A float32 weight [outputs, inputs] as this processor's products read it, in outputs * inputs floats."""

def before_attention(
    rows: int,
    width: int,
    hidden: int,
    dtype: str,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    epsilon: float,
    threads: int,
) -> None:
    """linear(norm(x)), [rows, hidden] of dtype; inputs are x, the norm's weight and bias, and the packed weight."""

def before_attention_backward(
    rows: int,
    width: int,
    hidden: int,
    dtype: str,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    epsilon: float,
    threads: int,
) -> None:
    """The derivative of before_attention: outputs are gradients of x (added), the weight, the norm's weight and bias.

    Inputs as there, with the weight packed for it, and grad_output.
    """

def after_attention(
    rows: int,
    width: int,
    hidden: int,
    dtype: str,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    epsilon: float,
    slope: float,
    seed: int,
    dropout: float,
    threads: int,
) -> None:
    """m = x + norm(out(attended)), then m + dropout(down(norm(leaky(up(norm(m)))))).

    Inputs are weight and bias of out, norm, norm, up, norm and down, then x and what was attended; outputs are
    out(attended), m, leaky(up(...)) and the result.
    """

def after_attention_backward(
    rows: int,
    width: int,
    hidden: int,
    dtype: str,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    epsilon: float,
    slope: float,
    seed: int,
    dropout: float,
    threads: int,
) -> None:
    """The derivative of after_attention: outputs are gradients of x, of what was attended, and of the parameters.

    Inputs as there, with weights packed for it, its first three outputs, and grad_output.
    """

def dropout(to: int, source: int, count: int, *, seed: int, dropout: float, threads: int) -> None: ...
def max_pool(shape: Sequence[int], *, x: int, out: int, argmax: int, threads: int) -> None:
    """The maxima of every second square of 3 x 3 pixels, and where (uint8) they were; x is [M, H, W, C] float32."""

def max_pool_backward(shape: Sequence[int], *, grad_output: int, argmax: int, grad_x: int, threads: int) -> None: ...
def residual_norm(
    shape: Sequence[int],
    groups: int,
    *,
    weight: int,
    bias: int,
    epsilon: float,
    x: int,
    residual: int,
    total: int,
    out: int,
    threads: int,
) -> None:
    """total = x + residual, out = group_norm(total), each [M, H, W, C] float32."""

def residual_norm_backward(
    shape: Sequence[int],
    groups: int,
    *,
    weight: int,
    bias: int,
    epsilon: float,
    grad_output: int,
    total: int,
    grad_sum: int,
    grad_weight: int,
    grad_bias: int,
    threads: int,
) -> None: ...
def empty_from_pool(size: int) -> np.ndarray:
    """An uninitialised array of bytes whose memory is kept for the next caller when the array goes."""

def release_pool() -> None:
    """Give the memory that is kept for empty_from_pool() back to the system."""

def pool_cached_bytes() -> int:
    """Bytes that are kept for empty_from_pool() and that nobody uses."""

def cpu_capability() -> Literal["portable", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated", "neon"]:
    """Which compiled form of the kernels this process runs."""

def cpu_capability_reason() -> str:
    """Why it runs that form."""

def cpu_capabilities() -> list[str]:
    """The compiled forms that this processor runs, from the least to the best, then those for tests."""

class XGrid:
    """Grid worlds stepped together. Observations are uint8 [num_envs, *observation_shape], written in place."""

    observation_shape: list[int]
    max_steps: int
    def __init__(
        self,
        *,
        num_envs: int,
        size: Sequence[int],
        rooms: int,
        locked: bool,
        view: int,
        show_carried: bool,
        max_steps: int,
        attempts: int,
        same_map: bool,
        generator: Sequence[int],
        seed: int,
        tasks: int,
        split: Literal["train", "test"],
    ) -> None: ...
    def reset(self, seed: int) -> None: ...
    def begin(self, index: int, seed: int, new_task: bool) -> None: ...
    def next_attempt(self, index: int) -> None: ...
    def step(
        self,
        actions: np.ndarray,
        *,
        observation: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        last: np.ndarray | None,
        autoreset: bool,
        threads: int,
    ) -> None: ...
    def observe(self, observation: np.ndarray) -> None: ...
    def directions(self, direction: np.ndarray) -> None: ...
    def progress(self, task: np.ndarray, attempt: np.ndarray) -> None: ...
    def rule_set(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    def set_rule_set(self, index: int, goal: np.ndarray, rules: np.ndarray, objects: np.ndarray) -> None: ...
    def state(self, grid: np.ndarray, agent: np.ndarray, pocket: np.ndarray) -> None: ...
    def set_state(self, index: int, grid: np.ndarray, agent: np.ndarray, pocket: np.ndarray) -> None: ...

def xgrid_rule_sets(
    generator: Sequence[int], *, seed: int, first: int, count: int, split: Literal["train", "test"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...
def xgrid_most(generator: Sequence[int]) -> tuple[int, int]: ...
def xgrid_identity(goal: np.ndarray, rules: np.ndarray, objects: np.ndarray) -> int: ...
def xgrid_plan(goal: np.ndarray, rules: np.ndarray, objects: np.ndarray) -> list[int] | None: ...
