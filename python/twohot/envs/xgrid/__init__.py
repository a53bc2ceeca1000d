"""An open world of tasks: rooms with objects, hidden production rules and hidden goals, in millions of made rule sets.

Stepped natively for many environments at once; needs numpy and gymnasium alone. `docs/xgrid.md` explains the world.
"""

from twohot.envs.xgrid.benchmarks import BENCHMARKS, Benchmark
from twohot.envs.xgrid.rendering import draw
from twohot.envs.xgrid.rules import ACTIONS, COLOURS, GOALS, RULES, SHAPES, Kind, RuleSet, plan
from twohot.envs.xgrid.vector import XGridState, XGridVector

__all__ = [
    "ACTIONS",
    "BENCHMARKS",
    "COLOURS",
    "GOALS",
    "RULES",
    "SHAPES",
    "Benchmark",
    "Kind",
    "RuleSet",
    "XGridState",
    "XGridVector",
    "draw",
    "plan",
]
