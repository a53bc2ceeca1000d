"""Ranks of a process group: processes on this machine, which find each other through a file."""

from __future__ import annotations

import os
import signal
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from forked import CONTEXT
from objective_loops import make_agent, make_batch
from small import quiet
from twohot.config import AgentConfig, ConfigurationError, ObjectiveConfig, OptimizerConfig, TrainConfig
from twohot.errors import TwohotError
from twohot.learning.data_parallel import DataParallel
from twohot.learning.learner import Learner, NonFiniteLossError
from twohot.nets.normalization import MovingNormalization, RunningNormalization
from twohot.rl import PopArt
from twohot.runs import replay as run_replay
from twohot.training.interruption import Interrupted
from twohot.training.ranks import joined
from twohot.training.session import Session
from twohot.training.train import resume, train

LENGTHS = (5, 3, 4, 1)
"""Steps of the windows of a batch: two ranks of two windows have unlike numbers of steps."""


def run_ranks(directory: Path, calls: Mapping[str, tuple[Callable[..., Any], ...]], size: int = 2) -> list[Any]:
    """For each rank of a group of `size`, what function(group, *arguments) of each call returns, by its name.

    Functions are those of modules, for other processes import them.
    """
    processes = [CONTEXT.Process(target=_run, args=(calls, directory, rank, size), daemon=True) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a rank ended with {process.exitcode}"
    return [torch.load(directory / f"rank-{rank}.pt", weights_only=True) for rank in range(size)]


def _run(calls: Mapping[str, tuple[Callable[..., Any], ...]], directory: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the process that this is a fork of may have ignored it
    store = distributed.FileStore(str(directory / "store"), size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=120))
    group = distributed.group.WORLD
    results = {name: function(group, *arguments) for name, (function, *arguments) in calls.items()}
    torch.save(results, directory / f"rank-{rank}.pt")
    distributed.destroy_process_group()


def rows_of(batch: types.SimpleNamespace, first: int, count: int) -> types.SimpleNamespace:
    """Windows of a batch, as `twohot.replay.Batch.rows`."""
    observation = {name: value[first : first + count] for name, value in batch.observation.items()}
    others = {
        name: value[first : first + count] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    part = types.SimpleNamespace(observation=observation, **others)
    part.rows = lambda first, count: rows_of(part, first, count)
    return part


def my_rows(group: distributed.ProcessGroup | None, batch: types.SimpleNamespace) -> types.SimpleNamespace:
    """The windows of a batch that are this rank's; all without a group."""
    size, rank = (1, 0) if group is None else (distributed.get_world_size(group), distributed.get_rank(group))
    count = len(batch.mask) // size
    return rows_of(batch, rank * count, count)


def learn(
    group: distributed.ProcessGroup | None,
    space: Any,
    configs: tuple[AgentConfig, ObjectiveConfig, OptimizerConfig],
    updates: int,
    dtype: torch.dtype = torch.float64,
) -> dict[str, dict[str, Tensor]]:
    """Gradients of the first update, and the agent and the optimiser after all, of this rank's windows of the batch."""
    agent_config, objective, optimizer = configs
    agent = make_agent(space, dtype, agent_config, predicts=objective.predicts)
    if group is not None and distributed.get_rank(group):
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter.add_(1.0)  # the first rank's count
    batch = my_rows(group, make_batch(space, dtype, lengths=LENGTHS))
    learner = Learner(agent, objective, optimizer, group)
    gradients = {}
    for update in range(updates):
        torch.manual_seed(update)
        learner.step(batch)
        if update == 0:
            gradients = {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None}
    state = {name: value.clone() for name, value in agent.state_dict().items()}
    return {"gradients": gradients, "agent": state, "moments": learner.state_dict()["moments"]}


def learn_infinity(
    group: distributed.ProcessGroup, space: Any, configs: tuple[AgentConfig, ObjectiveConfig, OptimizerConfig]
) -> dict[str, Any]:
    """An update for which the last rank has an infinite reward: what it says, and whether anything has changed."""
    agent = make_agent(space, torch.float64, configs[0])
    learner = Learner(agent, *configs[1:], group)
    batch = my_rows(group, make_batch(space, torch.float64, lengths=LENGTHS))
    if distributed.get_rank(group):
        batch.reward[0, 0] = torch.inf
    before = {name: parameter.clone() for name, parameter in agent.named_parameters()}
    try:
        learner.step(batch)
    except NonFiniteLossError as error:
        said = str(error)
    else:
        said = ""
    same = all(torch.equal(value, before[name]) for name, value in agent.named_parameters())
    return {"said": said, "same": same, "updates": learner.updates}


def count_targets(group: distributed.ProcessGroup, targets: Tensor, mask: Tensor) -> dict[str, Any]:
    """PopArt and running statistics of this rank's targets [rank], twice; and what PopArt says of one that is NaN."""
    rank = distributed.get_rank(group)
    popart, running, moving = PopArt(2), RunningNormalization(2).double(), MovingNormalization(2)
    DataParallel(group).attach(torch.nn.ModuleList([popart, running, moving]))
    for _ in range(2):
        popart.update(targets[rank], mask[rank])
        running.update(targets[rank], mask[rank])
        moving.update(targets[rank], mask[rank])
    states = {name: part.state_dict() for name, part in (("popart", popart), ("running", running), ("moving", moving))}
    try:
        popart.update(torch.full_like(targets[rank], torch.nan if rank else 1.0))
    except ValueError as error:
        return {**states, "said": str(error)}
    return states


def look_for_differences(group: distributed.ProcessGroup) -> dict[str, list[str]]:
    """Names of what differs between ranks in a layer that `attach` has made the same, and after one rank's change."""
    torch.manual_seed(distributed.get_rank(group))
    layer, ranks = torch.nn.Linear(3, 2), DataParallel(group)
    before = ranks.differing(layer)
    ranks.attach(layer)
    attached = ranks.differing(layer)
    if distributed.get_rank(group):
        with torch.no_grad():
            layer.bias[1] = torch.nextafter(layer.bias[1], torch.tensor(9.0))
    return {"before": before, "attached": attached, "changed": ranks.differing(layer)}


def train_run(
    group: distributed.ProcessGroup,
    config: TrainConfig,
    run: Path,
    terminate: tuple[int, int] | None = None,
    changes: Mapping[int, Mapping[str, Any]] | None = None,
    failing: int | None = None,
) -> str:
    """Train `config` as one of torchrun's processes, or go on with the run; what it ends with, or "".

    Args:
        terminate: a rank, and after how many of its updates it hears SIGTERM.
        changes: settings by rank that differ from the configuration. failing: a rank whose rollout cannot be.
    """
    rank, size = distributed.get_rank(group), distributed.get_world_size(group)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    run_replay.SEGMENT_BYTES = 2000
    step, taken = Learner.step, []

    def counted(self: Learner, *arguments: Any, **keywords: Any) -> Any:
        taken.append(1)
        if terminate == (rank, len(taken)):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **keywords)

    def broken(*arguments: Any) -> None:
        raise ConfigurationError("no room here")

    make_rollout = Session._make_rollout
    Session._make_rollout = broken if rank == failing else make_rollout  # pyright: ignore[reportAttributeAccessIssue]
    Learner.step = counted  # pyright: ignore[reportAttributeAccessIssue]
    try:
        if (run / "config.json").exists():
            resume(run, quiet(), config.epochs)
        else:
            train(replace(config, **(changes or {}).get(rank, {})), run, quiet())
    except (TwohotError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        Learner.step, Session._make_rollout = step, make_rollout
    return ""


def join_twice(rank: int, port: int, result: Any) -> None:
    """Join torchrun's processes twice, whose store is that of another process; the first is late the second time."""
    names = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in names.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    for time_ in range(2):
        if time_ and not rank:
            time.sleep(1)
        with joined("cpu") as both:
            result.put((rank, both.tell("word", f"{time_}")))
