"""Settings compared over seeds: the numbers on the page, what is missing on it, and where its rows come from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from bench import readme
from pages import Page, assert_drawn, assert_self_contained
from small import CONFIG
from twohot.cli import main as cli
from twohot.config import EnvironmentConfig
from twohot.config.files import save_config
from twohot.errors import TwohotError, UsageError
from twohot.runs.metrics import MetricsWriter
from twohot.studies import comparison_figures
from twohot.studies.comparison import Comparison, Measured
from twohot.studies.comparison_page import write_comparison, write_figure
from twohot.studies.comparison_sources import comparison_of_runs, comparison_of_study
from twohot.studies.comparison_tables import (
    aggregates_table,
    attempts_table,
    differences_table,
    interval,
    markdown,
    settings_table,
    shown_attempts,
    tasks_table,
)
from twohot.studies.rows import StudyRow, add_rows
from twohot.studies.statistics import Estimate
from twohot.studies.study import load_study

HOSTILE = "<script>alert(1)</script>\"'&<img src=http://evil.example/x> $\\frac{$ | `"
STUDY = """
summary = "Nothing is learnt."
preset = "quickstart"
seeds = [1, 2, 3]
[options.environment]
tasks = ["RepeatFirstEasy", "RepeatPreviousEasy"]
reward_multipliers = []
[settings.two_hot]
[settings.scalar]
agent.critic = "scalar"
[best]
RepeatFirstEasy = 1.0
RepeatPreviousEasy = 1.0
"""


def row(setting, seed, task, return_, step=100, **others) -> StudyRow:
    others = {"kind": "evaluation", "attempt": None, "success": None, **others}
    about = {"updates": step // 10, "seconds": 3600.0, "std_error": None, "trials": 4}
    return StudyRow(
        setting, seed, step, task=task, return_=return_, digest="", commit="c0ffee", processor="CPU", **about, **others
    )


def rows_of(setting, by_task, steps=(50, 100), **others):
    """Rows of runs whose returns at the last step are given by task, seed by seed from 1 on; half of them before."""
    return [
        row(setting, seed, task, return_ * step / steps[-1], step, **others)
        for task, returns in by_task.items()
        for seed, return_ in enumerate(returns, start=1)
        for step in steps
    ]


def random(by_task, seeds=(1, 2)):
    return [row("random", seed, task, value, 0, kind="random") for task, value in by_task.items() for seed in seeds]


ROWS = [
    *random({"maze": 0.0, "cave": 10.0}),
    *rows_of("first", {"maze": [10.0, 8.0], "cave": [16.0, 14.0]}),
    *rows_of("second", {"maze": [2.0, 4.0], "cave": [19.0, 21.0]}),
]
COMPARISON = Comparison(
    "two <settings>",
    "Which & why?",
    ROWS,
    {"first": {"agent.bins": 1, "width": 3}, "second": {"agent.bins": 2, "width": 3}},
    {"maze": 10.0, "cave": 20.0},
    seeds=(1, 2),
    facts={"preset": "of <mine>"},
)


def texts(found):
    """Cells of a table as text."""
    return [[cell if isinstance(cell, str) else cell.text for cell in line] for line in found.rows]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page with everything: hostile names, attempts, what was held out, successes, a seed that is missing."""
    settings = {HOSTILE: {"option": HOSTILE}, **{f"setting {n}": {"option": n} for n in range(6)}}
    generator = np.random.default_rng(0)
    rows = random({"maze": 0.0, HOSTILE: 1.0})
    for setting in settings:
        returns = {task: generator.uniform(2, 9, 3) for task in ("maze", HOSTILE)}
        rows += rows_of(setting, returns, (50, 100, 150), success=0.5)
        rows += rows_of(setting, {"new maze": returns["maze"] / 2}, kind="held_out")
        for attempt in (1, 2, 3):
            rows += rows_of(setting, {"maze": attempt * returns["maze"] / 6}, attempt=attempt)
    best = {"maze": 10.0, HOSTILE: 10.0}
    comparison = Comparison(f"all of {HOSTILE}", HOSTILE, rows, settings, best, seeds=(1, 2, 3, 4))
    return write_comparison(comparison, tmp_path_factory.mktemp("page") / "new" / "page.html")


def test_aggregates_by_hand():
    """Scores 1 .6, .8 .4 and .2 .9, .4 1.1: of four, the interquartile mean is that of the middle two."""
    measured = Measured(COMPARISON)
    assert np.allclose(measured.scores["first"], [[1.0, 0.6], [0.8, 0.4]], rtol=0, atol=1e-15)
    found = texts(aggregates_table(measured))
    # runs, interquartile mean, mean, median, optimality gap, tasks learnt
    assert found[0] == ["first", "2", "0.70", "0.70", "0.70", "0.30", "1.50"]
    assert found[1] == ["second", "2", "0.65", "0.65", "0.65", "0.38", "1.00"]


def test_attempts_by_hand():
    """Of the held-out maze; `alone` has trials of one attempt, so the same return at each."""
    rows = random({"maze": 1.0})
    rows += [row("random", 1, "maze", 1.0 * number, 0, kind="random", attempt=number) for number in (1, 2)]
    rows += rows_of("several", {"maze": [6.0, 9.0]}, kind="held_out")
    for number, returns in ((1, [2.0, 4.0]), (2, [5.0, 6.0])):
        rows += rows_of("several", {"maze": returns}, kind="held_out", attempt=number)
    rows += rows_of("alone", {"maze": [3.0, 3.5]}, kind="held_out")
    measured = Measured(Comparison("", "", rows, {"several": {}, "alone": {}}))
    assert measured.held_out_or_evaluation == "held_out"
    found = attempts_table(measured, "held_out", "maze")
    assert found.headings == ["setting", "attempt 1", "attempt 2", "last over first", "last over several"]
    assert texts(found) == [
        ["several", "3.00", "5.50", "+2.50", ""],
        ["alone", "3.25", "3.25", "0", "\N{MINUS SIGN}2.25"],
        ["uniformly random policy", "1.00", "2.00", "", ""],
    ]
    assert found.rows[0][-2].small == "2.00 to 3.00"
    assert found.rows[1][-1].small == "\N{MINUS SIGN}2.50 to \N{MINUS SIGN}2.00"
    single = replace(measured.comparison, settings={"several": {}})
    assert attempts_table(Measured(single), "held_out", "maze").headings[-1] == "last over first"
    lines = markdown(measured)
    assert lines.index("What was held out:") < lines.index("Return by attempt, maze, held out:")
    assert lines[lines.index("Return by attempt, maze, held out:") + 2 :][:3] == found.markdown()[:3]


def test_long_names_of_tasks_do_not_run_into_each_other():
    rows = []
    tasks = [f"a-task-whose-name-says-all-that-differs-{number}" for number in range(4)]
    for number in (1, 2):
        rows += rows_of("first", {task: [1.0, 2.0] for task in tasks}, kind="held_out", attempt=number)
    drawn = comparison_figures.summary_figure(Measured(Comparison("", "", rows, {"first": {}})))
    drawn.canvas.draw()
    texts = [text for part in drawn.subfigs for axes in part.axes for text in axes.findobj(Text)]
    titles = [text for text in texts if text.get_text().startswith("a-task")]
    assert ["".join(text.get_text().split("\n")) for text in titles] == tasks
    boxes = [text.get_window_extent() for text in titles]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_figure_has_a_panel_for_each_task_with_attempts():
    rows = [*ROWS]
    for number in (1, 2, 3):
        rows += rows_of("first", {"maze": [number / 3, number / 2]}, attempt=number)
    drawn = comparison_figures.summary_figure(Measured(replace(COMPARISON, rows=rows)))
    panels = [axes for part in drawn.subfigs for axes in part.axes]
    assert [axes.get_xlabel() for axes in panels][-1] == "attempt"
    assert len(panels) == 3
    (line,) = [line for line in panels[-1].lines if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"][:1]
    np.testing.assert_allclose(line.get_ydata(), [5 / 12, 5 / 6, 5 / 4])
    assert (
        len([axes for part in comparison_figures.summary_figure(Measured(COMPARISON)).subfigs for axes in part.axes])
        == 2
    )


def test_differences_by_hand():
    """The first wins all pairs on the maze and none in the cave; means differ by .05, tasks learnt by .5."""
    ((first, second, probability, mean, learnt),) = differences_table(Measured(COMPARISON)).rows
    assert (first, second) == ("first", "second")
    assert (probability.text, mean.text, learnt.text) == ("0.50", "+0.05", "+0.50")
    assert (mean.small, learnt.small) == (
        "\N{MINUS SIGN}0.15 to 0.25",
        "0.00 to 1.00",
    )  # of seed 1: .25, 1; of 2: -.15, 0


def test_tasks_by_hand():
    found = tasks_table(Measured(COMPARISON))
    assert found.headings == ["task", "setting", "return", "score", "each run"]
    assert texts(found)[:3] == [
        ["maze", "first", "9.00", "0.90", ""],
        ["", "second", "3.00", "0.30", ""],
        ["", "uniformly random policy", "0", "", ""],
    ]
    assert found.rows[0][-1].small == "10.0, 8.00"
    assert found.rows[0][2].small == "8.00 to 10.0"  # of two runs


def test_curves_are_means_over_runs_and_tasks_at_every_step():
    measured = Measured(COMPARISON)
    curve = measured.curve("first", "evaluation", "maze")
    assert (curve.steps, curve.mean) == ([50, 100], [4.5, 9.0])
    assert curve.band == ([4.0, 8.0], [5.0, 10.0])
    scores = measured.score_curve("first")
    assert scores.mean == pytest.approx([(0.5 + 0.4 - 0.2 - 0.3) / 4, 0.7], rel=1e-12)


def test_runs_at_different_steps_are_drawn_by_the_line_between_their_evaluations():
    rows = [row("a", 1, "maze", value, step) for step, value in ((100, 0.0), (200, 1.0), (300, 2.0))]
    rows += [row("a", 2, "maze", value, step) for step, value in ((100, 0.0), (210, 1.1))]
    curve = Measured(Comparison("", "", rows, {"a": {}})).curve("a", "evaluation", "maze")
    assert curve.steps == [100, 200, 210, 300]
    assert curve.mean == pytest.approx([0.0, 1.0, 1.1, 2.0], rel=1e-12)
    assert curve.band is not None
    assert (curve.band[0][-1], curve.band[1][-1]) == (2.0, 2.0)  # the other run has not come so far


def test_steps_that_hardly_differ_are_one_point():
    rows = [row("a", seed, "maze", float(seed + step // 1000), step + seed) for seed in (1, 3) for step in (1000, 2000)]
    curve = Measured(Comparison("", "", rows, {"a": {}})).curve("a", "evaluation", "maze")
    assert curve.steps == [1003, 2003]
    assert curve.mean == pytest.approx([(2 + 2 / 1000 + 4) / 2, 4.0], rel=1e-12)


def test_differences_are_paired_by_seed():
    """Seeds 2 and 3 in common, in whichever order rows come; each is better by 1/8 in numbers that are exact."""
    rows = [*random({"maze": 0.0}), *[row("a", seed, "maze", seed / 4 + 1 / 8) for seed in (3, 1, 2)]]
    rows += [row("b", seed, "maze", seed / 4) for seed in (2, 3, 4)]
    measured = Measured(Comparison("", "", rows, {"a": {}, "b": {}}, {"maze": 1.0}))
    mean = differences_table(measured).rows[0][3]
    assert (mean.text, mean.small) == ("+0.12", "0.12 to 0.12")
    alone = Measured(
        replace(measured.comparison, rows=[each for each in rows if (each.setting, each.seed) != ("b", 2)])
    )
    assert alone.runs["b"] == [3, 4]
    low, _, high = differences_table(alone).rows[0][3].small.partition(" to ")
    assert low != high


def test_the_page_says_what_was_compared(full, tmp_path):
    text = Page(write_comparison(COMPARISON, tmp_path / "page.html")).text
    for fact in ("two <settings>", "Which & why?", "of <mine>", "c0ffee", "4.0", "agent.bins", "tasks learnt, of 2"):
        assert fact in text
    assert "width" not in text
    assert "What is missing" not in text
    assert "a single attempt" in text
    complete = Page(full).text
    for fact in ("What is missing", "no rows of seed 4", "What was held out", "attempt 3", "50%"):
        assert fact in complete
    assert 'class="missing"' not in full.read_text()


def test_hostile_names_are_text_and_no_number_is_missing(full):
    page = Page(full)
    assert (page.count("script"), page.count("img")) == (1, 0)
    assert page.text.count(HOSTILE) >= 6
    assert not re.search(r"\b(nan|inf)\b", page.text, re.IGNORECASE)
    assert not re.search(r"\b(nan|inf)\b", full.read_text(), re.IGNORECASE)


def test_the_page_needs_nothing_else(full):
    assert_self_contained(full)


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_a_browser_without_a_network_draws_every_plot(full, tmp_path, scheme, width):
    # scores, 2 tasks, attempts of 1, what was held out, profiles
    assert_drawn(full, tmp_path, scheme, width, figures=5, plots=6)


def test_settings_can_be_told_apart(full):
    shown = comparison_figures.looks(Measured(Comparison("", "", [], {str(n): {} for n in range(20)})))
    assert len(set(shown.values())) == 20
    assert len({(look.colour, look.shape) for look in list(shown.values())[:10]}) == 10


def test_the_same_rows_give_the_same_files(tmp_path):
    for write, name in ((write_comparison, "page.html"), (write_figure, "figure.svg"), (write_figure, "figure.png")):
        one = write(COMPARISON, tmp_path / "one" / name).read_bytes()
        assert write(COMPARISON, tmp_path / "two" / name).read_bytes() == one
        assert len(one) > 10_000
    with pytest.raises(UsageError, match=r"figure\.csv: expected a name that ends with \.svg or \.png"):
        write_figure(COMPARISON, tmp_path / "figure.csv")


def test_a_figure_in_svg_turns_dark_with_its_reader(tmp_path):
    rules, _, drawn = write_figure(COMPARISON, tmp_path / "figure.svg").read_text().partition("</style>")
    found = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", drawn))
    assert len(found) > 8
    dark = dict(
        re.findall(r'\[style\*="((?:fill|stroke): #[0-9a-f]{6})"\] {((?:fill|stroke): #[0-9a-f]{6}) !imp', rules)
    )
    for kind, colour in found:
        assert dark[f"{kind}: {colour}"].startswith(f"{kind}: #")
        assert dark[f"{kind}: {colour}"] != f"{kind}: {colour}"
    assert dark["fill: #ffffff"] == "fill: #1b2027"


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_figure_is_drawn_of_whatever_is_there(tmp_path, suffix):
    for name, rows in (("none", []), ("few", ROWS[:6]), ("once", [each for each in ROWS if each.step != 50])):
        assert write_figure(replace(COMPARISON, rows=rows), tmp_path / f"{name}.{suffix}").stat().st_size > 500


def test_without_rows_there_is_a_page_that_says_so(tmp_path):
    text = Page(write_comparison(replace(COMPARISON, rows=[]), tmp_path / "page.html")).text
    assert "No run has been evaluated yet" in text
    assert "first: not evaluated yet" in text


def test_one_run_has_no_interval(tmp_path):
    comparison = replace(COMPARISON, rows=[each for each in ROWS if each.seed == 1])
    measured = Measured(comparison)
    assert all(cell.small == "" for cell in aggregates_table(measured).rows[0][2:])
    assert all(cell.small == "" for cell in differences_table(measured).rows[0][2:])
    assert measured.score_curve("first").band is None
    assert "no rows of seed 2" in Page(write_comparison(comparison, tmp_path / "page.html")).text


def test_what_is_missing_is_named(tmp_path):
    rows = [each for each in ROWS if (each.setting, each.task) != ("second", "cave")]
    rows += [row("first", 7, task, 5.0, 50) for task in ("maze", "cave")]
    changes = {"settings": {**COMPARISON.settings, "third": {}}, "best": {**COMPARISON.best, "cliff": 1.0}}
    measured = Measured(replace(COMPARISON, rows=rows, seeds=(1, 2, 8), **changes))
    assert list(measured.missing()) == [
        "first: no rows of seed 8.",
        "second: no rows of seed 8.",
        "third: not evaluated yet.",
        "first, seed 7: its last evaluation was at 50 steps, the longest run's at 100.",
        "cave: not evaluated by second.",
        "A best known return is given of cliff, but there are no such tasks.",
        "Without a score of every run, and so not in the aggregates: cave.",
    ]
    assert measured.scored_tasks == ["maze"]
    assert measured.scores["first"].shape == (3, 1)
    assert "third: not evaluated yet." in Page(write_comparison(measured.comparison, tmp_path / "page.html")).text


def test_scores_are_by_the_best_known_then_by_references_then_successes():
    def scores(**changes):
        return Measured(replace(COMPARISON, **changes)).scores.get("first")

    rows = [replace(each, success=0.25) for each in ROWS]
    references = {"maze": (2.0, 4.0), "cave": (10.0, 12.0)}
    assert scores(references=references)[0].tolist() == [1.0, 0.6]
    assert scores(references=references, best={})[0].tolist() == [4.0, 3.0]
    assert scores(best={"maze": 10.0})[0].tolist() == [1.0]
    assert scores(rows=rows, best={})[0].tolist() == [0.25, 0.25]
    assert scores(rows=[*rows[:-1], ROWS[-1]], best={}) is None
    assert scores(rows=ROWS[4:]) is None  # the uniformly random policy was not measured


def test_without_scores_the_page_has_returns_and_says_why(tmp_path):
    text = Page(write_comparison(replace(COMPARISON, best={}), tmp_path / "page.html")).text
    assert text.count("no best known return is given") == 1
    assert "9.00" in text
    assert "Performance profiles" not in text
    assert markdown(Measured(replace(COMPARISON, best={})))[2].startswith("| maze | 9.00 (8.00 to 10.0) |")


def test_a_best_return_below_random_is_an_error():
    with pytest.raises(TwohotError, match=r"best known return of cave: expected more than .* 10, got 9"):
        Measured(replace(COMPARISON, best={"cave": 9.0}))


def test_markdown_has_a_line_for_each_row_and_no_stray_bar():
    lines = markdown(Measured(replace(COMPARISON, settings={**COMPARISON.settings})))
    assert lines[:3] == [
        "| task | first | second |",
        "| --- | ---: | ---: |",
        "| maze | 0.90 (0.80 to 1.00) | 0.30 (0.20 to 0.40) |",
    ]
    assert lines.count("") == 3
    about = "2 runs of each setting, last evaluation; 95 % intervals. A score is 0 for the uniformly random policy, as "
    assert lines[-1] == f"{about}measured, and 1 for the best known. c0ffee; CPU."
    named = Measured(Comparison("", "", rows_of("a", {"x|y": [1.0]}), {"a": {}}))
    assert r"| x\|y | 1.00 |" in markdown(named)
    elsewhere = replace(ROWS[-1], processor="CPU, avx2", commit="dead")
    assert markdown(Measured(replace(COMPARISON, rows=[*ROWS, replace(elsewhere, seed=3)])))[-1].endswith(
        " c0ffee, dead; CPU and CPU, avx2."
    )


def test_numbers_and_signs():
    assert interval(Estimate(-0.001), sign=True).text == "0.00"
    assert interval(Estimate(0.5, -0.25, 0.75), sign=True).text == "+0.50"
    assert interval(Estimate(0.5, -0.25, 0.75)).small == "\N{MINUS SIGN}0.25 to 0.75"


def test_at_most_ten_attempts_have_a_column():
    assert shown_attempts([1, 2, 3]) == [1, 2, 3]
    shown = shown_attempts(range(1, 101))
    assert (len(shown), shown[0], shown[-1]) == (10, 1, 100)


def test_options_that_are_the_same_have_no_column():
    found = settings_table(Measured(COMPARISON))
    assert found is not None
    assert (found.headings, texts(found)) == (["setting", "agent.bins"], [["first", "1"], ["second", "2"]])
    same = {"a": {"width": 3}, "b": {"width": 3}}
    assert settings_table(Measured(Comparison("", "", [], same))) is None


def run_directory(path, config, returns=1.0, commit="c0ffee"):
    """What `twohot train` leaves that reports read."""
    path.mkdir(parents=True)
    save_config(config, path / "config.json")
    (path / "run.json").write_text(json.dumps({"commit": commit, "processor": "mine"}))
    with MetricsWriter(path) as writer:
        writer.write("random", 0, 0, 0.0, {f"random/return/{task}": 0.0 for task in config.environment.tasks})
        for epoch in (1, 2):
            found = {f"evaluation/return/{task}": epoch * returns for task in config.environment.tasks}
            writer.write("evaluation", 100 * epoch, epoch, 60.0, found)
    return path


def test_runs_that_differ_in_their_seed_alone_are_a_setting(tmp_path):
    scalar = replace(CONFIG, agent=replace(CONFIG.agent, critic="scalar"))
    runs = [
        run_directory(tmp_path / f"{name}-{seed}", replace(config, seed=seed), seed)
        for name, config in (("two", CONFIG), ("one", scalar))
        for seed in (3, 4)
    ]
    comparison = comparison_of_runs(runs)
    assert list(comparison.settings) == ["critic two_hot", "critic scalar"]
    assert comparison.settings["critic scalar"]["agent.critic"] == "scalar"
    assert "seed" not in comparison.settings["critic scalar"]
    measured = Measured(comparison)
    assert measured.runs == {"critic two_hot": [3, 4], "critic scalar": [3, 4]}
    assert measured.last("critic scalar", "evaluation", "RepeatFirstEasy")[4].return_ == 8.0
    assert {each.processor for each in comparison.rows} == {"mine"}


def test_settings_of_many_differences_are_called_as_their_directories(tmp_path):
    other = replace(CONFIG, epochs=9, window=8, batch_size=3, warmup_epochs=1, updates_per_epoch=7)
    runs = [run_directory(tmp_path / name, config) for name, config in (("mine", CONFIG), ("theirs", other))]
    runs.append(run_directory(tmp_path / "more", replace(other, seed=5)))
    assert list(comparison_of_runs(runs).settings) == ["mine", "theirs and 1 more"]
    assert comparison_of_runs(runs[:2]).title == "mine and theirs"


def test_the_same_run_of_other_code_is_another_setting(tmp_path):
    runs = [run_directory(tmp_path / name, CONFIG, commit=name) for name in ("before", "after")]
    assert list(comparison_of_runs(runs).settings) == ["commit before", "commit after"]
    with pytest.raises(UsageError, match=r"before and .*before are one: give one of them"):
        comparison_of_runs([runs[0], runs[0]])
    copy = run_directory(tmp_path / "copy", CONFIG, commit="before")
    with pytest.raises(UsageError, match=r"before and .*copy have the same configuration, seed and code"):
        comparison_of_runs([runs[0], copy])


def test_references_count_every_attempt_that_counts(tmp_path):
    environment = EnvironmentConfig(suite="atari", tasks=("Pong",), attempts=3, unscored_attempts=1)
    config = replace(CONFIG, environment=environment)
    measured = Measured(comparison_of_runs([run_directory(tmp_path / "run", config)]))
    low, high = measured.comparison.references["Pong"]
    assert (low, high) == pytest.approx((2 * -20.7, 2 * 14.6))
    assert measured.scores["run"].tolist() == [[(2.0 - low) / (high - low)]]
    mixed = replace(config, environment=replace(environment, tasks=("Pong", "atari:Breakout", "gym:CartPole-v1")))
    references = comparison_of_runs([run_directory(tmp_path / "mixed", mixed)]).references
    assert references["Pong"] == references["atari:Pong"] == (low, high)
    assert {"Breakout", "atari:Breakout", "Seaquest"} <= references.keys()
    own = replace(CONFIG, environment=EnvironmentConfig(suite="not registered", tasks=("a",)))
    assert comparison_of_runs([run_directory(tmp_path / "own", own)]).references == {}


def test_a_report_of_several_runs(tmp_path, capsys):
    runs = [run_directory(tmp_path / name / "run", replace(CONFIG, window=8 + len(name))) for name in ("a", "bb")]
    assert cli.main(["report", *map(str, runs)]) == 0
    page = tmp_path / "comparison.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert "window 9" in Page(page).text
    assert cli.main(["report", *map(str, runs), "--output", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").is_file()
    assert cli.main(["report"]) == 2
    assert "got none" in capsys.readouterr().err
    assert cli.main(["report", str(runs[0]), str(tmp_path)]) == 2
    assert "no run here" in capsys.readouterr().err


@pytest.fixture
def study_file(tmp_path):
    """A study of which one seed is missing."""
    path = tmp_path / "studies" / "mine.toml"
    path.parent.mkdir()
    path.write_text(STUDY)
    study = load_study(path)
    for setting in study.settings:
        rows = rows_of(setting, {"RepeatFirstEasy": [0.5, 1.0], "RepeatPreviousEasy": [0.0, 0.5]})
        rows += random({"RepeatFirstEasy": 0.0, "RepeatPreviousEasy": 0.0})
        add_rows(study, [replace(each, digest=study.settings[setting].digest) for each in rows], tmp_path / "lock")
    return path


def test_a_report_of_a_study(study_file, tmp_path, capsys):
    comparison = comparison_of_study(study_file)
    assert (comparison.title, comparison.seeds) == ("mine", (1, 2, 3))
    assert cli.main(["study", "report", str(study_file)]) == 0
    page = study_file.with_suffix(".html")
    assert capsys.readouterr().out.strip() == str(page)
    text = Page(page).text
    for fact in ("Nothing is learnt.", "quickstart", "agent.critic", "two_hot: no rows of seed 3."):
        assert fact in text
    page.unlink()
    assert cli.main(["study", "report", str(study_file), "--markdown", "--figure", str(tmp_path / "figure.svg")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [str(tmp_path / "figure.svg"), *markdown(Measured(comparison))]
    assert "| RepeatFirstEasy | 0.75 (0.50 to 1.00) | 0.75 (0.50 to 1.00) |" in out
    assert not page.exists()
    output = tmp_path / "there" / "page.html"
    assert cli.main(["study", "report", str(study_file), "--output", str(output)]) == 0
    assert Page(output).text == text
    study_file.with_suffix(".csv").write_text("nothing")
    assert cli.main(["study", "report", str(study_file)]) == 1
    assert "expected the columns" in capsys.readouterr().err


def test_a_study_without_rows_has_a_page(study_file):
    study_file.with_suffix(".csv").unlink()
    assert cli.main(["study", "report", str(study_file)]) == 0
    assert "two_hot: not evaluated yet" in Page(study_file.with_suffix(".html")).text
    assert markdown(Measured(comparison_of_study(study_file))) == ["No run has been evaluated yet."]


def test_pages_have_the_tables_of_studies_that_they_name(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("a\n<!-- study:mine -->\nold\n<!-- end -->\nb\n")
    (tmp_path / "README.md").write_text("nothing\n")
    texts = readme.with_studies({})
    assert texts.pop(tmp_path / "README.md") == "nothing\n"
    (text,) = texts.values()
    lines = text.splitlines()
    assert (lines[:3], lines[-3:]) == (["a", "<!-- study:mine -->", ""], ["", "<!-- end -->", "b"])
    assert lines[3:-4] == markdown(Measured(comparison_of_study(study_file)))[:-1]
    assert lines[-4].endswith("c0ffee; CPU. `twohot study run studies/mine.toml`.")
    (tmp_path / "docs" / "page.md").write_text(text)
    assert readme.with_studies({})[tmp_path / "docs" / "page.md"] == text
    (tmp_path / "README.md").write_text("<!-- study:other -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match=r"README\.md: .*other\.toml: no such file"):
        readme.with_studies({})
