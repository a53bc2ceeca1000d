"""What rliable says of some scores, into tests/studies/rliable_values.json, which the tests compare with.

rliable wants an old pandas and is distributed as source alone, so it gets an environment of its own:

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install "rliable==1.2.0" "arch>=7,<8" "pandas<3"
    /tmp/rliable/bin/python bench/rliable_values.py
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

TARGET = Path(__file__).resolve().parents[1] / "tests" / "studies" / "rliable_values.json"
THRESHOLDS = [-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5]
SEED = 7
FEW, MANY = 200, 20_000
"""Resamples that are repeated draw by draw, and those whose interval is compared in distribution."""
AGGREGATES = {
    "mean": metrics.aggregate_mean,
    "median": metrics.aggregate_median,
    "interquartile_mean": metrics.aggregate_iqm,
    "optimality_gap": metrics.aggregate_optimality_gap,
}


def inputs() -> dict[str, np.ndarray]:
    """Scores [runs, tasks]: of one run, of one task, with ties, in all sizes of the quarter that is cut off."""
    generator = np.random.default_rng(SEED)
    found = {f"{runs}x{tasks}": generator.normal(0.5, 0.5, (runs, tasks)) for runs, tasks in ((1, 3), (2, 1), (5, 6))}
    found["3x7"] = generator.normal(0.5, 10, (3, 7))
    found["ties"] = generator.integers(0, 4, (5, 6)) / 4
    found["other ties"] = generator.integers(0, 4, (3, 6)) / 4
    found["others"] = generator.normal(0.7, 0.5, (4, 6))
    return found


def interval(function, scores, resamples: int) -> list:
    """Bounds of the percentile bootstrap, [2, statistics]."""
    np.random.seed(SEED)  # rliable draws from numpy's global stream
    _, found = library.get_interval_estimates({"": scores}, function, reps=resamples)
    return found[""].tolist()


def values(scores: np.ndarray) -> dict[str, object]:
    """All that is said of one array."""
    result: dict[str, object] = {name: float(function(scores)) for name, function in AGGREGATES.items()}
    result["performance_profile"] = library.score_distributions(scores, THRESHOLDS).tolist()
    if len(scores) > 1:
        together = lambda array: np.array([function(array) for function in AGGREGATES.values()])  # noqa: E731
        result["few"], result["many"] = (interval(together, scores, count) for count in (FEW, MANY))
        np.random.seed(SEED)
        _, found = library.create_performance_profile({"": scores}, THRESHOLDS, reps=FEW)
        result["few_profile"] = found[""].tolist()
    return result


def main() -> None:
    scores = inputs()
    pairs = [("5x6", "others"), ("others", "5x6"), ("ties", "other ties"), ("5x6", "5x6")]
    improvement = []
    for ours, theirs in pairs:
        both = [scores[ours], scores[theirs]]
        function = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])  # noqa: E731
        improvement.append(
            {
                "scores": [ours, theirs],
                "value": float(metrics.probability_of_improvement(*both)),
                "few": interval(function, both, FEW),
            }
        )
    environment = {name: version(name) for name in ("rliable", "arch", "numpy", "scipy", "pandas")}
    result = {
        "environment": {"python": platform.python_version(), **environment},
        "seed": SEED,
        "resamples": {"few": FEW, "many": MANY},
        "aggregates": list(AGGREGATES),
        "thresholds": THRESHOLDS,
        "scores": {name: array.tolist() for name, array in scores.items()},
        "values": {name: values(array) for name, array in scores.items()},
        "probability_of_improvement": improvement,
    }
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
