"""Whether one installation of twohot acts as fast as another: pairs of processes, one of each, in turn.

    python bench/acting_speed.py OLD/bin/python NEW/bin/python [--pairs 20] [--steps 50]

Prints the median, over pairs, of the old seconds of a collection over the new, each the least of its process: 16 actors
in one task of POPGym, with networks frozen anew for each collection (0.1 acts with the networks themselves).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

WORKER = """
import sys, time
import torch
from twohot.agent import AgentNetworks
from twohot.config import AgentConfig
from twohot.envs import make_vector, reset_seeds
try:
    from twohot.data.rollout import Rollout, seeded_generator
    from twohot.nets.frozen import freeze
except ImportError:  # 0.1
    from twohot.rollout import Rollout, seeded_generator
    freeze = lambda agent: agent

steps, actors = int(sys.argv[1]), 16
clock = {"wall": time.perf_counter, "cpu": time.process_time}[sys.argv[3]]
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(0)
vector = make_vector("popgym", ("RepeatPreviousEasy",), environments=actors)
config = AgentConfig(width=128, feed_forward=512, context=128)
agent = AgentNetworks(config, vector.single_observation_space, vector.single_action_space).eval()
player = Rollout(vector, freeze(agent), generator=seeded_generator(0, 0))
player.restart(reset_seeds(0, 0, actors))
player.collect(20)
for line in sys.stdin:
    with torch.no_grad():
        agent.trajectory_encoder.norm.bias.add_(0)  # as an update would: weights are packed anew
    start = clock()
    player.policy = freeze(agent)
    player.collect(steps)
    print(clock() - start, flush=True)
"""
ROUNDS = 12


def seconds(pythons: Sequence[str], *settings: object) -> list[float]:
    """Of the fastest collection of each of these installations, whose processes take turns."""
    with ExitStack() as stack:
        workers = []
        for python in pythons:
            command = [python, "-c", WORKER, *map(str, settings)]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            workers.append(stack.enter_context(worker))
        rounds = [[_collect(worker) for worker in workers] for _ in range(ROUNDS)]
        for worker in workers:
            worker.stdin.close()
    return [min(each) for each in zip(*rounds, strict=True)]


def _collect(worker: subprocess.Popen) -> float:
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="the Python of one installation")
    parser.add_argument("new", help="the Python of the other")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50, help="of each actor in a collection")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu, with one thread, on a busy machine"
    )
    arguments = parser.parse_args()
    settings = arguments.steps, arguments.threads, arguments.clock
    ratios = []
    for pair in range(arguments.pairs):
        first = pair % 2  # which of them begins
        pythons = (arguments.old, arguments.new)
        found = seconds(pythons if first == 0 else pythons[::-1], *settings)
        old, new = found if first == 0 else found[::-1]
        ratios.append(old / new)
        print(f"{old:.4f} s, {new:.4f} s: {ratios[-1]:.3f}", file=sys.stderr, flush=True)
    print(f"median ratio of {len(ratios)} pairs: {median(ratios):.3f}")


if __name__ == "__main__":
    main()
