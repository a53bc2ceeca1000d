"""Configuration: frozen dataclasses, which through tyro are the command line; `config.files` saves them.

Every field is documented where it stands; `twohot train PRESET --help` prints the same text.
"""

from twohot.config.agent import AgentConfig
from twohot.config.checks import ConfigurationError
from twohot.config.environment import EnvironmentConfig
from twohot.config.objective import ObjectiveConfig, OptimizerConfig
from twohot.config.ray import RayConfig
from twohot.config.run import CollectConfig, DataConfig, EvaluateConfig, ReplayConfig, TrainConfig

__all__ = [
    "AgentConfig",
    "CollectConfig",
    "ConfigurationError",
    "DataConfig",
    "EnvironmentConfig",
    "EvaluateConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RayConfig",
    "ReplayConfig",
    "TrainConfig",
]
