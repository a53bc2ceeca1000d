"""Stand-in for this module of AMAGO, whose names it has."""

import gin
from amago.agent import MultiTaskAgent


def switch_agent(config, agent, **kwargs):
    kind = {"multitask": MultiTaskAgent}[agent]
    config.update({f"{kind.__module__}.{kind.__name__}.{name}": value for name, value in kwargs.items()})
    return kind


def use_config(custom_params):
    for name, value in custom_params.items():
        gin.bind_parameter(name, value)
