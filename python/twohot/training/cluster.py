"""Ray, where processes of its are asked for: started on this machine, or joined."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from twohot.config import ConfigurationError, TrainConfig
from twohot.extras import package
from twohot.training.interruption import Interrupted

LISTEN_SECONDS = 10.0
NICENESS = "5"
"""Of actors. With Ray's own 15 they wait for the learner's core while another is free; with 0 it waits for them."""


def cluster(config: TrainConfig) -> AbstractContextManager[None]:
    """A connection to Ray within the block, where the configuration has actors or several learners; see `connected`."""
    ray, needs = config.ray, {}
    if config.actors:
        needs[f"actors: {config.actors} with {ray.cpus_per_actor:g} CPUs each"] = config.actors * ray.cpus_per_actor
    if config.learners > 1:
        threads = max(1, config.threads)
        needs[f"learners: {config.learners} with {threads} CPUs each"] = float(config.learners * threads)
    return connected(ray.address, needs, "--actors" if config.actors else "--learners") if needs else nullcontext()


@contextmanager
def connected(address: str, needs: Mapping[str, float], what: str) -> Iterator[None]:
    """A connection to Ray within the block; one that there is already is taken.

    Args:
        address: of a cluster, as `ray.init` takes it; empty starts Ray on this machine, with as many CPUs as needed.
        needs: CPUs, by what says who needs them. what: needs Ray.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigurationError: there is no cluster at the address, or it has fewer CPUs.
        Interrupted: by a SIGTERM that nobody else has heard.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each start
    os.environ.setdefault(
        "RAY_DEDUP_LOGS_SKIP_REGEX", "."
    )  # what it prints of processes that end: its log files have it
    os.environ.setdefault("RAY_worker_niceness", NICENESS)
    ray = package("ray", "ray", what)
    made, needed = not ray.is_initialized(), sum(needs.values())
    before = signal.getsignal(signal.SIGTERM)
    try:
        if made:
            _start_or_join(ray, address, needed)
        found = ray.cluster_resources().get("CPU", 0.0)
        if found < needed:
            raise ConfigurationError(
                f"{' and '.join(needs)} need {needed:g} CPUs, the cluster has {found:g}, {needed - found:g} too few: "
                "start more nodes, or ask for less"
            )
        yield
    except SystemExit as end:
        if made and end.code == signal.SIGTERM:  # by Ray's handler
            raise Interrupted(signal.SIGTERM) from end
        raise
    finally:
        if made:
            ray.shutdown()
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray's ends the process


def _start_or_join(ray: Any, address: str, cpus: float) -> None:
    quiet = {"include_dashboard": False} if not address else {}
    options = {"address": address} if address else {"num_cpus": math.ceil(cpus) + 1, "address": "local"}
    try:
        _require_listening(address)
        ray.init(log_to_driver=False, logging_level="error", **quiet, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ConfigurationError(
            f"ray: no cluster can be joined at {address!r} ({reason:.200}); `ray start --head` starts one, "
            "one that asks for tokens needs RAY_AUTH_MODE=token here too, and without an address Ray is started on "
            "this machine"
            if address
            else f"ray: cannot be started on this machine ({reason:.200})"
        ) from error


def _require_listening(address: str) -> None:
    """Raise OSError where nobody listens, which Ray takes minutes to say."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTEN_SECONDS).close()
