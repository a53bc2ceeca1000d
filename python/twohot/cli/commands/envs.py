"""List the environments, or check one.

envs [SUITE]             list the environments: what is installed, and how to install the rest
envs --check MODULE:ID   play a custom environment, and say what is wrong with it
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from twohot.cli.options import console, parse
from twohot.errors import UsageError
from twohot.extras import here
from twohot.text import printable


@dataclass(frozen=True)
class EnvsOptions:
    """List the environment suites: what is installed, and the command that installs the rest. Or check an environment.

    `twohot envs --check my_file:MyEnv-v0` plays one of gymnasium's, here in my_file.py of the working directory.
    """

    suite: tyro.conf.Positional[str] = ""
    """A suite whose tasks to list."""
    check: tuple[str, ...] | None = None
    """Play an environment for a few hundred steps and say what is wrong with it: `module:Id-v0` or an id of gymnasium,
    or a suite and a task of it. The exit code is 1 where anything is wrong."""


def run(arguments: list[str]) -> int:
    """List environments, or check one; returns the exit code."""
    options = parse(EnvsOptions, "envs", arguments)
    if options.check is not None:
        return _check_environment((options.suite, *options.check) if options.suite else options.check)
    from twohot.envs import get_suite, registered_suites
    from twohot.reports.terminal import print_table

    if options.suite:
        print("\n".join(map(printable, get_suite(options.suite).tasks)))
        return 0
    rows = [
        [
            suite.name,
            str(len(suite.tasks)),
            f"missing: {here(suite.install)}" if suite.missing() else "installed",
            suite.summary,
        ]
        for suite in registered_suites().values()
    ]
    print_table(console(), ["suite", "tasks", "status", "what it is"], rows, (0, 2, 3))
    return 0


def _check_environment(named: tuple[str, ...]) -> int:
    from twohot.cli.environment_check import WRONG, check
    from twohot.envs import registered_suites

    suite, *tasks = named if len(named) > 1 else ("gym", *named)
    if len(tasks) != 1 or tasks[0] in registered_suites():
        raise UsageError(
            "--check: expected one environment, as module:Id-v0, an id of gymnasium or SUITE TASK, got "
            f"{' '.join(named) or 'none'}"
        )
    print(f"{suite} task {tasks[0]!r}")
    wrong = 0
    for found in check(suite, tasks[0]):
        wrong += found.kind == WRONG
        print(f"  {found.kind:5}  {printable(found.text)}", flush=True)
    print("An agent can be trained on it." if not wrong else f"{wrong} of these {'is' if wrong == 1 else 'are'} wrong.")
    return int(wrong > 0)
