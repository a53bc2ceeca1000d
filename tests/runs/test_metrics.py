"""Definitions of metrics, and their file: what is refused, what a kill leaves behind, what a resume drops."""

import json
import time

import numpy as np
import pytest
import torch

from twohot.runs.metrics import METRICS, MetricsWriter, Row, describe, parse_name, read_metrics


def write_rows(directory, count, start=0):
    with MetricsWriter(directory) as writer:
        for index in range(start, start + count):
            writer.write("update", index, index, float(index), {"loss/total": index})
        return writer.offset()


@pytest.mark.parametrize(
    ("name", "pattern", "placeholders"),
    [
        ("loss/total", "loss/total", {}),
        ("collect/return/maze", "collect/return/{task}", {"task": "maze"}),
        (
            "collect/return/ALE/Pong-v5/attempt_12",
            "collect/return/{task}/attempt_{attempt}",
            {"task": "ALE/Pong-v5", "attempt": "12"},
        ),
        ("filter/pass_rate", "filter/pass_rate", {}),
        ("filter/pass_rate/a\nb", "filter/pass_rate/{task}", {"task": "a\nb"}),
        ("evaluation/return_std_error/maze", "evaluation/return_std_error/{task}", {"task": "maze"}),
    ],
)
def test_a_name_finds_its_pattern(name, pattern, placeholders):
    assert parse_name(name) == (pattern, placeholders)
    assert describe(name) is METRICS[pattern]


@pytest.mark.parametrize(
    "name", ["loss/nonsense", "", "collect/return/", "xloss/total", "loss/total/x/y", "loss.total"]
)
def test_an_undefined_name_is_refused(name):
    with pytest.raises(KeyError, match="not defined"):
        describe(name)


def test_every_definition_is_a_sentence():
    for pattern, metric in METRICS.items():
        assert metric.definition[0].isupper(), pattern
        assert metric.definition.endswith("."), pattern


def test_rows_come_back_as_written(tmp_path):
    with MetricsWriter(tmp_path / "new" / "run") as writer:
        writer.write(
            "update",
            np.int64(120),
            7,
            torch.tensor(1.5),
            {
                "loss/total": torch.tensor(0.25, requires_grad=True),
                "loss/actor": np.float32(0.5),
                "loss/critic": np.array(2.0),
                "replay/steps": 3,
                "value/bin_histogram": torch.tensor([0.25, 0.75], dtype=torch.bfloat16),
                "value/bin_centers": [np.float64(-1.0), torch.tensor(1.0)],
            },
        )
        writer.write("evaluation", 200, 7, 2.0, {"evaluation/return/Ünïcode": 1})
    update, evaluation = read_metrics(tmp_path / "new" / "run")
    assert update == Row(
        "update",
        120,
        7,
        1.5,
        {
            "loss/total": 0.25,
            "loss/actor": 0.5,
            "loss/critic": 2.0,
            "replay/steps": 3,
            "value/bin_histogram": [0.25, 0.75],
            "value/bin_centers": [-1.0, 1.0],
        },
    )
    assert evaluation.metrics == {"evaluation/return/Ünïcode": 1}


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write("update", 1, 1, 0.0, {"loss/total": 1.0})
    assert len(read_metrics(tmp_path)) == 1
    assert writer.offset() == (tmp_path / "metrics.jsonl").stat().st_size > 0
    writer.close()


def test_scalars_reach_tensorboard_at_their_environment_step(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsWriter(tmp_path) as writer:
        writer.write("update", 640, 3, 0.0, {"loss/total": 2.0, "value/bin_histogram": [1.0]})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss/total"]
    assert [(event.step, event.value) for event in events.Scalars("loss/total")] == [(640, 2.0)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), torch.tensor(torch.inf)])
@pytest.mark.parametrize(("name", "wrap"), [("loss/total", lambda x: x), ("value/bin_histogram", lambda x: [0.5, x])])
def test_a_value_that_is_not_finite_is_refused_by_name(tmp_path, bad, name, wrap):
    with MetricsWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match=name):
            writer.write("update", 1, 1, 0.0, {"loss/actor": 1.0, name: wrap(bad)})
        assert writer.offset() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss/total", [1.0]),
        ("loss/total", "1.0"),
        ("loss/total", None),
        ("value/bin_histogram", 1.0),
        ("value/bin_histogram", [[1.0]]),
        ("value/bin_histogram", "12"),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused_by_name(tmp_path, name, value):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match=name):
        writer.write("update", 1, 1, 0.0, {name: value})


def test_an_undefined_metric_or_kind_writes_nothing(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        with pytest.raises(KeyError, match="loss/nonsense"):
            writer.write("update", 1, 1, 0.0, {"loss/total": 1.0, "loss/nonsense": 1.0})
        with pytest.raises(ValueError, match="kind"):
            writer.write("updates", 1, 1, 0.0, {"loss/total": 1.0})
        assert writer.offset() == 0


def test_resuming_drops_the_rows_behind_the_checkpoint(tmp_path):
    offset = write_rows(tmp_path, 3)
    write_rows(tmp_path, 2, start=3)
    assert len(read_metrics(tmp_path)) == 5
    with MetricsWriter(tmp_path, resume_offset=offset) as writer:
        assert writer.offset() == offset
        writer.write("update", 30, 30, 0.0, {"loss/total": 30})
    assert [row.updates for row in read_metrics(tmp_path)] == [0, 1, 2, 30]


def test_resuming_at_zero_starts_afresh(tmp_path):
    write_rows(tmp_path, 3)
    MetricsWriter(tmp_path, resume_offset=0).close()
    assert read_metrics(tmp_path) == []
    MetricsWriter(tmp_path / "empty", resume_offset=0).close()
    assert read_metrics(tmp_path / "empty") == []


def test_resuming_drops_tensorboard_points_behind_the_checkpoint(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsWriter(tmp_path) as writer:
        for index in range(5):
            if index == 3:
                offset = writer.offset()
            writer.write("update", index, index, 0.0, {"loss/total": index})
    time.sleep(1.1)  # TensorBoard orders its files by the second they were opened in
    with MetricsWriter(tmp_path, resume_offset=offset) as writer:
        writer.write("update", 4, 4, 0.0, {"loss/total": 40})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/total")] == [(0, 0), (1, 1), (2, 2), (4, 40)]


@pytest.mark.parametrize("shift", [-1, 1, 10_000, -10_000])
def test_resuming_inside_a_row_or_past_the_end_is_refused_and_keeps_the_file(tmp_path, shift):
    offset = write_rows(tmp_path, 2)
    write_rows(tmp_path, 1, start=2)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="cannot resume"):
        MetricsWriter(tmp_path, resume_offset=offset + shift)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_resuming_without_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        MetricsWriter(tmp_path, resume_offset=10)


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_torn_last_line_is_left_out_and_then_written_over(tmp_path, cut):
    write_rows(tmp_path, 3)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # Without its newline alone, the row is still whole.
    assert [row.updates for row in read_metrics(tmp_path)] == [0, 1, 2][: 3 if cut == 1 else 2]
    write_rows(tmp_path, 1, start=9)
    assert [row.updates for row in read_metrics(tmp_path)] == [0, 1, 9]


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind": "upd',
        b"",
        b"[1]",
        b'{"kind": "update"}',
        b'{"kind": "update", "environment_steps": 1, "updates": 1, "seconds": 1, "metrics": [1]}',
        b'{"kind": "update", "environment_steps": 1, "updates": 1, "seconds": 1, "metrics": {"loss/total": NaN}}',
        b"\xff\xfe",
    ],
)
def test_a_corrupt_line_elsewhere_names_file_and_line(tmp_path, line):
    write_rows(tmp_path, 3)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2,"):
        read_metrics(tmp_path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the directory"):
        read_metrics(tmp_path)


def test_each_line_is_strict_json_with_the_agreed_keys(tmp_path):
    write_rows(tmp_path, 1)
    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line)) == ["kind", "environment_steps", "updates", "seconds", "metrics"]
