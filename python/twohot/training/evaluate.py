"""Evaluation: every task, without exploration noise, by attempt, from separate seeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from twohot.config import EnvironmentConfig, EvaluateConfig
from twohot.data.domains import Domain
from twohot.data.rollout import Policy, Rollout, Start, Trial, seeded_generator
from twohot.data.spaces import agent_layout
from twohot.envs import Layout, WorkerChoice, get_suite, make_vector
from twohot.runs.scores import Kind, TaskScore

EVALUATION_STREAM = 7_001
"""Separates the seeds of evaluations from those of training."""
ENVIRONMENTS = 64
"""Trials played side by side at most."""
PROCESSES = 8
"""Trials played side by side at most where each needs a process."""


def evaluate_all(
    policy: Policy,
    environment: EnvironmentConfig,
    evaluation: EvaluateConfig,
    *,
    layout: Layout | None = None,
    trials: int,
    seed: int,
    device: str = "cpu",
    greedy: bool = False,
    kind: Kind | None = None,
    workers: WorkerChoice = "in-process",
    check: Callable[[], None] | None = None,
) -> list[TaskScore]:
    """Play the tasks of a run, on each split that its configuration names, and then the tasks held out.

    Tasks held out are played on the last split that the suite has. See `evaluate` for the arguments.

    Returns:
        Scores whose kind is "evaluation", or "held_out" for tasks held out and the split "test"; or all `kind`.
    """
    arguments = {"layout": layout or agent_layout(environment, evaluation), "trials": trials, "seed": seed}
    arguments |= {"device": device, "greedy": greedy, "step_limit": evaluation.step_limit, "workers": workers}
    arguments["check"] = check
    scores = []
    for part in parts_of(environment, evaluation, kind):
        scores += evaluate(policy, part.environment, split=part.split, kind=part.kind, **arguments)
    return scores


def evaluate_domain(policy: Policy, domain: Domain, **options: Any) -> list[TaskScore]:
    """As `evaluate_all`, of the tasks of a domain by their names in the run."""
    about = domain.config
    scores = evaluate_all(policy, about.environment, about.evaluate, layout=domain.layout, **options)
    return named(domain, scores)


def named(domain: Domain, scores: Sequence[TaskScore]) -> list[TaskScore]:
    """Scores of a domain by the names of its tasks in the run."""
    return [replace(score, task=domain.tasks[score.task]) for score in scores]


class Part(NamedTuple):
    """Tasks that are played on one split, and what their scores are called."""

    environment: EnvironmentConfig
    split: str
    kind: Kind


def parts_of(environment: EnvironmentConfig, evaluation: EvaluateConfig, kind: Kind | None = None) -> list[Part]:
    """What an evaluation of a run plays; see `evaluate_all`."""
    parts = []
    for split in evaluation.splits if kind != "random" else ("train",):
        parts.append(Part(environment, split, kind or ("held_out" if split == "test" else "evaluation")))
    if evaluation.held_out_tasks:
        held_out = replace(environment, tasks=evaluation.held_out_tasks, reward_multipliers=())
        parts.append(Part(held_out, get_suite(environment.suite).splits[-1], kind or "held_out"))
    return parts


def evaluate(
    policy: Policy,
    environment: EnvironmentConfig,
    *,
    trials: int,
    seed: int,
    device: str = "cpu",
    greedy: bool = False,
    split: str = "train",
    kind: Kind = "evaluation",
    layout: Layout | None = None,
    step_limit: int = 0,
    workers: WorkerChoice = "in-process",
    check: Callable[[], None] | None = None,
) -> list[TaskScore]:
    """Play `trials` whole trials of every task.

    Args:
        policy: acts, as for `Rollout`. environment: the tasks and their protocol.
        trials: of each task, at least 1. seed: of environments and sampled actions; the same seed plays the same
            trials, and nothing outside of this call is disturbed.
        greedy: take the most probable action.
        split: which of the tasks' levels, seeds or goals. kind: what the scores are called.
        layout: spaces of the policy; None takes the smallest that fit the tasks.
        step_limit: steps after which a trial is cut off and counted as it stands; 0 means never.
        workers: where environments are stepped, see `make_vector`; of no effect on the scores.
        check: called after each step; what it raises ends the evaluation.

    Returns:
        One `TaskScore` for each task, in the configuration's order.
    """
    arguments = {"device": device, "greedy": greedy, "split": split, "layout": layout, "step_limit": step_limit}
    played = play(policy, environment, trials=trials, seed=seed, workers=workers, check=check, **arguments)
    return scores_of(Part(environment, split, kind), played)


def play(
    policy: Policy,
    environment: EnvironmentConfig,
    *,
    trials: int,
    seed: int,
    jobs: Sequence[int] | None = None,
    device: str = "cpu",
    greedy: bool = False,
    split: str = "train",
    layout: Layout | None = None,
    step_limit: int = 0,
    workers: WorkerChoice = "in-process",
    check: Callable[[], None] | None = None,
) -> list[Trial]:
    """Play the trials of an evaluation, or those with the numbers `jobs` among them; see `evaluate`.

    The trials of each task stand together, in the order of the tasks. With `jobs`, actions are sampled from a stream of
    the first job's own.
    """
    suite, count = get_suite(environment.suite), len(environment.tasks) * trials
    num_envs = min(count if jobs is None else len(jobs), PROCESSES if suite.one_per_process else ENVIRONMENTS)
    vector = make_vector(
        **environment.vector_arguments(),
        environments=num_envs,
        split=split,
        layout=layout,
        step_limit=step_limit,
        workers=workers,
    )
    queue = _Queue(environment.tasks, trials, num_envs, seed, range(count) if jobs is None else jobs)
    try:
        rollout = Rollout(
            vector,
            policy,
            generator=seeded_generator(queue.policy_seed, 0, *(() if jobs is None else jobs[:1])),
            device=device,
            greedy=greedy,
            follow=queue.follow,
        )
        rollout.restart(*queue.first())
        while not queue.over:
            rollout.collect(1)
            if check is not None:
                check()
    finally:
        vector.close()
    return [queue.finished[job] for job in queue.jobs]


def scores_of(part: Part, played: Sequence[Trial]) -> list[TaskScore]:
    """One `TaskScore` for each task, of all its trials, in order."""
    environment, split, kind = part
    suite, scores = get_suite(environment.suite), []
    for index, task in enumerate(environment.tasks):
        mine = [trial for trial in played if trial.task == index]
        returns = np.stack([trial.attempt_returns for trial in mine]).astype(np.float64)
        lengths = np.stack([trial.attempt_lengths for trial in mine])
        told = suite.reports_success or any(trial.success_told for trial in mine)
        successes = np.stack([trial.attempt_success for trial in mine]) if told else None
        references = suite.reference_scores.get(task)
        unscored = environment.unscored_attempts
        scores.append(TaskScore(task, returns, lengths, unscored, successes, kind, split, references))
    return scores


class _Queue:
    """Trials that are still to be played; an environment whose trial has ended takes the next, or stands still.

    A trial's seed does not depend on the environment that plays it.
    """

    def __init__(self, tasks: Sequence[str], trials: int, num_envs: int, seed: int, jobs: Sequence[int]) -> None:
        self._tasks, self.jobs = tasks, jobs
        self._task_of: list[int] = np.repeat(np.arange(len(tasks)), trials).tolist()
        words = np.random.SeedSequence(seed, spawn_key=(EVALUATION_STREAM,))
        self.policy_seed, *self._seeds = words.generate_state(len(self._task_of) + 1, np.uint64).tolist()
        self.finished: dict[int, Trial] = {}
        self._waiting = deque(jobs)
        self._playing = [self._waiting.popleft() for _ in range(num_envs)]

    def first(self) -> tuple[list[int], list[str]]:
        """Seeds and tasks of the first trial of each environment."""
        return [self._seeds[job] for job in self._playing], [self._tasks[self._task_of[job]] for job in self._playing]

    @property
    def over(self) -> bool:
        """Whether every trial has been played."""
        return len(self.finished) == len(self.jobs)

    def follow(self, ended: list[Trial]) -> Start:
        """What comes after these trials."""
        num_envs = len(self._playing)
        mask = np.zeros(num_envs, bool)
        seeds: list[int | None] = [None] * num_envs
        tasks: list[str | None] = [None] * num_envs
        for trial in ended:
            job = self._playing[trial.env_index]
            if trial.task == self._task_of[job]:
                self.finished[job] = trial
            else:  # another trial came in its place, when the worker died
                self._waiting.append(job)
            if self._waiting:
                job = self._playing[trial.env_index] = self._waiting.popleft()
                mask[trial.env_index], seeds[trial.env_index] = True, self._seeds[job]
                tasks[trial.env_index] = self._tasks[self._task_of[job]]
        return Start(mask, seeds, tasks)
