"""The official AMAGO code trained on a small task, by its own interpreter: python train.py ORDER, from its checkout.

docs/official.md says how to set both up. ORDER is JSON: "config", a run's configuration as twohot saves it; "seconds"
of training, which ends with the first epoch after them; "agent", a name that the official code registers; and "task",
the options of the suite's task. The last line printed is JSON: "returns" [trials, attempts], "steps", "updates" and
"seconds".
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import amago
import gymnasium as gym
import numpy as np
import torch
from amago import cli_utils
from amago.envs import AMAGO_ENV_LOG_PREFIX, AMAGOEnv
from amago.envs.builtin.toy_gym import MetaFrozenLake, RoomKeyDoor
from amago.loading import DiskTrajDataset
from amago.nets import transformer
from amago.utils import call_async_env

PARTS = 10
"""Parts in which a trial of Dark-Key-To-Door is reported."""
RETURNS = "returns"


class Attempts(gym.Wrapper):
    """Reports the return of every attempt of a trial with its last step; `part` says which attempt a step is of."""

    def __init__(self, env: gym.Env, parts: int, part: Callable[[gym.Env], int]) -> None:
        super().__init__(env)
        self.parts, self.part = parts, part

    def reset(self, **arguments: Any) -> tuple[np.ndarray, dict]:
        self.returns = np.zeros(self.parts)
        return self.env.reset(**arguments)

    def step(self, action: int) -> tuple:
        part = self.part(self.unwrapped)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.returns[part] += reward
        if terminated or truncated:
            info[f"{AMAGO_ENV_LOG_PREFIX} {RETURNS}"] = self.returns
        return observation, reward, terminated, truncated, info


def environment(settings: dict[str, Any], task: dict[str, Any]) -> tuple[Callable[[], AMAGOEnv], int, int]:
    """What makes the task, its attempts, and the most steps of a trial."""
    size = task["size"]
    if settings["suite"] == "frozen_lake":
        attempts, steps = settings["attempts"], size * size * settings["attempts"]

        def make() -> gym.Env:
            return Attempts(MetaFrozenLake(size, k_episodes=attempts), attempts, lambda lake: lake.current_k)
    else:
        attempts, steps, limit = PARTS, task["trial_steps"], task["attempt_steps"]

        def make() -> gym.Env:
            room = RoomKeyDoor(size=size, max_episode_steps=limit, meta_rollout_horizon=steps)
            return Attempts(room, PARTS, lambda room: room.global_time * PARTS // steps)

    return lambda: AMAGOEnv(make(), env_name=settings["suite"].replace("_", "-")), attempts, steps


def bind(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Bind the sizes and constants of the configuration; returns the types that an experiment takes."""
    agent, objective, collect = config["agent"], config["objective"], config["collect"]
    bound: dict[str, Any] = {}
    encoder = cli_utils.switch_tstep_encoder(
        bound, "ff", n_layers=agent["encoder_layers"], d_hidden=agent["encoder_hidden"], d_output=agent["width"]
    )
    memory = cli_utils.switch_traj_encoder(
        bound,
        "transformer",
        agent["width"],
        agent["layers"],
        d_ff=agent["feed_forward"],
        n_heads=agent["heads"],
        dropout_ff=agent["dropout"],
        dropout_emb=agent["dropout"],
        attention_type=transformer.VanillaAttention,
    )
    kind = cli_utils.switch_agent(
        bound,
        name,
        gamma=agent["discount"],
        num_critics=agent["critics"],
        num_critics_td=objective["critic_subset"],
        reward_multiplier=objective["reward_multiplier"],
        tau=objective["target_rate"],
    )
    strategy, own = "egreedy", {"eps_start": collect["epsilon_start"], "eps_end": collect["epsilon_end"]}
    if collect["trial_epsilon_steps"]:
        strategy, own = "bilevel", {"rollout_horizon": collect["trial_epsilon_steps"]}
        for at in ("start", "end"):
            own |= {f"eps_start_{at}": collect[f"epsilon_{at}"], f"eps_end_{at}": collect[f"trial_epsilon_{at}"]}
    own |= {"steps_anneal": collect["epsilon_steps"] // collect["environments"]}  # each actor counts its own
    # The random multiplier stays on: without it the wrapper raises at the end of its first trial.
    exploration = cli_utils.switch_exploration(bound, strategy, **own)
    for head in ("Actor", "NCritics", "NCriticsTwoHot"):
        bound |= {f"{head}.n_layers": agent["head_layers"], f"{head}.d_hidden": agent["head_hidden"]}
    bound |= {
        "Multigammas.discrete": list(agent["training_discounts"]),
        "NCriticsTwoHot.min_return": agent["bins"]["low"],
        "NCriticsTwoHot.max_return": agent["bins"]["high"],
        "NCriticsTwoHot.output_bins": agent["bins"]["count"],
        "NCriticsTwoHot.use_symlog": agent["bins"]["transform"] == "symlog",
    }
    cli_utils.use_config(bound)
    return {
        "tstep_encoder_type": encoder,
        "traj_encoder_type": memory,
        "agent_type": kind,
        "exploration_wrapper_type": exploration,
    }


def experiment_of(order: dict[str, Any], directory: str) -> tuple[amago.Experiment, int, int]:
    """The official experiment with the configuration's schedule, the task's attempts, and the most steps of a trial."""
    config = order["config"]
    make, attempts, steps = environment(config["environment"], order["task"])
    optimizer, collect = config["optimizer"], config["collect"]
    experiment = amago.Experiment(
        run_name="run",
        ckpt_base_dir=directory,
        dataset=DiskTrajDataset(directory, "run", config["replay"]["capacity_steps"]),  # counts trials: never full here
        make_train_env=make,
        make_val_env=make,
        env_mode="sync",
        parallel_actors=collect["environments"],
        train_timesteps_per_epoch=collect["steps_per_epoch"],
        train_batches_per_epoch=config["updates_per_epoch"],
        start_learning_at_epoch=config["warmup_epochs"],
        batch_size=config["batch_size"],
        max_seq_len=config["window"],
        traj_save_len=steps + 1,
        stagger_traj_file_lengths=False,
        dloader_workers=1,
        learning_rate=optimizer["learning_rate"],
        l2_coeff=optimizer["weight_decay"],
        grad_clip=optimizer["gradient_clip"],
        lr_warmup_steps=optimizer["warmup_updates"],
        val_timesteps_per_epoch=steps,
        val_interval=None,
        ckpt_interval=None,
        always_save_latest=False,
        verbose=False,
        **bind(config, order["agent"]),
    )
    experiment.start()
    return experiment, attempts, steps


def evaluate(experiment: amago.Experiment, attempts: int, steps: int, trials: int) -> np.ndarray:
    """Returns [trials, attempts] without exploration: of the first trials of every actor, be they short or long."""
    actors = experiment.parallel_actors
    each = -(-trials // actors)
    experiment.val_envs.reset()
    experiment.interact(experiment.val_envs, each * steps, sample=experiment.sample_actions_val)
    histories = call_async_env(experiment.val_envs, "special_history")
    found = [own[RETURNS] for history in histories for own in history.data.values()]
    return np.concatenate([np.reshape(own, (-1, attempts))[:each] for own in found])


def main(order: dict[str, Any]) -> dict[str, Any]:
    """Train for the time ordered and evaluate."""
    config = order["config"]
    torch.set_num_threads(config["threads"])
    torch.distributions.Distribution.set_default_validate_args(False)  # softened labels are no one-hot vectors
    random.seed(config["seed"])
    np.random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    with tempfile.TemporaryDirectory() as directory:
        experiment, attempts, steps = experiment_of(order, directory)
        start, epoch = time.perf_counter(), 0
        while time.perf_counter() - start < order["seconds"]:
            experiment.epoch, experiment.epochs = epoch, epoch + 1
            experiment.learn()
            epoch += 1
        seconds = time.perf_counter() - start
        returns = evaluate(experiment, attempts, steps, config["evaluate"]["final_trials"])
    return {
        "returns": returns.tolist(),
        "steps": epoch * config["collect"]["steps_per_epoch"] * config["collect"]["environments"],
        "updates": experiment.grad_update_counter,
        "seconds": seconds,
    }


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else the code prints is no answer
    print(json.dumps(main(json.loads(sys.argv[1]))), file=answers, flush=True)
