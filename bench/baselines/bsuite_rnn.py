"""bsuite's recurrent actor-critic (JAX), as the package has it, on ids of bsuite, logged for its scores.

    python bench/baselines/bsuite_rnn.py --ids catch_scale/0 ... --seeds 0 1 ... --logs FOLDER [--episodes N]

It runs in an environment of its own, which docs/benchmarks/bsuite.md says how to make, and imports nothing of twohot.
FOLDER gets a folder seed_N for each seed, with a log for each id; `python -m bench.bsuite FOLDER/seed_*` scores them. A
log that is complete is not made again.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import bsuite
import numpy as np
from bsuite.baselines import experiment
from bsuite.baselines.jax import actor_critic_rnn


def last_episode(log: Path) -> int:
    """Of a log, or 0 where there is none."""
    if not log.exists():
        return 0
    with log.open(newline="") as file:
        return max((int(row["episode"]) for row in csv.DictReader(file)), default=0)


def main() -> None:
    """Run every id with every seed, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=0, help="0 means as many as bsuite scores")
    options = parser.parse_args()
    for seed in options.seeds:
        folder = options.logs / f"seed_{seed}"
        for task in options.ids:
            log = folder / f"bsuite_id_-_{task.replace('/', '-')}.csv"
            episodes = options.episodes or bsuite.load_from_id(task).bsuite_num_episodes
            if last_episode(log) >= episodes:
                continue
            environment = bsuite.load_and_record(task, str(folder), overwrite=True)
            environment.raw_env._rng = np.random.RandomState(seed)
            agent = actor_critic_rnn.default_agent(environment.observation_spec(), environment.action_spec(), seed=seed)
            began = time.perf_counter()
            experiment.run(agent, environment, num_episodes=episodes, verbose=False)
            print(f"{task}, seed {seed}: {episodes} episodes in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
