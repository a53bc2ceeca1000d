"""Agents in folders and on the Hugging Face Hub: weights as safetensors, the rest as JSON, and a model card.

    config.json         configuration and spaces, and the scores that the card shows
    model.safetensors   all networks
    README.md           the card
    returns.png         returns over training, where the run is at hand

Nothing that is read is executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import twohot
from twohot.agent import AgentNetworks, Member
from twohot.agent.saved import spaces_of
from twohot.config import TrainConfig
from twohot.config.files import save_json, to_json
from twohot.errors import TwohotError
from twohot.extras import package
from twohot.files import atomic_write, parse_json, require_file
from twohot.inference.networks import build_networks
from twohot.reports.markup import markdown_table
from twohot.reports.numbers import format_number
from twohot.reports.results import Run, read_run
from twohot.runs import checkpoint

if TYPE_CHECKING:
    from twohot.inference.agent import Agent
    from twohot.inference.networks import Networks

FORMAT = 1
CONFIG, WEIGHTS, CARD, PLOT = "config.json", "model.safetensors", "README.md", "returns.png"
PLOTTED = 12
"""Tasks whose curves are drawn."""


class PretrainedError(TwohotError, ValueError):
    """A folder or repository that holds no agent, or one that cannot be read."""


def save_pretrained(agent: Agent, folder: str | Path, *, name: str = "", license: str = "") -> Path:  # noqa: A002
    """See `Agent.save_pretrained`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = _run(agent)
    scores = _scores(run) if run is not None else _kept(agent).get("scores", [])
    plot = _plot(run) if run is not None else None
    if plot is None and agent.source is not None and (agent.source / PLOT).is_file():
        plot = (agent.source / PLOT).read_bytes()
    try:
        text = card(agent, scores, name=name or folder.resolve().name, license=license, plot=plot is not None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PretrainedError(f"{agent.source}: its scores cannot be read ({error!r:.200})") from error
    with atomic_write(folder / WEIGHTS) as partial:
        save_file({key: value.cpu().contiguous() for key, value in agent.networks.state_dict().items()}, partial)
    about = {
        "library": "twohot",
        "format": FORMAT,
        "version": twohot.__version__,
        "spaces": spaces_of(agent.networks),
        "scores": scores,
        "config": to_json(agent.config),
    }
    save_json(about, folder / CONFIG)
    if plot is None:
        (folder / PLOT).unlink(missing_ok=True)  # of an agent that was here before
    else:
        with atomic_write(folder / PLOT) as partial:
            partial.write_bytes(plot)
    with atomic_write(folder / CARD) as partial:
        partial.write_text(text, encoding="utf-8")
    return folder


def push_to_hub(
    agent: Agent,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = "",
    license: str = "",  # noqa: A002
) -> str:
    """See `Agent.push_to_hub`."""
    hub = _package()
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(agent, temporary, name=repo, license=license)
        with _asking(repo):
            api = hub.HfApi(token=token)
            repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=revision,
                commit_message=message or f"An agent of twohot {twohot.__version__}",
                delete_patterns=[PLOT],  # that of an agent that was there before
            )
    return str(commit.commit_url)


def find(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of an agent: a local one, or that of a repository whose files are fetched or already there.

    Raises:
        PretrainedError: there is none. TwohotError: the package that asks the Hub is not installed.
    """
    folder = Path(source)
    if folder.is_dir():
        if (folder / "checkpoints").is_dir() and not (folder / WEIGHTS).exists():
            raise PretrainedError(f"{folder}: a run directory: Agent.from_checkpoint reads it")
        return folder
    if isinstance(source, Path) or str(source).count("/") > 1 or str(source).startswith((".", "/", "~")):
        raise PretrainedError(f"{source}: no such folder, and not the name of a repository (owner/name)")
    with _asking(str(source)):
        return Path(
            _package().snapshot_download(
                str(source), revision=revision, token=token, allow_patterns=[CONFIG, WEIGHTS, PLOT]
            )
        )


def load(folder: Path) -> tuple[TrainConfig, Networks]:
    """What `save_pretrained` wrote: the configuration, and networks on the CPU in eval mode.

    Raises:
        PretrainedError: a file is missing, corrupt, or of another format.
    """
    about = read_config(folder)
    try:
        return build_networks(about["config"], about["spaces"], load_file(require_file(folder / WEIGHTS)))
    except TwohotError:
        raise
    except (*checkpoint.MISFITS, SafetensorError, OSError) as error:
        raise PretrainedError(f"{folder}: cannot be read as an agent ({type(error).__name__}: {error})") from error


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an agent's folder. Raises PretrainedError where it is none."""
    path = folder / CONFIG
    try:
        about = parse_json(require_file(path).read_bytes(), finite=False)
        if about["library"] != "twohot":
            raise ValueError(f"of another library, {about['library']}")
        if about["format"] != FORMAT:
            raise ValueError(f"of format {about['format']}, this version reads {FORMAT}: use the one that wrote it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise PretrainedError(f"{path}: expected the configuration of an agent of twohot ({what})") from error
    return about


def card(agent: Agent, scores: Sequence[Mapping[str, Any]], *, name: str, license: str, plot: bool) -> str:  # noqa: A002
    """The model card: what the Hub reads at its head, scores, and how to run the agent."""
    about = agent.config.environment
    suites = list(dict.fromkeys(member.suite for member in _members(agent))) or [about.suite]
    tags = ["reinforcement-learning", "meta-reinforcement-learning", "twohot", *suites]
    head: dict[str, Any] = {"library_name": "twohot", "pipeline_tag": "reinforcement-learning", "tags": tags}
    if license:
        head["license"] = license
    if scores:
        head["model-index"] = [{"name": name, "results": [_result(agent, score) for score in scores]}]
    # JSON is YAML, and needs no package to be quoted rightly.
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    size = sum(value.numel() for value in agent.networks.parameters())
    attempts = f"{about.attempts} attempts in a trial, over which memory is kept" if about.attempts > 1 else ""
    facts = [
        ["tasks", f"{len(about.tasks)} of {', '.join(suites)}: {_listed(about.tasks)}"],
        ["attempts", attempts or "one in a trial"],
        ["memory", f"{agent.config.agent.memory}, {agent.config.agent.context} steps"],
        ["critic and actor", f"{agent.config.agent.critic}, {agent.config.objective.actor}"],
        ["parameters", f"{size:,}"],
        *([f"{what} ({name})" if name else what, f"`{space}`"] for name, what, space in _spaces(agent)),
        ["twohot", twohot.__version__],
    ]
    task = "" if isinstance(agent.networks, AgentNetworks) else f'.for_task("{about.tasks[0]}")'
    parts = [f"---\n{front}\n---", f"# {name}", _ABOUT, "\n".join(markdown_table(["", ""], facts)), "## Scores"]
    if scores:
        parts += ["\n".join(_score_table(scores)), _SCORES.format(trials=scores[0]["trials"])]
    else:
        parts.append("Not known: the agent was saved without its run.")
    if plot:
        parts.append(f"![Returns over training]({PLOT})")
    return "\n\n".join([*parts, "## How to run it", _RUN.format(name=name, task=task), ""])


_ABOUT = (
    "An agent with memory, trained on all of these tasks at once without being told which one it plays, by "
    "`twohot` (AMAGO-2's objective: values as classes, imitation of actions of positive advantage)."
)
_SCORES = (
    "Raw returns, means over {trials} trials of each task without exploration noise, with 95 % intervals (bootstrap); "
    "of the last evaluation of the run that trained it."
)
_RUN = """\
```
pip install "twohot[train,hub]"
```

```python
import twohot

agent = twohot.Agent.from_pretrained("{name}"){task}
environments = agent.make_environments(4)
observation, _ = environments.reset(seed=0)
agent.reset(4)
action = agent.act(observation)
```

In an environment of your own, with its raw observations: `policy = agent.wrap(env)`, then
`action = policy.act(observation, reward, ended)`.

Weights are safetensors and settings JSON: nothing in this repository is executed when it is read."""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:PLOTTED])
    return shown if len(names) <= PLOTTED else f"{shown} and {len(names) - PLOTTED} more"


def _score_table(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    success = any("success" in score for score in scores)
    rows = [
        [
            f"`{score['task']}`",
            "held out" if score["kind"] == "held_out" else "trained",
            format_number(score["return"]["mean"]),
            f"{format_number(score['return']['low'])} to {format_number(score['return']['high'])}",
            format_number(score.get("random")),
            *([format_number(score["success"]["mean"]) if "success" in score else ""] * success),
        ]
        for score in scores
    ]
    return markdown_table(["task", "", "return", "95 % interval", "random play", *["success"] * success], rows)


def _spaces(agent: Agent) -> Iterator[tuple[str, str, Any]]:
    """What an agent sees and does, by domain where there are several."""
    networks = agent.networks
    for name, member in ({"": networks} if isinstance(networks, AgentNetworks) else networks.each()).items():
        yield name, "sees", member.observation_space
        yield name, "does", member.action_space


def _members(agent: Agent) -> list[Member]:
    """What the domains of an agent are for; none where it has one."""
    networks: Any = agent.networks
    return [] if isinstance(networks, AgentNetworks) else list(networks.about.values())


def _result(agent: Agent, score: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the Hub's model-index."""
    suite, task = agent.config.environment.suite, score["task"]
    for member in _members(agent):
        if task in member.tasks:
            suite, task = member.suite, task.removeprefix(f"{member.suite}:")
            break
    value = score["return"]
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement learning"},
        "dataset": {"type": suite, "name": f"{suite} {task}", "split": score["split"]},
        "metrics": [{"type": "mean_reward", "name": "mean return of a trial", "value": value["mean"]}],
    }


def _run(agent: Agent) -> Run | None:
    """The run that the agent was read from; None for a checkpoint, whose scores nobody has measured."""
    if agent.source is None or not (agent.source / "checkpoints").is_dir():
        return None
    return read_run(agent.source)


def _kept(agent: Agent) -> dict[str, Any]:
    """What the folder says that the agent was read from."""
    if agent.source is None or not (agent.source / CONFIG).is_file() or not (agent.source / WEIGHTS).is_file():
        return {}
    return read_config(agent.source)


def _scores(run: Run) -> list[dict[str, Any]]:
    """Of each task in the run's last whole evaluation, what the card shows."""
    found = []
    for task in run.evaluation.get("tasks", []):
        random = run.last(f"random/return/{task['task']}")
        score = {key: task[key] for key in ("task", "split", "kind", "return", "success", "normalised") if key in task}
        score["trials"] = run.evaluation["trials"]
        found.append({**score, **({} if random is None or not math.isfinite(random) else {"random": random})})
    return found


def _plot(run: Run) -> bytes | None:
    """Returns of each task over training as a PNG; None where none was logged."""
    import io

    from matplotlib.figure import Figure

    from twohot.reports import figures, pictures
    from twohot.reports.palette import AGENT, RANDOM

    tasks = run.tasks("evaluation/return/{task}")[:PLOTTED]
    if not tasks:
        return None
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.2 * rows), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        pictures.style(axes, "environment steps", 4)
        steps, returns = run.series(f"evaluation/return/{task}", "environment_steps")
        errors = run.errors(f"evaluation/return/{task}", f"evaluation/return_std_error/{task}")
        lines = [figures.Line(steps, returns, AGENT, errors, marker=True)]
        random = run.last(f"random/return/{task}")
        if random is not None:
            lines.append(figures.Line([0, steps[-1]], [random, random], RANDOM, dashed=True, width=1.2))
        pictures.draw_lines(axes, lines, figures.MAX_LINE[3])
        axes.set_title(task.replace("$", r"\$"), fontsize=9, loc="left")
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _package() -> Any:
    return package("huggingface_hub", "hub", "the Hub")


@contextmanager
def _asking(repo: str) -> Iterator[None]:
    """Within, what the Hub or the way to it answers is a PretrainedError that names the repository."""
    try:
        yield
    except TwohotError:
        raise
    except Exception as error:  # its package raises a dozen kinds, of which one is no common base
        what = " ".join(str(error).split())
        raise PretrainedError(f"{repo}: the Hub said: {type(error).__name__}: {what}") from error
