"""The official AMAGO code's collecting: PYTHON -m bench.baselines.official.collect WORKLOAD, by its own interpreter.

docs/official.md says how to set both up. What is timed is its `Experiment.collect_new_training_data`: policy,
exploration, environments, and whole trajectories written to a directory in TMPDIR.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import amago
import torch
from amago import cli_utils
from amago.envs.builtin.popgym_envs import POPGymAMAGO
from amago.loading import DiskTrajDataset
from amago.nets import transformer

from bench.harness.worker import CollectingWorkload, serve


def build(workload: CollectingWorkload) -> Callable[[], float]:
    """Collect so many steps with every actor."""
    torch.distributions.Distribution.set_default_validate_args(False)
    bound = {}
    encoder = cli_utils.switch_tstep_encoder(bound, "ff", n_layers=2, d_hidden=512, d_output=128)
    attention = transformer.VanillaAttention
    memory = cli_utils.switch_traj_encoder(bound, "transformer", 128, 3, d_ff=512, n_heads=8, attention_type=attention)
    agent = cli_utils.switch_agent(bound, "multitask")
    exploration = cli_utils.switch_exploration(bound, "egreedy", steps_anneal=1_000_000)
    cli_utils.use_config(bound)
    directory = tempfile.mkdtemp()

    def make() -> POPGymAMAGO:
        return POPGymAMAGO("popgym-RepeatPreviousEasy-v0", truncated_is_done=True)

    experiment = amago.Experiment(
        run_name="run",
        ckpt_base_dir=directory,
        dataset=DiskTrajDataset(directory, "run", 1_000_000),
        make_train_env=make,
        make_val_env=make,
        env_mode=workload.mode,
        parallel_actors=workload.actors,
        train_timesteps_per_epoch=workload.steps,
        val_timesteps_per_epoch=workload.steps,
        max_seq_len=workload.context,
        traj_save_len=workload.context,
        dloader_workers=0,
        ckpt_interval=None,
        always_save_latest=False,
        verbose=False,
        tstep_encoder_type=encoder,
        traj_encoder_type=memory,
        agent_type=agent,
        exploration_wrapper_type=exploration,
    )
    experiment.start()
    experiment.epoch = 0

    def step() -> float:
        experiment.collect_new_training_data()
        return 0.0

    return step


if __name__ == "__main__":
    serve(build, warm=1, kind=CollectingWorkload)
