"""Write the tables of README.md, docs/results.md and docs/learner.md from bench/results/*.csv.

python bench/readme.py           # rewrite what stands between <!-- table:NAME --> and <!-- end -->
python bench/readme.py --check   # change nothing; exit 1 where a table is not what the results say
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"

Record = dict[str, str]


def read(name: str) -> list[Record]:
    """The rows of one results file.

    Raises:
        SystemExit: where there is none, or it holds a failure: a README has no place for either.
    """
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        raise SystemExit(f"{path}: no results; write them with: python bench/run.py {name.split('_', maxsplit=1)[0]}")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    failed = [row for row in rows if row.get("mode") == "failed" or row["gate"] != "passed"]
    if failed:
        raise SystemExit(f"{path}: a case or its tests failed, or were skipped: {next(iter(failed[0].values()))}")
    return rows


def conditions(row: Record) -> str:
    """What the figures depend on, in one line."""
    return f"{row['cpu']}, torch {row['torch']}, Python {row['python']}, commit {row['commit']}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table, first column left, the others right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def quickstart() -> list[str]:
    """Each task's return for each seed beside random's, and whether the margin is outside the spread of the seeds."""
    records = read("quickstart_returns")
    seeds = sorted({row["seed"] for row in records})
    body, beaten = [], 0
    tasks = list(dict.fromkeys(row["task"] for row in records))
    for task in tasks:
        mine = {row["seed"]: row for row in records if row["task"] == task}
        agent = [float(mine[seed]["agent_return"]) for seed in seeds]
        random = [float(mine[seed]["random_return"]) for seed in seeds]
        spread = max(stdev(agent), stdev(random))
        margin = mean(agent) - mean(random)
        better = margin > 2 * spread and min(agent) > max(random)
        beaten += better
        body.append(
            [
                task,
                f"x {float(mine[seeds[0]]['multiplier']):g}",
                *(f"{value:.2f}" for value in agent),
                f"{mean(random):.2f}",
                f"{margin:+.2f}",
                f"{spread:.2f}",
                "yes" if better else "no",
            ]
        )
    head = ["task", "reward", *(f"seed {seed}" for seed in seeds), "random", "margin", "spread", "beats random"]
    return [
        *table(head, body),
        "",
        f"Raw returns, {records[0]['trials']} trials each, without exploration noise. *Margin*: mean less random's. "
        "*Spread*: standard deviation over the three seeds (the larger of the agent's and random's). A task counts as "
        f"beaten where the margin exceeds twice the spread and the worst seed exceeds random's best: {beaten} of "
        f"{len(tasks)}. {conditions(records[0])}; `python bench/run.py quickstart`.",
    ]


HEADLINES = (
    ("loss, value and gradient, 172,032 x 128 logits", "losses", "two-hot: loss, gradient, readout", "twohot"),
    ("a batch of 24 windows of 256 steps, vectors", "replay", "S1, B 24", "twohot in memory"),
    ("the same, images", "replay", "S2, B 24", "twohot in memory"),
    (
        "attention, 24 x 256 steps, both passes",
        "attention",
        "training: float32, 24 x 256 steps, 8 heads of 32",
        "twohot",
    ),
    ("a policy's step with its memory, 16 actors", "attention", "whole cached step: 16 environments", "twohot"),
    ("a learner's step, 8 x 128 steps", "learner", "step: B 8 L 128 G 7 C 4, 6 actions", "twohot"),
    ("a learner's step, 24 x 256 steps", "learner", "step: B 24 L 256 G 7 C 4, 6 actions", "twohot"),
    ("collecting with 16 actors", "rollout", "collecting, 16 actors, width 128 x 3", "twohot"),
)
"""What the README shows: its words, the group, the case, and which provider is ours."""
OWN_FORMS = ("twohot", "copy", "C gather", "the products", "numpy", "plain PyTorch")
"""How providers begin that are no peer: ours, limits, and plain baselines in our lines."""


def summary() -> list[str]:
    """What each part takes beside the official code and beside the best of the others, and how many goals are met."""
    head = ["", "unit", "twohot", "official AMAGO", "best of the others"]
    body = []
    for words, group, case, name in HEADLINES:
        own = {
            row["provider"]: row
            for row in read(group)
            if row["case"] == case and row["unit"] and row["mode"] != "as is" and row["threads"] == "2"
        }
        if name not in own:
            continue
        best = max if own[name]["unit"].endswith("/s") else min
        cells = []
        for official in (True, False):
            found = [row for at, row in own.items() if at.startswith("official") is official and not _ours(at)]
            cells.append(best(found, key=lambda row: float(row["p50"])) if found else None)
        official, other = cells
        named = "" if other is None else f"{_cell(other, 'p50')} ({re.split(r', | [0-9]', other['provider'])[0]})"
        body.append([words, own[name]["unit"], _cell(own[name], "p50"), _cell(official or {}, "p50"), named])
    goals = []
    for name in ("losses", "replay", "attention", "learner", "rollout", "environments"):
        rows = [row for row in read(name) if row["case"] == "goal"]
        met = sum(row["met"] == "yes" for row in rows)
        goals.append(f"[{name}](docs/results.md) {met} of {len(rows)}")
    return [
        *table(head, body),
        "",
        "Medians on two threads of a shared CPU, huge pages for everybody; of steps/s, more is better. Goals that were "
        f"set beforehand and are met: {', '.join(goals)}.",
    ]


def _ours(provider: str) -> bool:
    return provider.startswith(OWN_FORMS)


def figures(*names: str) -> Callable[[], list[str]]:
    """Median and percentiles of every row of some results files."""

    def write() -> list[str]:
        records = [row for name in names for row in read(name)]
        goals = [row for row in records if row["case"] == "goal"]
        records = [row for row in records if row["case"] != "goal" and row["unit"]]
        body = [_figure(row) for row in records]
        head = ["what", "median", "p20 to p80", "unit", "against"]
        shapes = dict.fromkeys(f"{row['case']}: {row['shape']}" for row in records if row["shape"])
        about = "; ".join(dict.fromkeys(conditions(row) for row in records))
        threads = " or ".join(sorted({row["threads"] for row in records}))
        note = f"Threads of torch: {threads}. {'; '.join(shapes)}. {about}. `python bench/run.py {' '.join(names)}`."
        asked = ["Goals:", "", *_goals(goals), ""] if goals else []
        return [*table(head, body), "", *asked, note]

    return write


def losses() -> list[str]:
    """A table for each contest of the losses, and one of the goals."""
    records = read("losses")
    goals = [row for row in records if row["case"] == "goal"]
    contests = [row for row in records if row["case"] != "goal"]
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in contests):
        mine = [row for row in contests if row["case"] == case]
        about = next(row for row in mine if row["unit"])
        lines += [f"**{case}** ({about['shape']}), in {about['unit']}:", "", *_contest(mine), ""]
    lines += ["Goals, with 2 threads:", "", *_goals(goals), ""]
    return [
        *lines,
        "Medians of calls in turn, in one process; each call ends with its results released. Two threads and huge "
        "pages for everybody (`THP_MEM_ALLOC_ENABLE=1`) where a column does not say otherwise. *Extra MB*: resident "
        "memory at the peak beyond the inputs, the gradient included (for the last layer: without loss and gradients, "
        "which all return), on two threads without huge pages. Before any time is taken, loss, readout and gradient of "
        "each alternative must agree with twohot's to 1e-4; torchrl, which interpolates between values, is held equal "
        "on linear bins, hl-gauss-pytorch on targets inside its bins. The official AMAGO chain and the "
        "DreamerV3-torch distribution are written in our own lines with the same tensors. "
        f"{conditions(records[0])}. `python bench/run.py losses`.",
    ]


def replay() -> list[str]:
    """A table for each set of trajectories and batch size, one of what else a replay costs, and one of the goals."""
    if not (RESULTS / "replay.csv").exists():
        return ["Not measured yet: `python bench/run.py replay`."]
    records = read("replay")
    goals = [row for row in records if row["case"] == "goal"]
    measured = [row for row in records if row["case"] != "goal"]
    contests = [row for row in measured if row["unit"] == "ms"]
    others = [row for row in measured if row["unit"] != "ms"]
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in contests):
        mine = [row for row in measured if row["case"] == case]
        about = next(row for row in mine if row["unit"])
        lines += [f"**{case}** ({about['shape']}):", ""]
        lines += [*table(["who", "ms", "p20 to p80", "x twohot", f"x {about['limit']}", "GB/s"], _windows(mine)), ""]
    head = ["what else", "median", "p20 to p80", "unit", "against"]
    lines += [*table(head, [_figure(row) for row in others if row["unit"]]), "", "Goals:", "", *_goals(goals), ""]
    shapes = dict.fromkeys(f"{row['case']}: {row['shape']}" for row in others if row["shape"])
    return [
        *lines,
        f"Two threads; medians of calls in turn, in one process. {'; '.join(shapes)}. Before any time is taken, the "
        "windows of each must be consecutive rows of what was stored. *GB/s*: a batch of whole windows, read and "
        "written. The C gather draws nothing and knows every address; twohot also derives previous action and reward, "
        "time and mask, and so does the gather. cpprb's chunks start nowhere else and are not masked; windows of "
        "DreamerV3's replay cross ends. The official AMAGO dataset and DreamerV3's replay are written in our own lines "
        f"with the same bytes. {conditions(records[0])}. `python bench/run.py replay`.",
    ]


def learner() -> list[str]:
    """A row for each piece of work, ours beside the official code's; then the goals."""
    records = [row for row in read("learner") if row["case"] == "goal" or row["case"].startswith("step:")]
    if not records:
        return ["Not measured yet: `python bench/run.py learner`."]
    goals = [row for row in records if row["case"] == "goal"]
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] != "goal":
            cases.setdefault(row["shape"] or row["case"], {})[row["provider"]] = row
    names = ("twohot", "twohot, bfloat16", "official, eager", "official, compiled")
    head = ["a step, in ms", *names, "GFLOP/s", "MB", "official MB"]
    body = []
    for shape, own in cases.items():
        times = [_cell(own.get(name, {}), "p50") for name in names]
        ours, eager = own.get("twohot", {}), own.get("official, eager", {})
        body.append([shape, *times, _cell(ours, "rate"), _cell(ours, "extra_mb"), _cell(eager, "extra_mb")])
    return [
        *table(head, body),
        "",
        "Goals:",
        "",
        *_goals(goals),
        "",
        "Width 256, 3 layers, 8 heads, 128 bins, one sampled action for the target and three for the advantage, on the "
        "same random batch without padding; AdamW, clipping and target update included. Medians of steps of processes "
        "in turn; two threads, huge pages for everybody. *MB*: resident memory at the peak of a step beyond the "
        "libraries. *GFLOP/s*: products of the factored form over the time. `docs/official.md` says how the official "
        f"code is set up. {conditions(records[0])}. `python bench/run.py learner`.",
    ]


def environments() -> list[str]:
    """A row for each benchmark: bare, as trials, and into replay; and the goals."""
    if not (RESULTS / "environments.csv").exists():
        return ["Not measured yet: `python bench/run.py environments`."]
    records = read("environments")
    goals = [row for row in records if row["case"] == "goal"]
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] not in ("goal", "ML45"):
            cases.setdefault(row["case"], {})[row["provider"]] = row
    wrapped, replayed = "wrapped environments", "uniform policy and replay"
    threads = max(int(row["threads"]) for row in records)
    body = []
    for case, own in cases.items():
        bare = _cell(own["bare environments in a loop"], "p50")
        cells = [_cell(own[name], key) for name in (wrapped, replayed) for key in ("p50", "share_of_limit")]
        body.append([case, bare, *cells])
    return [
        *table(["environment steps/s", "bare", "trials", "x bare", "into replay", "x bare"], body),
        "",
        "Goals:",
        "",
        *_goals(goals),
        "",
        "16 actors in one process with random actions, medians of rounds in turn. *Bare*: the benchmark's own "
        "environments in a loop, without any wrapper. *Trials*: attempts, padding and context features; Procgen's "
        f"games are played by {threads} threads then, bare by one. *Into replay*: "
        "a rollout with the uniformly random policy, previous action and reward, stored. "
        f"{conditions(records[0])}. `python bench/run.py environments`.",
    ]


def versus() -> list[str]:
    """For each task, who got how much in which attempt after which training; and the goals."""
    groups = [group for group in ("frozen_lake", "dark_key") if (RESULTS / f"{group}.csv").exists()]
    records = [row for group in groups for row in read(group)]
    if not records:
        return ["Not measured yet: `python bench/run.py frozen_lake dark_key`."]
    goals = [row for row in records if row["case"] == "goal"]
    measured = [row for row in records if row["case"] != "goal"]
    lines: list[str] = []
    for task in dict.fromkeys(row["case"] for row in measured):
        own = [row for row in measured if row["case"] == task]
        modes = list(dict.fromkeys(row["mode"] for row in own if row["unit"]))
        body = []
        for provider in dict.fromkeys(row["provider"] for row in own):
            found = {row["mode"]: row for row in own if row["provider"] == provider}
            missing = next((mode for mode, row in found.items() if not row["unit"]), "")
            name = f"{provider}: {missing}" if missing else f"{provider} ({next(iter(found.values()))['shape']})"
            body.append([name, *(_cell(found.get(mode, {}), "p50") for mode in modes)])
        head = [mode.removeprefix("attempt ") for mode in modes]
        lines += [f"**{task}**, return by attempt:", "", *table(["who", *head], body), ""]
    return [
        *lines,
        "Goals:",
        "",
        *_goals(goals),
        "",
        "Medians over seeds; returns without exploration noise. The attempts of Dark-Key-To-Door are tenths of a "
        "trial. *Training* is in seconds on the preset's threads, evaluations included; "
        "the official code, with the preset's sizes and constants, gets as many. `docs/official.md` says how it is set "
        f"up and what differs. {conditions(records[0])}. `python bench/run.py frozen_lake dark_key`.",
    ]


def profile() -> list[str]:
    """The parts of a step: time, share, products and rate, in both precisions."""
    records = [row for row in read("learner") if row["case"] == "where the time goes"]
    if not records:
        return ["Not measured yet: `python bench/run.py learner`."]
    body = []
    for part in dict.fromkeys(row["provider"] for row in records):
        own = {row["mode"]: row for row in records if row["provider"] == part}
        first = own["float32"]
        flops = float(first["rate"]) * float(first["p50"]) / 1e3 if first["rate"] else None
        cells = [part, "" if flops is None else _number(str(flops))]
        for row in own.values():
            cells += [_number(row["p50"]), f"{100 * float(row['share_of_limit']):.0f} %", _cell(row, "rate")]
        body.append(cells)
    head = ["part", "GFLOP", "float32, ms", "share", "GFLOP/s", "bfloat16, ms", "share", "GFLOP/s"]
    note = f"{records[0]['shape'].removesuffix(', float32')}; two threads. {conditions(records[0])}."
    return [*table(head, body), "", note]


def _windows(rows: list[Record]) -> list[list[str]]:
    """Each provider's time for a batch; one that could not be measured says so."""
    body = []
    for row in rows:
        if not row["unit"]:
            body.append([row["provider"], row["mode"], *[""] * 4])
            continue
        spread = f"{_number(row['p20'])} to {_number(row['p80'])}"
        shares = [_cell(row, key) for key in ("times_ours", "share_of_limit", "rate")]
        body.append([row["provider"], _number(row["p50"]), spread, *shares])
    return body


def _figure(row: Record) -> list[str]:
    """A row of any results file: what, median, percentiles, unit, and against what."""
    against = f"{float(row['share_of_limit']):.2g} x {row['limit']}" if row["share_of_limit"] else ""
    spread = f"{_number(row['p20'])} to {_number(row['p80'])}"
    return [f"{row['case']}: {row['provider']}", _number(row["p50"]), spread, row["unit"], against]


def attention() -> list[str]:
    """One row for each shape of one-step attention and of training, and how many goals are met."""
    if not (RESULTS / "attention.csv").exists():
        return ["Not measured yet: `python bench/run.py attention`."]
    records = read("attention")
    cases: dict[str, dict[str, Record]] = {}
    for row in records:
        if row["case"] != "goal":
            cases.setdefault(row["case"], {})[row["provider"]] = row
    spread, padded = "twohot, lengths spread evenly", "twohot, half of it padding"
    kinds = {
        "one step": (
            ["one step, in us", "twohot", "x reading", "SDPA", "official", "lengths spread", "SDPA, masked"],
            ("torch SDPA", "official attention, in our lines", spread, "torch SDPA, masked"),
        ),
        "training": (
            ["forward and backward pass, in ms", "twohot", "x products", "SDPA", "half padding"],
            ("torch SDPA", padded),
        ),
        "whole cached step": (["whole cached step, in us", "twohot", "official"], ("official step, in our lines",)),
    }
    lines: list[str] = []
    for kind, (head, others) in kinds.items():
        body = []
        for case, own in cases.items():
            if not case.startswith(f"{kind}:"):
                continue
            cells = [case.split(": ", 1)[1], _cell(own["twohot"], "p50")]
            cells += [_cell(own["twohot"], "share_of_limit")] * (kind != "whole cached step")
            body.append([*cells, *(_cell(own.get(name, {}), "p50") for name in others)])
        lines += [*table(head, body), ""]
    memory = [f"{name} {_cell(row, 'extra_mb')} MB" for name, row in cases.get("peak memory of training", {}).items()]
    if memory:
        lines += [f"Peak memory of training (2 windows, 8 heads of 64, float32): {', '.join(memory)}.", ""]
    goals = [row for row in records if row["case"] == "goal"]
    missed = [
        f"{row['provider']} ({_number(row['p50'])}, asked for {row['target']})" for row in goals if row["met"] == "no"
    ]
    lines += [f"Goals met: {sum(row['met'] == 'yes' for row in goals)} of {len(goals)}.", ""]
    lines += ["Missed: " + "; ".join(missed) + ".", ""] * bool(missed)
    cold = "Before each single step, 64 MB of other memory pass through the processor's caches, as in a rollout. "
    return [
        *lines,
        "Medians of calls in turn, in one process, two threads, huge pages for everybody. "
        f"{cold * any('cold' in row['mode'] for row in records)}Before any time is taken, "
        "outputs and gradients must agree with twohot's to 1e-4 (bfloat16: 3e-2), but for the official steps, whose "
        "windows roll in another way. The official code is written in our own lines with the same tensors. "
        f"{conditions(records[0])}. `python bench/run.py attention`.",
    ]


def _contest(rows: list[Record]) -> list[str]:
    """Each provider's time on two threads with huge pages, on one thread, and without huge pages."""
    limit = next((row["limit"] for row in rows if row["limit"]), "")
    extra = any(row["extra_mb"] for row in rows)
    ours = any(row["times_ours"] for row in rows)
    head = ["who", "2 threads", *["x twohot"] * ours, *[f"x {limit}"] * bool(limit)]
    head += ["1 thread", "no huge pages", *["x twohot"] * ours, *["extra MB"] * extra]
    body = []
    for provider in dict.fromkeys(row["provider"] for row in rows):
        own = {(row["mode"], row["threads"]): row for row in rows if row["provider"] == provider}
        main, single, plain = (own.get(key, {}) for key in (("huge pages", "2"), ("huge pages", "1"), ("as is", "2")))
        if not main:
            body.append([provider, next(iter(own))[0], *[""] * (len(head) - 2)])
            continue
        cells = [provider, _cell(main, "p50"), *[_cell(main, "times_ours")] * ours]
        cells += [_cell(main, "share_of_limit")] * bool(limit)
        cells += [_cell(single, "p50"), _cell(plain, "p50"), *[_cell(plain, "times_ours")] * ours]
        body.append([*cells, *[_cell(main, "extra_mb")] * extra])
    return table(head, body)


def _goals(rows: list[Record]) -> list[str]:
    """What was asked for and what was measured, and how many goals are met."""
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    body, met = [], dict.fromkeys(modes, 0)
    for goal in dict.fromkeys(row["provider"] for row in rows):
        own = {row["mode"]: row for row in rows if row["provider"] == goal}
        cells = []
        for mode in modes:
            row = own[mode]
            met[mode] += row["met"] == "yes"
            measured = row["met"] != "not measured"
            cells += [f"{_number(row['p50'])} {row['unit']}" if measured else "", row["met"]]
        first = next(iter(own.values()))
        body.append([goal, f"{first['target']} {first['unit']}", *cells])
    head = ["goal", "asked for", *(cell for mode in modes for cell in (mode, "met"))]
    count = "; ".join(f"{met[mode]} of {len(body)} {mode if mode == 'as is' else 'with ' + mode}" for mode in modes)
    return [*table(head, body), "", f"Met: {count}."]


def _cell(row: Record, key: str) -> str:
    return _number(row[key]) if row.get(key) else ""


def _number(text: str) -> str:
    value = float(text)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


TABLES = {
    "quickstart": quickstart,
    "summary": summary,
    "speed": figures("rollout", "quickstart"),
    "learner": learner,
    "profile": profile,
    "losses": losses,
    "replay": replay,
    "attention": attention,
    "environments": environments,
    "versus": versus,
}


README = ("quickstart", "versus", "summary")
PLACES = {"profile": ROOT / "docs" / "learner.md", **dict.fromkeys(README, ROOT / "README.md")}
"""Where tables stand that are not in docs/results.md."""


def main() -> int:
    texts: dict[Path, str] = {}
    for name, write in TABLES.items():
        path = PLACES.get(name, ROOT / "docs" / "results.md")
        text = texts.get(path) or path.read_text()
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            print(f"{path.name}: no place for the table {name!r} (expected <!-- table:{name} --> ... <!-- end -->)")
            return 1
        start, end = (pattern.search(text).span(group) for group in (1, 2))
        texts[path] = text[: start[1]] + "\n" + "\n".join(write()) + "\n\n" + text[end[0] :]
    changed = [path for path, text in texts.items() if path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in changed:
            print(f"{path.name}: a table is not what bench/results says; run: make readme")
        return int(bool(changed))
    for path in changed:
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
