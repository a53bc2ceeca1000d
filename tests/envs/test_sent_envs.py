"""Environments of notebooks, scripts and files go to worker processes, or it is said why they cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading

import gymnasium as gym
import numpy as np
import pytest

from odd_envs import Odd
from twohot import envs
from twohot.envs.vector import make as vector_module
from twohot.envs.vector import workers as workers_module

preloaded = pytest.mark.usefixtures("preloaded_workers")
SCRIPT = """
import gymnasium as gym
import numpy as np
from twohot import envs

with open("runs", "a") as diary:
    print("run", file=diary)


class Mine(gym.Env):
    observation_space, action_space = gym.spaces.Box(0, 9, (2,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(2, np.float32), {}

    def step(self, action):
        return np.full(2, HALF, np.float32), 1.0, False, False, {}


HALF = 0.5
gym.register("Mine-v0", entry_point=Mine)
envs.register(envs.Suite("mine", "", (), "", ("one",), lambda task, split, render=False: gym.make("Mine-v0")))
for suite, task in (("gym", "Mine-v0"), ("mine", "one")):
    actors = envs.make_vector(suite, (task,), environments=1, workers="processes")
    actors.reset(seed=0)
    assert actors.step(np.zeros(1, int))[1].tolist() == [1.0]
    print(actors.workers)
    actors.close()
"""


@pytest.mark.parametrize("how", ["script", "notebook"])
def test_what_a_main_module_registers_is_played_in_processes(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    given = ["script.py"] if how == "script" else ["-"]
    found = subprocess.run(
        [sys.executable, *given], check=False, input=SCRIPT, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["processes", "processes"]
    assert (tmp_path / "runs").read_text().split() == ["run"]  # no worker has run it again


@pytest.fixture
def make(monkeypatch):
    """make(workers, entry_point) registers an environment and makes two rows of it."""
    made = []
    monkeypatch.setattr(vector_module, "cpus", lambda: 2)
    monkeypatch.setattr(vector_module, "_stays", set())
    monkeypatch.setattr(vector_module, "CHEAP_SECONDS", 0.0)

    def make_vector(workers, entry_point, name="Sent-v0"):
        if name not in gym.registry:
            gym.register(name, entry_point=entry_point)
        made.append(envs.make_vector("gym", (name,), environments=2, workers=workers))
        return made[-1]

    yield make_vector
    for vector in made:
        vector.close()
    gym.registry.pop("Sent-v0", None)


def holding(what):
    """An entry point that only this process can have, or any, as `what` can be sent."""
    return lambda: Odd(reward=float(what is not None))


def test_closures_are_sent_by_value(make):
    vector = make("processes", holding(3))
    vector.reset(seed=0)
    assert vector.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]


def in_worker(**odd):
    """An entry point whose environment is odd in worker processes only."""
    return lambda: Odd(**(odd if workers_module.inside_worker() else {}))


NOT_SENT = [
    (holding(threading.Lock()), envs.WorkerError, r"cannot pickle '_thread.lock' object\): put the environment"),
    (in_worker(raises="reset"), envs.BrokenEnvironmentError, "raised KeyError in `reset`: 'asked for'"),
]


@preloaded
@pytest.mark.parametrize(("entry_point", "error", "message"), NOT_SENT)
def test_what_cannot_be_played_in_processes_is_said(make, caplog, entry_point, error, message):
    vector = make("processes", entry_point)
    with pytest.raises(error, match=f"gym task 'Sent-v0'.*{message}"):
        vector.reset(seed=0)
    with caplog.at_level(logging.WARNING, "twohot"):
        for _ in range(2):
            stays = make("auto", entry_point)
            assert stays.workers == "in-process"
            stays.reset(seed=0)
            assert stays.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]
    (said,) = caplog.messages  # once
    assert said.startswith(
        "collect.workers auto stays in this process, for other ones cannot be used: gym task 'Sent-v0'"
    )


@preloaded
def test_an_exception_of_a_worker_comes_with_its_cause_and_place(make):
    class OwnError(Exception):
        """Of a kind that no module has."""

    vector = make("processes", in_worker(raises="step", error=OwnError))
    vector.reset(seed=0)
    with pytest.raises(envs.BrokenEnvironmentError, match="raised OwnError in `step`: asked for") as told:
        vector.step(np.zeros(2, int))
    assert type(told.value.__cause__) is OwnError
    assert "odd_envs.py" in str(told.value.__cause__.__cause__)


@preloaded
def test_a_worker_that_does_not_start_is_given_up(make, monkeypatch, tmp_path, caplog):
    (tmp_path / "waits.py").write_text(
        textwrap.dedent("""
        import time
        from odd_envs import Odd
        from twohot.envs.vector.workers import inside_worker

        if inside_worker():
            time.sleep(1000)

        class Waits(Odd):
            pass
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    import waits

    monkeypatch.setattr(vector_module, "START_SECONDS", 1.0)
    monkeypatch.setattr(workers_module, "START_SECONDS", 1.0)
    with pytest.raises(envs.WorkerError, match=r"a worker of suite 'gym' gave no answer for 1 seconds.*in-process"):
        make("processes", waits.Waits)
    with caplog.at_level(logging.WARNING, "twohot"):
        assert make("auto", waits.Waits).workers == "in-process"
    assert "gave no answer for 1 seconds" in caplog.text


def test_a_module_that_trains_when_it_is_imported_does_not_do_so_in_a_worker(monkeypatch):
    monkeypatch.setattr(workers_module, "_works", True)
    with pytest.raises(envs.WorkerError, match="under `if __name__ == '__main__':`"):
        envs.make_vector("gym", ("CartPole-v1",), environments=2)


FILE = '''
import gymnasium as gym
from odd_envs import Odd


class Mine(Odd):
    """From a file of the working directory."""


gym.register("Mine-v0", entry_point=Mine)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory that is not where Python looks, with files of environments in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    for name, text in {
        "mine": FILE,
        "empty": "",
        "raises": "1 / 0",
        "exits": "exit(0)",
        "lacks": "import no_such",
    }.items():
        (tmp_path / f"{name}_of_test.py").write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_of_test")]:
        del sys.modules[name]
    gym.registry.pop("Mine-v0", None)


@preloaded
@pytest.mark.parametrize("workers", ["in-process", "processes"])
def test_a_file_of_the_working_directory_is_found(folder, workers):
    vector = envs.make_vector("gym", ("mine_of_test:Mine-v0",), environments=2, workers=workers)
    vector.reset(seed=0)
    assert vector.step(np.zeros(2, int))[1].tolist() == [1.0, 1.0]
    assert vector.workers == workers
    vector.close()


@pytest.mark.parametrize("suite", ["gym", "gym_vector"])
@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (
            "nothing_of_test:X-v0",
            envs.UnknownEnvironmentError,
            "a file of the working directory .*, got the module 'noth",
        ),
        ("mine_of_test.py:X-v0", envs.UnknownEnvironmentError, "got the module 'mine_of_test.py': leave out .py"),
        (":X-v0", envs.UnknownEnvironmentError, "expected `module:Id-v0`"),
        (".mine:X-v0", envs.UnknownEnvironmentError, "expected `module:Id-v0`"),
        ("mine_of_test:Other-v0", envs.UnknownEnvironmentError, r"\(mine_of_test, which is .*py, registers Mine-v0\)"),
        ("empty_of_test:X-v0", envs.UnknownEnvironmentError, "registers nothing: gymnasium.register"),
        ("raises_of_test:X-v0", envs.BrokenEnvironmentError, "ZeroDivisionError in `import raises_of_test`.*, line 1"),
        ("exits_of_test:X-v0", envs.BrokenEnvironmentError, "SystemExit in `import exits_of_test`"),
        ("lacks_of_test:X-v0", envs.BrokenEnvironmentError, "No module named 'no_such'"),
    ],
)
def test_a_file_that_does_not_help_is_said(folder, suite, task, error, message):
    with pytest.raises(error, match=f"{suite} task '{task}'.*{message}"):
        envs.make_vector(suite, (task,), environments=1)
