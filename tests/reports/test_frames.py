"""What was logged as DataFrames; pandas is one of the tools of development, so that these tests run."""

from __future__ import annotations

import sys

import pandas
import pytest

from twohot.errors import TwohotError
from twohot.reports.results import read_run
from twohot.runs.metrics import MetricsWriter
from twohot.studies import to_frame
from twohot.studies.rows import COLUMNS, StudyRow, add_rows
from twohot.studies.study import load_study

STUDY = 'summary = "S."\npreset = "quickstart"\nseeds = [1]\n[settings.one]\n'


@pytest.fixture
def run(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write("random", 0, 0, 0.0, {"random/return/maze": 1})
        writer.write("update", 10, 2, 3.5, {"loss/total": 0.5, "value/bin_histogram": [0.5, 0.5]})
    return read_run(tmp_path)


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    about = {"digest": "0", "commit": "c0ffee", "processor": "CPU", "setting": "one", "seed": 1, "updates": 2}
    rest = {"seconds": 3.0, "kind": "evaluation", "task": "maze", "return_": 4.0, "trials": 5}
    rows = [
        StudyRow(step=7, attempt=attempt, std_error=error, success=None, **about, **rest)
        for attempt, error in ((None, 0.25), (1, None))
    ]
    add_rows(load_study(path), rows, tmp_path / "lock")
    return path


def test_a_run_has_a_row_for_each_number(run):
    frame = run.to_frame()
    assert list(frame) == ["kind", "environment_steps", "updates", "seconds", "metric", "value"]
    assert frame.values.tolist() == [
        ["random", 0, 0, 0.0, "random/return/maze", 1.0],
        ["update", 10, 2, 3.5, "loss/total", 0.5],
    ]
    assert frame["value"].dtype == float


@pytest.mark.parametrize("suffix", [".toml", ".csv"])
def test_a_study_has_its_columns(study, suffix):
    frame = to_frame(study.with_suffix(suffix))
    assert list(frame) == list(COLUMNS)
    assert frame["return"].tolist() == [4.0, 4.0]
    assert frame["attempt"].isna().tolist() == [True, False]
    assert frame["attempt"].dtype == "Int64"
    assert frame["attempt"][1] == 1
    assert frame["std_error"].isna().tolist() == [False, True]
    assert frame["success"].dtype == float
    again = pandas.read_csv(study.with_suffix(".csv"), dtype={"attempt": "Int64", "digest": str})
    pandas.testing.assert_frame_equal(frame, again, check_dtype=False)


def test_a_study_without_rows_says_how_to_make_them(study):
    study.with_suffix(".csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"mine\.csv: no rows yet; `twohot study run .*mine\.toml`"):
        to_frame(study)


def test_without_pandas_the_error_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TwohotError, match=r"pip install .*\[pandas\]'"):
        run.to_frame()
