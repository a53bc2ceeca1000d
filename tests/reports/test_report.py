"""The report of a run: what it says, what it escapes, what it needs, and that a browser without a network draws it."""

import json
import math
import re

import numpy as np
import pytest

from pages import Page, assert_drawn, assert_self_contained, plots, values_under_a_pointer
from twohot.reports import figures
from twohot.reports.markup import breakable
from twohot.reports.numbers import MINUS
from twohot.reports.report import TaskResult, print_results, results_table, write_report
from twohot.runs.metrics import MetricsWriter
from twohot.runs.scores import EVALUATION_NAME, TaskScore, report

HOSTILE = "<script>alert(1)</script>\"'&<img src=http://evil.example/x> $\\frac{$"
TASKS = ["maze", "bandit", HOSTILE]
BINS = 32
START = {
    "version": "9.8.7",
    "python": "3.99.1",
    "torch": "2.88.0+<cpu>",
    "platform": "Plan 9",
    "cpu": "77 cores & AVX",
    "started": "2031-02-03T04:05:06+00:00",
}


def write_run(directory, tasks=TASKS, attempts=2, epochs=6):
    """A run whose agent beats the random policy on every task but the second."""
    support = np.linspace(-math.log1p(1000), math.log1p(1000), BINS)
    mass = np.exp(-0.5 * ((np.arange(BINS) - 20) / 1.5) ** 2)
    with MetricsWriter(directory) as writer:
        writer.write("random", 0, 0, 0.0, returns("random", tasks, [1.0] * len(tasks), 0.3, attempts))
        for epoch in range(1, epochs + 1):
            at = (1000 * epoch, 100 * epoch, 60.0 * epoch)
            collected = {f"collect/return/{task}": 0.5 * epoch for task in tasks}
            writer.write("collect", *at, {**collected, "collect/epsilon": 1 / epoch, "collect/trials": 7})
            writer.write(
                "update",
                *at,
                {
                    "loss/total": 1 / epoch,
                    "loss/actor": -0.1 * epoch,
                    "loss/critic": 10.0**-epoch,
                    "gradient/norm": 1.0,
                    "learning_rate": 1e-4,
                    "filter/pass_rate": 0.5,
                    **{f"filter/pass_rate/{task}": 0.4 for task in tasks},
                    "value/mean": 0.0,
                    "policy/entropy": 1.0,
                    "gradient/norm/actor": 0.5,
                    "value/bin_histogram": mass / mass.sum(),
                    "value/bin_centers": np.sign(support) * np.expm1(np.abs(support)),
                    "time/collect_share": 0.3,
                    "time/update_share": 0.5,
                },
            )
            means = [1.0 if index == 1 else 1.0 + epoch for index in range(len(tasks))]
            successes = {f"evaluation/success/{tasks[0]}": 0.5, "held_out/mean_success": 0.25}
            writer.write("evaluation", *at, returns("evaluation", tasks, means, 0.4, attempts) | successes)
    config = {
        "seed": 31,
        "environment": {"tasks": list(tasks), "attempts": attempts},
        "device": None,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "run.json").write_text(json.dumps(START))
    return directory


def returns(kind, tasks, means, error, attempts):
    result = {}
    for task, mean in zip(tasks, means, strict=True):
        result[f"{kind}/return/{task}"] = mean
        result[f"{kind}/return_std_error/{task}"] = error
        if attempts > 1:
            result |= {f"{kind}/return/{task}/attempt_{k}": mean * k / attempts for k in range(1, attempts + 1)}
    return result


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "my <run> & co")
    score = TaskScore("held <out>", np.full((4, 2), 123.0), np.ones((4, 2)), 1, kind="held_out", split="test")
    (run / EVALUATION_NAME).write_text(json.dumps(report({"run": [score]}, trials=4, seed=1)))
    return write_report(run)


def test_the_page_shows_the_last_whole_evaluation(full):
    text = Page(full).text
    for fact in ("Intervals, and what was held out", "Held out", "held <out>", "123"):
        assert fact in text


def test_the_page_states_what_the_run_was(full):
    text = Page(full).text
    assert full.name == "report.html"
    for fact in ("my <run> & co", "6,000", "600", "6.0", "31"):
        assert fact in text
    assert "better than the uniformly random policy on 2 of 3 tasks" in text
    for cell in ("7.00 ± 0.40", "1.00 ± 0.30", "+6.00 ± 0.50", "attempt 2", "environment.attempts"):
        assert cell in text


def test_the_header_states_where_and_when_the_run_started(full):
    header = Page(full).text.partition("Results")[0]
    for fact in ("9.8.7", "2031-02-03 04:05:06 UTC", "2.88.0+<cpu>", "77 cores & AVX"):
        assert fact in header
    assert "3.99.1" not in header
    assert "Plan 9" not in header


def test_a_run_without_a_description_has_a_header(tmp_path):
    run = write_run(tmp_path, epochs=1)
    (run / "run.json").unlink()
    header = Page(write_report(run)).text.partition("Results")[0]
    assert "31" in header
    assert not any(label in header for label in ("version", "started", "torch", "cpu"))
    (run / "run.json").write_text('{"torch": "2.88.0"}')
    header = Page(write_report(run)).text.partition("Results")[0]
    assert "2.88.0" in header
    assert "started" not in header


def test_the_page_holds_every_plot_with_a_caption(full):
    page = Page(full)
    # learning, attempts, filter, filter by task, bins, losses, values, schedules, time
    assert page.count("figure") == page.count("figcaption") == 12
    # 3 tasks in three figures; pass rate; all bins and those in use; 4 losses; 2 values; 3 schedules; time
    assert plots(page) == 9 + 1 + 2 + 4 + 2 + 3 + 1 + 3
    assert 'class="missing"' not in full.read_text(encoding="utf-8")


def test_the_glossary_defines_what_was_logged_and_nothing_else(full):
    text = Page(full).text
    assert "Euclidean norm of the gradient" in text
    assert "evaluation/return/{task}/attempt_{attempt}" in text
    assert "Trajectories in the replay store." not in text


def test_hostile_names_are_text(full):
    page = Page(full)
    assert (page.count("script"), page.count("img")) == (1, 0)
    # a row of each table, a heading in each of three figures, and the configuration
    assert page.text.count(HOSTILE) >= 6
    labels = [attributes.get("aria-label") for tag, attributes in page.elements if tag == "svg"]
    assert f"Return on {HOSTILE}" in labels


def test_the_page_needs_nothing_else(full):
    assert_self_contained(full)


def test_the_same_run_gives_the_same_page(full, tmp_path):
    assert write_report(full.parent, tmp_path / "new" / "again.html").read_bytes() == full.read_bytes()


def test_a_failed_report_leaves_the_old_one_and_no_litter(tmp_path):
    run = write_run(tmp_path, epochs=1)
    path = write_report(run)
    before, files = path.read_bytes(), sorted(run.iterdir())
    with MetricsWriter(run) as writer:
        writer.write("update", 9, 9, 0.0, {"value/bin_histogram": [1.0]})
    with pytest.raises(ValueError, match="bins"):
        write_report(run)
    assert path.read_bytes() == before
    assert sorted(run.iterdir()) == files


def test_a_target_that_cannot_be_replaced_leaves_no_litter(tmp_path):
    run, target = write_run(tmp_path / "run", epochs=1), tmp_path / "out" / "report.html"
    target.mkdir(parents=True)
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(run, target)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("stage", ["empty", "random", "collect", "update", "evaluation"])
def test_a_run_that_has_just_started_has_a_report(tmp_path, stage):
    with MetricsWriter(tmp_path) as writer:
        rows = {
            "random": {"random/return/maze": 1.0},
            "collect": {"collect/return/maze": 1.0},
            "update": {"loss/total": 1.0, "filter/pass_rate": 0.0, "time/update_share": 1.0},
            "evaluation": {"evaluation/return/maze": 1.0},
        }
        if stage in rows:
            writer.write(stage, 0, 0, 0.0, rows[stage])
    text = Page(write_report(tmp_path)).text
    assert ("No evaluation has been logged yet" in text) == (stage != "evaluation")
    assert ("No loss has been logged yet" in text) == (stage != "update")
    assert ("No return has been logged yet" in text) == (stage not in ("collect", "evaluation"))
    assert "holds no config.json" in text
    assert len(results_table(tmp_path)) == (stage == "evaluation")


def test_a_single_attempt_is_said_in_a_sentence(tmp_path):
    text = Page(write_report(write_run(tmp_path, attempts=1, epochs=1))).text
    assert "a single attempt" in text
    assert "attempt 1" not in text


def test_a_long_run_of_many_tasks_stays_small(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for index in range(3000):
            writer.write("collect", index, 0, 0.0, {f"collect/return/{task}": math.sin(index) for task in range(5)})
    assert write_report(tmp_path).stat().st_size < 200_000


def test_a_torn_last_line_does_not_hinder(tmp_path):
    run = write_run(tmp_path, epochs=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "evaluation", "environment_st')
    assert "2,000" in Page(write_report(run)).text
    assert len(results_table(run)) == 3


def test_corrupt_and_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*give the directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl.*give the directory"):
        results_table(tmp_path)
    write_run(tmp_path, epochs=1)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json.*restore it"):
        write_report(tmp_path)
    (tmp_path / "config.json").unlink()
    for corrupt in ("{", "[]", '"text"', '{"version": 1}', '{"torch": {"version": "2"}}'):
        (tmp_path / "run.json").write_text(corrupt)
        with pytest.raises(ValueError, match=r"run\.json.*delete it"):
            write_report(tmp_path)
    assert len(results_table(tmp_path)) == 3  # which needs neither


def test_results_compare_the_last_evaluation_with_the_random_policy(tmp_path):
    write_run(tmp_path)
    with MetricsWriter(tmp_path) as writer:  # a later evaluation of one task alone, without its error
        writer.write("evaluation", 9000, 900, 0.0, {"evaluation/return/maze": 2.5})
    assert results_table(tmp_path) == [
        TaskResult("maze", 2.5, None, 1.0, 0.3, better=False),
        TaskResult("bandit", 1.0, 0.4, 1.0, 0.3, better=False),
        TaskResult(HOSTILE, 7.0, 0.4, 1.0, 0.3, better=True),
    ]
    _, _, hostile = results_table(tmp_path)
    assert (hostile.difference, hostile.difference_error) == (6.0, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("agent", "better"),
    [(1.99, False), (2.0, False), (2.01, True), (0.0, False), (-9.0, False)],  # random 1, errors .3 and .4: bound 2
)
def test_better_means_more_than_two_combined_standard_errors(tmp_path, agent, better):
    with MetricsWriter(tmp_path) as writer:
        writer.write("random", 0, 0, 0.0, returns("random", ["maze"], [1.0], 0.3, 1))
        writer.write("evaluation", 1, 1, 0.0, returns("evaluation", ["maze"], [agent], 0.4, 1))
    (result,) = results_table(tmp_path)
    assert result.better is better


def test_results_without_a_random_policy(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write("evaluation", 1, 1, 0.0, returns("evaluation", ["maze"], [3.0], 0.4, 1))
    (result,) = results_table(tmp_path)
    assert result == TaskResult("maze", 3.0, 0.4, None, None, better=False)
    assert result.difference is None
    assert result.difference_error is None
    text = Page(write_report(tmp_path)).text
    assert "The uniformly random policy was not measured" in text
    assert " of 1 task" not in text


def test_the_verdict_counts_once_any_task_has_a_random_policy(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write("random", 0, 0, 0.0, returns("random", ["maze"], [1.0], 0.3, 1))
        writer.write("evaluation", 1, 1, 0.0, returns("evaluation", ["maze", "cave"], [9.0, 9.0], 0.4, 1))
    text = Page(write_report(tmp_path)).text
    assert "1 of 2 tasks" in text
    assert "was not measured" not in text


def test_results_are_printed_as_text(tmp_path):
    console_module = pytest.importorskip("rich.console")
    with MetricsWriter(tmp_path) as writer:
        tasks = ["[red]maze[/red]", "[/]"]
        writer.write("random", 0, 0, 0.0, returns("random", tasks, [1.0, 1.0], 0.3, 1))
        writer.write("evaluation", 1, 1, 0.0, returns("evaluation", tasks, [1234.5, -1.0], 0.4, 1))
    console = console_module.Console(width=120, file=None, record=True, quiet=False)
    print_results(console, results_table(tmp_path))
    print_results(console, [TaskResult("unmeasured", -1234.4, None, None, None, better=False)])
    print_results(console, [])
    printed = console.export_text()
    for text in (
        *tasks,
        "1,234.50 ± 0.40",
        f"{MINUS}1,234 ",
        f"{MINUS}2.00 ± 0.50",
        "1 of 2 tasks",
        "was not measured",
        "No evaluation has been logged yet.",
    ):
        assert text in printed


def test_names_break_between_their_words_alone():
    assert breakable("PositionOnlyCartPole_easy") == "Position<wbr>Only<wbr>Cart<wbr>Pole_<wbr>easy"
    assert breakable("ALE/Pong-v5") == "ALE/<wbr>Pong-<wbr>v5"
    assert breakable("<b> 0.50 & ab.Cd") == "&lt;b&gt; 0.50 &amp; ab.<wbr>Cd"


@pytest.mark.parametrize("y", [[0.0, 0.0], [1e308, -1e308], [5e-324, 1.0], [1e-300, 1e300], [1e9, 1e9 + 1], [7.0]])
def test_every_number_has_a_place_and_an_axis(y):
    lines = [figures.Line(range(len(y)), y, error=[1.0] * len(y), marker=True), figures.Line([], [])]
    svg = figures.curves("title", lines, "updates", 2, logarithmic=True)
    assert not re.search(r"nan|inf(?!o)", svg)
    places = [float(place) for place in re.findall(r"[ML]([-\d.]+) ", svg)]
    assert all(-1 <= place <= 1001 for place in places)
    labels = re.findall(r'<text class="y"[^>]*>([^<]*)<', svg)
    assert 2 <= len(labels) == len(set(labels)) <= 7


def test_thinning_keeps_short_curves_and_means_long_ones():
    assert figures.thin([1, 2, 3], [4, 5, 6], 3) == ([1, 2, 3], [4, 5, 6])
    x, y = figures.thin(range(1000), [1.0] * 500 + [3.0] * 500, 100)
    assert (len(x), x[0], y[0], y[-1]) == (100, 4.5, 1.0, 3.0)


@pytest.mark.parametrize("transform", ["symlog", "linear"])
@pytest.mark.parametrize("window", [(0, 127), (64, 70), (100, 100)])
def test_bin_ticks_stand_on_their_values(transform, window):
    line = np.linspace(-math.log1p(1e5), math.log1p(1e5), 128)
    centers = line if transform == "linear" else np.sign(line) * np.expm1(np.abs(line))
    positions, labels = figures.bin_ticks(centers, window)
    assert 1 <= len(positions) <= 15
    assert positions == sorted(positions)
    units = {"k": 1e3, "M": 1e6}
    for position, label in zip(positions, labels, strict=True):
        value = float(label.rstrip("kM").replace(MINUS, "-")) * units.get(label[-1], 1.0)
        assert np.interp(position, np.arange(128), centers) == pytest.approx(value, rel=0.01, abs=1e-9)


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_a_browser_without_a_network_draws_every_plot(full, tmp_path, scheme, width):
    assert_drawn(full, tmp_path, scheme, width, figures=12, plots=25)


@pytest.mark.browser
def test_a_pointer_and_the_keyboard_show_values(full, tmp_path):
    told = values_under_a_pointer(full, tmp_path)
    assert all(left is None for *_, left in told)
    end, first, _ = told[0]
    assert end == [
        "environment steps 6,000",
        "collecting: 3",
        "uniformly random policy: 1",
        "evaluation: 7 (6.6 to 7.4)",
    ]
    assert first == ["environment steps 0", "uniformly random policy: 1"]
    attempts, time = told[3], told[-1]
    (bins, _) = [found for found in told if found[1][0].startswith("value of the target")]
    assert attempts[0][:2] == ["attempt 2", "uniformly random policy: 1"]
    assert time[0] == ["updates 600", "collect: 30 %", "update: 50 %", "other: 20 %"]
    assert bins[1] == [f"value of the target (one bar a bin) {MINUS}1k", "0 %"]
