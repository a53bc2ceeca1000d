"""A training whose actors, node and learner are killed at random: does it end with all updates, nothing lost or twice?

python -m bench.cases.kills DIRECTORY --actor 50 --node 10 --learner 20

A cluster of two nodes is started on this machine, and a run of the command that learns from trials which say who they
are. What a reader of the run's replay has seen there is acknowledged. The report is JSON, in DIRECTORY/report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cases.marked_trials import STEP_SECONDS, TASK, read_trial
from bench.cases.processes import descendants, kill, resident_mb
from bench.harness.compare import Figures, Goal, goal_rows
from bench.harness.group import ROOT
from bench.harness.measure import Row
from twohot.replay import Replay
from twohot.runs import checkpoint

ACTORS, UPDATES, NEVER = 3, 10, 10**6
SETTINGS = {
    "updates-per-epoch": UPDATES,
    "warmup-epochs": 0,
    "batch-size": 4,
    "window": 16,
    "checkpoint-every": 5,
    "threads": 1,
    "actors": ACTORS,
    "ray.cpus-per-actor": 0.5,
    "agent.context": 64,
    "agent.width": 16,
    "agent.heads": 2,
    "agent.layers": 1,
    "agent.feed-forward": 32,
    "collect.environments": 2 * ACTORS,
    "collect.steps-per-epoch": 40,
    "replay.storage": "disk",
    "replay.capacity-steps": 10**9,
    "environment.context-features": False,
    "evaluate.every": NEVER,
    "evaluate.trials": 1,
    "evaluate.final-trials": 1,
}
SURVIVED, ENDS = ("actor", "node"), ("learner", "SIGTERM")
"""What is killed: what a learner survives, and how it ends itself."""
STORE_BYTES = 100 * 10**6
PATIENCE = 180.0
"""Seconds in which a run that lives has to have gone on."""
SAMPLE_SECONDS = 0.5


@dataclass
class Report:
    """What was done to a run, and what became of it.

    Attributes:
        killed: how many of each. acknowledged: trials that were seen in the replay while the run went on.
        stored: trials that are there in the end. lost, repeated, torn: of them; reseeded: how many have a number from
            the seed that another has too.
        updates, wanted: done in the end, and how many the configuration asks for.
        learner_mb, store_mb: resident memory of the learner that lived longest, and of the first node's object store:
            after the first tenth of that learner's life, and at its end.
        unexpected: other ends of the learner than those that it was given.
    """

    killed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    repeated: int = 0
    torn: list[str] = field(default_factory=list)
    reseeded: int = 0
    updates: int = 0
    wanted: int = 0
    learner_mb: tuple[float, float] = (0.0, 0.0)
    store_mb: tuple[float, float] = (0.0, 0.0)
    unexpected: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What is not as promised, memory apart."""
        checks = {
            f"{self.lost} of {self.acknowledged} acknowledged trials are lost": self.lost,
            f"{self.repeated} trials are stored twice": self.repeated,
            f"{self.reseeded} trials repeat another's random numbers": self.reseeded,
            f"no whole trials: {self.torn[:3]}": self.torn,
            f"{self.updates} updates, not {self.wanted}": self.updates != self.wanted,
            "nothing was acknowledged": self.acknowledged == 0,
            f"the learner ended by itself: {self.unexpected[:3]}": self.unexpected,
        }
        return [fault for fault, there in checks.items() if there]


class Supervisor:
    """A cluster of two nodes, the learner, and what is known of its run."""

    def __init__(self, directory: Path, seed: int, step_seconds: float = 0.002) -> None:
        self.run, self.log = directory / "run", directory / "learner.log"
        self.random, self.report = random.Random(seed), Report()
        self.began = time.monotonic()
        self.acknowledged: set[int] = set()
        self._read: dict[int, tuple[int, int]] = {}  # what trajectories with these ids are
        self._reader: Replay | None = None
        self.samples: list[list[tuple[float, float]]] = []
        self._sampled = 0.0
        self.learner: subprocess.Popen[bytes] | None = None
        os.environ |= {STEP_SECONDS: str(step_seconds), "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        from ray.cluster_utils import Cluster

        self._options = {"object_store_memory": STORE_BYTES, "num_cpus": 2}
        self._cluster = Cluster()
        self._head = self._add_node(include_dashboard=False, temp_dir=tempfile.mkdtemp(prefix="ray-"))
        self._node = self._add_node()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s: {what}", flush=True)

    def _add_node(self, **options: Any) -> Any:
        return self._cluster.add_node(**self._options, **options)

    # The learner.

    def start_learner(self, epochs: int | None = None) -> None:
        """Begin the run, or go on with it, where no learner lives; to the end where it is told of one."""
        if self.learner is not None and self.learner.poll() is None:
            return
        command = [sys.executable, "-m", "twohot", "train"]
        if epochs is None:
            command += ["gym-small", "--run", str(self.run), "--continue", "--epochs", str(NEVER), "--env", TASK]
            command += ["--ray.address", self._cluster.address]
            command += [word for name, value in SETTINGS.items() for word in _option(name, value)]
        else:
            command += ["--resume", str(self.run), "--epochs", str(epochs)]
        with self.log.open("ab") as log:
            self.learner = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self.samples.append([])

    def watch(self, seconds: float) -> bool:
        """Look at what there is for some time; whether the learner still lives."""
        assert self.learner is not None
        until = time.monotonic() + seconds
        while self.learner.poll() is None:
            self._sample()
            if (left := until - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, SAMPLE_SECONDS))
        return False

    def watch_until_it_goes_on(self) -> bool:
        """Until this learner has written another row of metrics; whether it lives."""
        before, until = self._rows(), time.monotonic() + PATIENCE
        while self._rows() == before:
            if not self.watch(SAMPLE_SECONDS):
                return False
            if time.monotonic() > until:
                raise TimeoutError(f"the run does not go on; its learner says: {self.said()}")
        return True

    def take_note_of_an_end(self, expected: int | None = None) -> None:
        """Remember an end that nobody has asked for, if there was one."""
        assert self.learner is not None
        if self.learner.poll() not in (None, expected):
            self.report.unexpected.append(f"{self.learner.returncode}: {self.said()}")
            self.say(f"the learner has ended by itself: {self.report.unexpected[-1]}")

    def said(self) -> str:
        """The end of what the learners have said."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def _rows(self) -> int:
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    # The replay.

    def acknowledge(self) -> None:
        """See what the replay holds now."""
        if self._reader is None:
            try:
                self._reader = Replay.open(self.run / "replay", capacity_steps=10**12, threads=1)
            except FileNotFoundError:
                return
        self._reader.refresh()
        self.acknowledged |= {number for number, _ in self._trials(self._reader)}

    def _trials(self, replay: Replay) -> list[tuple[int, int]]:
        ids = replay.ids().tolist()
        for id_ in ids:
            if id_ not in self._read:
                try:
                    self._read[id_] = read_trial(replay.get(id_))
                except ValueError as error:
                    self.report.torn.append(str(error))
                    self._read[id_] = -id_, -id_
        return [self._read[id_] for id_ in ids]

    # Memory.

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled < SAMPLE_SECONDS:
            return
        self._sampled = now
        assert self.learner is not None
        raylets = [number for number, command in descendants(os.getpid()).items() if "raylet/raylet" in command]
        store = max((resident_mb(number) for number in raylets), default=0.0)
        self.samples[-1].append((resident_mb(self.learner.pid), store))

    def read_all(self) -> list[tuple[int, int]]:
        """All trials that the replay has, read anew."""
        with Replay.open(self.run / "replay", capacity_steps=10**12) as replay:
            self.report.torn += [str(problem) for problem in replay.verify()]
            self._read = {}
            return self._trials(replay)

    # Kills.

    def kill(self, what: str) -> bool:
        """Kill an "actor", a "node" or the "learner", or let it end by "SIGTERM"; whether there was one."""
        match what:
            case "actor":
                running = descendants(os.getpid()).items()
                actors = [number for number, command in running if command.startswith("ray::Actor")]
                return bool(actors) and kill(self.random.choice(actors))
            case "node":
                return self._kill_node()
            case _:
                return self._end_learner(signal.SIGTERM if what == "SIGTERM" else signal.SIGKILL)

    def _kill_node(self) -> bool:
        """Kill -9 all processes of the second node, and start another some seconds later."""
        raylet = self._node.all_processes["raylet"][0].process.pid
        workers = descendants(raylet)
        self._cluster.remove_node(self._node, allow_graceful=False)
        for worker in workers:
            kill(worker)
        self.watch(self.random.uniform(0, 3))
        self._node = self._add_node()
        return True

    def _end_learner(self, how: signal.Signals) -> bool:
        """End the learner; what it has acknowledged by then is known."""
        assert self.learner is not None
        self.acknowledge()
        self.learner.send_signal(how)
        return self.learner.wait(PATIENCE) == (128 + how if how == signal.SIGTERM else -how)

    def close(self) -> None:
        """End everything."""
        if self.learner is not None:
            self.learner.kill()
            self.learner.wait()
        self._cluster.shutdown()


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        head, _, tail = name.rpartition(".")
        return [f"--{head}.{'' if value else 'no-'}{tail}"]
    return [f"--{name}", str(value)]


def kill_at_random(directory: Path, kills: dict[str, int], seed: int) -> Report:
    """Kill so many actors, nodes and learners of a run, and end others with SIGTERM; then let the run end.

    Most of those that a learner survives come first, all in random order, at random times.
    """
    supervisor = Supervisor(directory, seed)
    generator = supervisor.random
    others, learners = ([name for name in names for _ in range(kills[name])] for names in (SURVIVED, ENDS))
    generator.shuffle(others)
    first = len(others) * 3 // 4
    mixed = [*others[first:], *learners[1:]]
    generator.shuffle(mixed)
    try:
        supervisor.start_learner()
        supervisor.watch_until_it_goes_on()
        supervisor.say("the run goes on")
        for what in [*others[:first], *mixed, *learners[:1]]:
            _kill_one(supervisor, what)
        _finish(supervisor)
    finally:
        supervisor.close()
    (directory / "samples.json").write_text(json.dumps(supervisor.samples))
    supervisor.report.seconds = time.monotonic() - supervisor.began
    return supervisor.report


def _kill_one(supervisor: Supervisor, what: str) -> None:
    """Wait some time, and kill; where the learner ends by itself meanwhile, another begins."""
    generator, killed = supervisor.random, supervisor.report.killed
    while True:
        supervisor.start_learner()
        if what != "learner" or generator.random() < 0.5:
            lives = supervisor.watch_until_it_goes_on() and supervisor.watch(generator.uniform(0, 3))
        else:
            lives = supervisor.watch(generator.uniform(0, 10))
        if lives and supervisor.kill(what):
            break
        supervisor.take_note_of_an_end()
    killed[what] = killed.get(what, 0) + 1
    supervisor.acknowledge()
    supervisor.say(f"{what} killed, {killed[what]}; {len(supervisor.acknowledged)} trials are acknowledged")


def _finish(supervisor: Supervisor) -> None:
    """Let the run do two epochs more, to its end, and look at what it leaves."""
    report, epochs = supervisor.report, 3
    if (saved := checkpoint.latest(supervisor.run)) is not None:
        epochs += checkpoint.read_state(saved)["epoch"]
    supervisor.say(f"{epochs} epochs in all")
    supervisor.start_learner(epochs)
    if supervisor.watch(PATIENCE):
        raise TimeoutError(f"the run does not end; its learner says: {supervisor.said()}")
    supervisor.take_note_of_an_end(expected=0)
    if (found := checkpoint.latest(supervisor.run)) is not None:
        report.updates, report.wanted = checkpoint.read_state(found)["updates"], epochs * UPDATES
    trials = supervisor.read_all()
    stored, seeded = Counter(number for number, _ in trials), Counter(number for _, number in trials)
    report.acknowledged, report.stored = len(supervisor.acknowledged), len(trials)
    report.lost = len(supervisor.acknowledged - set(stored))
    report.repeated = sum(count - 1 for count in stored.values())
    report.reseeded = sum(count - 1 for count in seeded.values())
    longest = max(supervisor.samples, key=len)
    tenth = max(1, len(longest) // 10)
    for name, column in ("learner_mb", 0), ("store_mb", 1):
        values = [sample[column] for sample in longest]
        setattr(report, name, (_median(values[tenth : 2 * tenth]), _median(values[-tenth:])))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def kills_of_everything() -> list[Row]:
    """50 kills of actors, 10 of a node, 20 of a learner while a run trains: ten minutes."""
    kills = {"actor": 50, "node": 10, "learner": 20, "SIGTERM": 1}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "bench.cases.kills", directory]
        command += [word for what, count in kills.items() for word in (f"--{what}", str(count))]
        subprocess.run(command, cwd=ROOT, start_new_session=True, check=False)  # whose group Ray ends
        report = Report(**json.loads((Path(directory) / "report.json").read_text()))
    shape = ", ".join(f"{count} of {what}" for what, count in report.killed.items())
    counts = {
        "acknowledged trials that are lost": (report.lost, 0),
        "trials that are stored twice": (report.repeated, 0),
        "trials that are torn": (len(report.torn), 0),
        "ends of the learner by itself": (len(report.unexpected), 0),
        "updates that are not done": (report.wanted - report.updates, 0),
        "growth of the learner's memory": (100 * (report.learner_mb[1] / report.learner_mb[0] - 1), 5),
        "growth of the object store's memory": (100 * (report.store_mb[1] / report.store_mb[0] - 1), 5),
    }
    goals = tuple(
        Goal(f"kills: {text}", text, 1.0, at_most=most, unit="%" if most else "") for text, (_, most) in counts.items()
    )
    named = types.SimpleNamespace(goals=goals, shape=shape)
    figures = Figures({text: [float(value)] for text, (value, _) in counts.items()})
    seen = {"acknowledged": report.acknowledged, "stored": report.stored, "updates": report.updates}
    return [
        *(Row("kills", f"{name} in all", "actors", *[float(value)] * 3, "", shape) for name, value in seen.items()),
        *goal_rows(named, "actors", 1, figures, Figures()),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cases.kills", description=__doc__)
    parser.add_argument("directory", type=Path, help="a new one, for the run")
    for what in (*SURVIVED, *ENDS):
        parser.add_argument(f"--{what}", type=int, default=1, help="how many of these kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not any(getattr(options, what) for what in ENDS):
        parser.error("expected at least one kill that ends the learner, who would learn for ever")
    options.directory.mkdir(parents=True, exist_ok=True)
    kills = {what: getattr(options, what) for what in (*SURVIVED, *ENDS)}
    report = kill_at_random(options.directory.resolve(), kills, options.seed)
    (options.directory / "report.json").write_text(json.dumps(asdict(report), indent=1))
    print(json.dumps(asdict(report), indent=1))
    for fault in report.faults():
        print(f"FAULT: {fault}")
    return bool(report.faults())


if __name__ == "__main__":
    sys.exit(main())
