"""The official AMAGO code's learner step: PYTHON -m bench.baselines.official.step WORKLOAD, by its own interpreter.

docs/official.md says how to set both up. The step is what its `Experiment.train_step` does, without accelerate, which
has nothing to do on one CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import gin
import gymnasium as gym
import numpy as np
import torch
from amago import agent as official
from amago.loading import Batch
from amago.nets import actor_critic, cnn, traj_encoders, transformer, tstep_encoders

from bench.harness.worker import LearnerWorkload, serve


def spaces(workload: LearnerWorkload) -> tuple[gym.spaces.Dict, gym.spaces.Box, gym.Space]:
    """Observation space, space of (previous reward, previous action), and action space."""
    if workload.kind == "images":
        observation = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    else:
        observation = gym.spaces.Box(-np.inf, np.inf, (32,), np.float32)
    action = gym.spaces.Box(-1.0, 1.0, (4,), np.float32) if workload.kind == "continuous" else gym.spaces.Discrete(6)
    size = 4 if workload.kind == "continuous" else 6
    return gym.spaces.Dict(observation=observation), gym.spaces.Box(-np.inf, np.inf, (1 + size,)), action


def batch_of(workload: LearnerWorkload) -> Batch:
    """The batch of the workload in the official layout."""
    arrays = {name: torch.from_numpy(array) for name, array in workload.arrays().items()}
    action = arrays["action"]
    if workload.kind != "continuous":
        action = torch.nn.functional.one_hot(action, 6).float()
    reward = arrays["reward"].unsqueeze(-1)
    before = torch.cat((reward, action), dim=-1)
    return Batch(
        obs={"observation": arrays["observation"]},
        rl2s=torch.nn.functional.pad(before, (0, 0, 1, 0)),
        rews=reward,
        dones=arrays["terminated"].unsqueeze(-1),
        actions=action,
        time_idxs=torch.arange(workload.length + 1).expand(workload.batch, -1).unsqueeze(-1),
    )


def build(workload: LearnerWorkload) -> Callable[[], float]:
    """The step of the official MultiTaskAgent with its defaults, on one batch."""
    torch.distributions.Distribution.set_default_validate_args(False)  # softened labels are no one-hot vectors
    gin.bind_parameter("TformerTrajEncoder.attention_type", transformer.VanillaAttention)
    gin.bind_parameter("Multigammas.discrete", list(workload.all_discounts[:-1]))
    gin.bind_parameter("Multigammas.continuous", list(workload.all_discounts[:-1]))
    encoder = tstep_encoders.FFTstepEncoder
    if workload.kind == "images":
        gin.bind_parameter("CNNTstepEncoder.cnn_type", cnn.IMPALAishCNN)
        gin.bind_parameter("CNNTstepEncoder.drqv2_aug", True)
        encoder = tstep_encoders.CNNTstepEncoder
    observation, before, action = spaces(workload)
    agent = official.MultiTaskAgent(
        observation,
        before,
        action,
        tstep_encoder_type=encoder,
        traj_encoder_type=traj_encoders.TformerTrajEncoder,
        max_seq_len=workload.length + 1,
        num_critics=workload.critics,
        num_critics_td=min(2, workload.critics),
    )
    agent.train()
    assert isinstance(agent.critics, actor_critic.NCriticsTwoHot)
    assert len(agent.gammas) == workload.discounts
    optimizer = torch.optim.AdamW(agent.trainable_params, lr=1e-4, weight_decay=1e-3)
    batch = batch_of(workload)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=workload.precision == "bfloat16"):
            loss = agent(batch, log_step=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
        agent.soft_sync_targets()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    serve(build, warm=3)
