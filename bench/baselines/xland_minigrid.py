"""XLand-MiniGrid as `bench/groups/xgrid.py` times it, in a process of its own on one core.

    python bench/baselines/xland_minigrid.py ENVS SIZE ROOMS ARRAYS

ARRAYS is an .npz with goals, rules and objects. Each line from stdin asks for a round, whose steps/s are written as a
line; the first line that is written says that everything is compiled and warm. Needs jax and xminigrid alone.
"""

import os
import sys
import time

STEPS = 64
"""Of each environment in a round, all in one call of compiled code, which is the fastest way that it offers."""


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    import numpy as np
    import xminigrid
    from xminigrid.types import RuleSet
    from xminigrid.wrappers import GymAutoResetWrapper

    envs, size, rooms = map(int, sys.argv[1:4])
    arrays = np.load(sys.argv[4])
    env, params = xminigrid.make(f"XLand-MiniGrid-R{rooms}-{size}x{size}")
    env, params = GymAutoResetWrapper(env), params.replace(view_size=5)
    own = np.arange(envs) % len(arrays["goals"])
    rule_sets = RuleSet(*(jax.numpy.asarray(arrays[name][own]) for name in ("goals", "rules", "objects")))

    def play(key, timestep, rule_set):
        """STEPS random steps of one environment, and a sum of all that it shows, so that nothing is left out."""

        def step(carry, key):
            timestep, total = carry
            timestep = env.step(params.replace(ruleset=rule_set), timestep, jax.random.randint(key, (), 0, 6))
            return (timestep, total + timestep.reward + timestep.observation.sum()), None

        return jax.lax.scan(step, (timestep, 0.0), jax.random.split(key, STEPS))[0]

    def begin(key, rule_set):
        return env.reset(params.replace(ruleset=rule_set), key)

    keys = jax.random.split(jax.random.key(0), envs)
    timestep = jax.jit(jax.vmap(begin))(keys, rule_sets)
    play_all = jax.jit(jax.vmap(play))
    for number in range(2):
        timestep, _ = jax.block_until_ready(
            play_all(jax.random.split(jax.random.key(number), envs), timestep, rule_sets)
        )
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        keys = jax.block_until_ready(jax.random.split(jax.random.key(2 + number), envs))
        start = time.perf_counter()
        timestep, _ = jax.block_until_ready(play_all(keys, timestep, rule_sets))
        print(envs * STEPS / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
