"""Play the agents of one run or several, print what they reached, and write it down.

evaluate RUN [RUN ...]   play trained agents, per task and per attempt
evaluate RUN --actors N [--ray-address ADDRESS]   the same, by N processes of this machine or of a Ray cluster
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twohot.agent import AgentNetworks
from twohot.cli.options import console, parse, run_directory
from twohot.config import TrainConfig
from twohot.config.files import save_json
from twohot.data.domains import Domain, domains_of, splits_left_out
from twohot.envs import (
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    check_tasks,
    layout_of,
    split_name,
    task_spaces,
)
from twohot.errors import UsageError
from twohot.inference.networks import load_networks
from twohot.nets.frozen import freeze
from twohot.reports.numbers import format_interval, format_number
from twohot.reports.terminal import print_table
from twohot.runs.scores import EVALUATION_NAME, TaskScore, report
from twohot.text import file_stems, printable
from twohot.training.cluster import connected
from twohot.training.evaluate import evaluate_domain, named, parts_of
from twohot.training.placed_evaluation import evaluate_placed
from twohot.training.train import usable_device

if TYPE_CHECKING:
    from rich.console import Console

VIDEOS_NAME = "videos"


@dataclass(frozen=True)
class EvaluateOptions:
    """Play trained agents without exploration noise; prints raw returns per task and per attempt, with intervals.

    Several runs of one configuration, with different seeds, are taken together: the intervals are then over seeds.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Directories of the runs; each gets its own evaluation.json."""
    trials: int = 32
    """Trials of each task."""
    seed: int = 1
    """Seed of environments and sampled actions."""
    greedy: bool = False
    """Take the most probable action instead of sampling one from the policy."""
    tasks: tuple[str, ...] = ()
    """Tasks to play instead of the run's own, such as longer ones, or SUITE:TASK of another suite whose spaces fit;
    evaluation.json then stays as it is."""
    splits: tuple[Literal["train", "test"], ...] = ()
    """Levels, seeds or goals to play, instead of the run's own evaluate.splits."""
    json: Path | None = None
    """File for the results of all runs together, as JSON."""
    video: bool = False
    """Also write a video of one trial of each task to the directory videos of each run, in SUITE of it for tasks
    of another suite."""
    video_format: Literal["auto", "gif", "mp4"] = "auto"
    """mp4 needs the extra `twohot[video]`; auto takes it where it is installed, else gif."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes cuda where there is one, else cpu."""
    actors: int = 0
    """Processes that the trials are divided over, on CPUs (needs Ray); 0: this one plays all. Environments are those of
    one process, but actions are sampled by other random numbers for another number of actors, so that scores are as
    good, and not the same; with --greedy they are the same, but for what rounding decides."""
    ray_address: str = ""
    """Ray cluster whose nodes play: auto, or HOST:PORT; empty starts Ray on this machine alone."""


def run(arguments: list[str]) -> int:
    """Evaluate the runs that the arguments name; returns the exit code."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    if options.trials < 1:
        raise UsageError(f"--trials: expected at least 1, got {options.trials}")
    if options.actors < 0:
        raise UsageError(f"--actors: expected at least 0, got {options.actors}")
    if options.ray_address and not options.actors:
        raise UsageError("--ray-address: expected --actors N too")
    if options.actors and options.device not in ("auto", "cpu"):
        raise UsageError(f"--device: actors play on CPUs; expected auto or cpu with --actors, got {options.device}")
    directories = [run_directory(run) for run in options.runs]
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UsageError(f"expected every run once, got {', '.join(map(str, directories))}")
    needs = {f"actors: {options.actors} with a CPU each": float(options.actors)}
    with connected(options.ray_address, needs, "--actors") if options.actors else nullcontext():
        evaluate(options, directories, console())
    return 0


def evaluate(options: EvaluateOptions, directories: Sequence[Path], output: Console) -> None:
    """Evaluate the runs in `directories` as `options` say.

    Each run's directory gets its own `evaluation.json`, but not of other tasks; and `videos/`, where asked for.

    Raises:
        UsageError: the runs' agents do not play the same tasks, or cannot play those that are asked for.
        CheckpointError, ConfigurationError: a run has no checkpoint, or a corrupt one; or no such device.
    """
    device = usable_device(options.device) if not options.actors else "cpu"
    scores, played = {}, None
    for directory in directories:
        config, networks = load_networks(directory)
        if options.splits:
            config = replace(config, evaluate=replace(config.evaluate, splits=options.splits))
        domains = domains_of(config)
        own_suites = {domain.name: domain.config.environment.suite for domain in domains}
        if options.tasks:
            domains = _playing(config, domains, options.tasks)
        for sentence in splits_left_out(config):
            output.print(sentence, highlight=False, markup=False, soft_wrap=True)
        played = _same_tasks(played, domains, directory)
        greedy = options.greedy or config.evaluate.greedy
        how: dict[str, Any] = {"seed": options.seed, "greedy": greedy}
        members = [networks if isinstance(networks, AgentNetworks) else networks[domain.name] for domain in domains]
        found = _played(list(zip(domains, members, strict=True)), output, options, device, how)
        scores[str(directory)] = found
        facts = {"trials": options.trials, "seed": options.seed, "greedy": greedy}
        if not options.tasks:
            save_json(report({str(directory): found}, **facts), directory / EVALUATION_NAME)
        if options.video:
            from twohot.training.video import record

            how |= {"device": device, "container": options.video_format}
            for domain, member in zip(domains, members, strict=True):
                policy, where = freeze(member.to(device)), directory / VIDEOS_NAME / domain.name
                about = domain.config
                if about.environment.suite != own_suites[domain.name]:  # its tasks can have the names of the run's own
                    where /= file_stems([about.environment.suite])[0]
                for line in record(policy, about.environment, about.evaluate, where, layout=domain.layout, **how):
                    output.print(printable(line), highlight=False, markup=False, emoji=False, soft_wrap=True)
    result = report(scores, **facts)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        save_json(result, options.json)
    print_report(output, result)


def _played(
    members: Sequence[tuple[Domain, AgentNetworks]],
    output: Console,
    options: EvaluateOptions,
    device: str,
    how: dict[str, Any],
) -> list[TaskScore]:
    """The scores of an agent in its domains, whose trials are played here or by actors."""
    how = {**how, "trials": options.trials}
    if not options.actors:
        scores = []
        for domain, member in members:
            scores += evaluate_domain(freeze(member.to(device)), domain, device=device, **how)
        return scores
    asked = [(domain.config.environment, domain.config.evaluate) for domain, _ in members]
    count = options.trials * sum(len(part.environment.tasks) for each in asked for part in parts_of(*each))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=output, disable=not output.is_terminal) as progress:
        bar, scores = progress.add_task("trials", total=count), []
        how |= {"actors": options.actors, "played": partial(progress.advance, bar)}
        for (domain, member), each in zip(members, asked, strict=True):
            scores += named(domain, evaluate_placed(member, *each, layout=domain.layout, **how))
        return scores


def _playing(config: TrainConfig, domains: Sequence[Domain], tasks: tuple[str, ...]) -> list[Domain]:
    """A run's domains with other tasks, which have to fit the spaces of its agent.

    Tasks of a suite that is no domain's are played by the first domain whose spaces they fit.
    """
    asked = {name: split_name(name, config.environment.suite) for name in tasks}
    if len(set(asked.values())) < len(tasks):
        raise UsageError(f"--tasks: expected every task once, got {' '.join(tasks)}")
    own_suites = {domain.config.environment.suite for domain in domains}
    left, found = list(tasks), []
    for domain in domains:
        own = domain.config.environment
        known = task_spaces(own.suite, tuple(dict.fromkeys((*own.tasks, *domain.config.evaluate.held_out_tasks))))
        for suite in dict.fromkeys(suite for suite, _ in asked.values()):
            if suite != own.suite and suite in own_suites:
                continue
            mine = {asked[name][1]: name for name in left if asked[name][0] == suite}
            mine = {task: name for task, name in mine.items() if _fits(domain, known, suite, task)}
            left = [name for name in left if name not in mine.values()]
            if mine:
                environment = replace(own, suite=suite, tasks=tuple(mine), reward_multipliers=())
                evaluation = replace(domain.config.evaluate, held_out_tasks=())
                config = replace(domain.config, environment=environment, evaluate=evaluation)
                found.append(replace(domain, tasks=mine, config=config))
    if left:
        layouts = ", ".join(str(domain.layout) for domain in domains)
        raise UsageError(f"--tasks: expected tasks that fit the spaces of the run's agent, {layouts}, got {tasks}")
    return found


def _fits(domain: Domain, known: Mapping[str, tuple], suite: str, task: str) -> bool:
    own = domain.config.environment
    of_task = _spaces_of(suite, task)
    spaces = [*known.values(), *of_task.values()]
    try:
        return layout_of(spaces, own.observation_size, own.actions) == domain.layout
    except (ValueError, UnsupportedSpaceError):
        return False


def _spaces_of(suite: str, task: str) -> Mapping[str, tuple]:
    try:
        return task_spaces(suite, (task,))
    except UnknownEnvironmentError as error:
        first, colon, rest = task.partition(":")
        if not colon:
            raise
        try:
            check_tasks(first, (rest,))
        except UnknownEnvironmentError as meant:
            raise UnknownEnvironmentError(f"{meant}; nor is it a task of {suite}: {error}") from error
        raise


def _same_tasks(played: Any, domains: Sequence[Domain], directory: Path) -> Any:
    mine = []
    for config in (domain.config for domain in domains):
        environment, evaluation = config.environment, config.evaluate
        mine += [environment.suite, environment.tasks, environment.attempts, environment.unscored_attempts]
        mine += [evaluation.held_out_tasks, evaluation.splits]
    mine = tuple(mine)
    if played not in (None, mine):
        raise UsageError(f"{directory}: expected runs that play the same tasks and attempts, got {mine} after {played}")
    return mine


def print_report(output: Console, result: Mapping[str, Any]) -> None:
    """Print the tables of what `twohot.runs.scores.report` gave."""
    tasks = result["tasks"]
    known = [name for name in ("return", "success", "normalised") if any(name in entry for entry in tasks)]
    attempts = len(tasks[0]["attempts"]) if len(tasks[0]["attempts"]) > 1 else 0
    splits = len({entry["split"] for entry in tasks}) > 1
    rows = []
    for entry in tasks:
        name = entry["task"] + (" (held out)" if entry["kind"] == "held_out" and entry["split"] == "train" else "")
        cells = [_cell(entry.get(name)) for name in known]
        cells += [_attempt(found) for found in entry["attempts"][:attempts]]
        rows.append([name, *([entry["split"]] * splits), *cells])
    headings = ["task", *["split"] * splits, *known, *(f"attempt {attempt}" for attempt in range(1, attempts + 1))]
    title = f"{', '.join(result['runs'])}: {result['trials']} trials of each task, seed {result['seed']}"
    print_table(output, headings, rows, range(1 + splits), title=title)
    output.print(_caption(result), highlight=False, soft_wrap=True)


def _caption(result: Mapping[str, Any]) -> str:
    about = "runs and trials" if len(result["runs"]) > 1 else "trials"
    lines = [f"Mean and {result['confidence']:.0%} interval, bootstrapped over {about}."]
    for kind, found in result["summary"].items():
        if found:
            values = ", ".join(f"{name.replace('_', ' ')} {format_number(value)}" for name, value in found.items())
            lines.append(f"{kind.replace('_', ' ')}: {values}")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    mean, low, high = found["mean"], found["low"], found["high"]
    return f"{format_number(mean, max(-low, high))} ({format_interval(low, high, mean)})"


def _attempt(found: Mapping[str, Any]) -> str:
    success = f", {found['success']['mean']:.0%}" if "success" in found else ""
    return f"{format_number(found['return']['mean'])}{success}"
