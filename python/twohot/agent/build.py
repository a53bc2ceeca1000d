"""The networks that a configuration names."""

from __future__ import annotations

from gymnasium import Space, spaces

from twohot.config import AgentConfig
from twohot.nets import actor
from twohot.nets.critic import CriticEnsemble
from twohot.nets.images import RandomShift
from twohot.nets.interfaces import ActorNetwork, TimestepNetwork, TrajectoryNetwork
from twohot.nets.output_critic import OutputCritics
from twohot.nets.predictor import Predictor
from twohot.nets.registry import (
    ACTORS,
    TIMESTEP_ENCODERS,
    TRAJECTORY_ENCODERS,
    register_actor,
    register_timestep_encoder,
    register_trajectory_encoder,
)
from twohot.nets.set_memory import SetMemory
from twohot.nets.timestep import TimestepEncoder
from twohot.nets.trajectory import FeedForwardMemory, GRUMemory, IdentityMemory
from twohot.nets.transformer import Transformer


def make_timestep_encoder(config: AgentConfig, observation_space: spaces.Dict, action_space: Space) -> TimestepNetwork:
    """The timestep encoder that `config.timestep_encoder` names.

    Raises:
        UnknownNetworkError: when it names none. SpaceError: when the spaces do not fit it.
    """
    return TIMESTEP_ENCODERS.make(config.timestep_encoder, config, observation_space, action_space)


def make_trajectory_encoder(config: AgentConfig) -> TrajectoryNetwork:
    """The trajectory encoder that `config.memory` names.

    Raises:
        UnknownNetworkError: when it names none.
    """
    return TRAJECTORY_ENCODERS.make(config.memory, config)


def make_critics(config: AgentConfig, action_space: Space, outputs: int) -> CriticEnsemble | OutputCritics:
    """The critics; `outputs` of each, for an action that is an input."""
    sizes = config.width, config.head_hidden, config.head_layers, config.critics
    softened = (config.probability_floor, config.probability_ceiling) if config.soften_stored_actions else None
    if config.critic_actions == "outputs" and isinstance(action_space, spaces.Discrete):
        return OutputCritics(*sizes, len(config.discounts), action_space, softened=softened)
    return CriticEnsemble(
        *sizes,
        config.discounts,
        action_space,
        outputs,
        action_clip=config.critic_action_clip,
        head_scale=1.0 if config.critic == "scalar" else config.logit_scale,
        softened=softened,
    )


def make_predictor(config: AgentConfig, observation_space: spaces.Dict, action_space: Space) -> Predictor:
    """What learns to predict the next step; it is of the size of a critic, and its rewards are in the critics' bins.

    Raises:
        SpaceError: when an entry of the observation is not what its name says.
    """
    sizes = config.width, config.head_hidden, config.head_layers, config.bins.count
    return Predictor(observation_space, action_space, *sizes, excluded_keys=config.excluded_keys)


def make_actor(config: AgentConfig, action_space: Space) -> ActorNetwork:
    """The actor that `config.actor` names.

    Raises:
        UnknownNetworkError: when it names none.
    """
    return ACTORS.make(config.actor, config, action_space)


@register_timestep_encoder("default")
def _timestep(config: AgentConfig, observation_space: spaces.Dict, action_space: Space) -> TimestepEncoder:
    return TimestepEncoder(
        observation_space,
        action_space,
        hidden=config.encoder_hidden,
        layers=config.encoder_layers,
        width=config.width,
        images=config.images,
        grids=config.grids,
        random_shift=RandomShift(config.random_shift, config.random_shift_fraction, config.random_shift_by),
        vocabulary=config.vocabulary,
        normalize=config.normalize,
        normalization=config.normalization,
        previous_action=config.previous_action,
        previous_reward=config.previous_reward,
        excluded_keys=config.excluded_keys,
    )


@register_trajectory_encoder("transformer")
def _transformer(config: AgentConfig) -> Transformer:
    return Transformer(
        config.width,
        config.layers,
        config.heads,
        config.feed_forward,
        config.dropout,
        config.context,
        positions=config.positions,
        learned_positions=config.learned_positions,
        recompute=config.recompute,
        input_projection=config.input_projection,
    )


@register_trajectory_encoder("gru")
def _gru(config: AgentConfig) -> GRUMemory:
    return GRUMemory(config.width, config.layers, config.dropout)


@register_trajectory_encoder("feedforward")
def _feedforward(config: AgentConfig) -> FeedForwardMemory:
    return FeedForwardMemory(config.width, config.layers, config.feed_forward, config.dropout)


@register_trajectory_encoder("set")
def _set(config: AgentConfig) -> SetMemory:
    return SetMemory(config.width, config.feed_forward, config.layers, config.latent_size, config.latent_steps)


@register_trajectory_encoder("identity")
def _identity(config: AgentConfig) -> IdentityMemory:
    return IdentityMemory()


@register_actor("default")
def _actor(config: AgentConfig, action_space: Space) -> actor.Actor:
    return actor.make_actor(
        action_space,
        config.width,
        config.head_hidden,
        config.head_layers,
        len(config.discounts),
        floor=config.probability_floor,
        ceiling=config.probability_ceiling,
        continuous=config.continuous,
        components=config.mixture_components,
        density_clip=config.density_clip,
        temperature=config.gumbel_temperature,
    )
