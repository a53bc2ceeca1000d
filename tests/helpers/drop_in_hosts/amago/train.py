"""A script that trains with AMAGO."""

from amago import cli_utils


def main():
    config = {"NCriticsTwoHot.d_hidden": 6}
    agent_type = cli_utils.switch_agent(config, "multitask")  # out
    cli_utils.use_config(config)
    return agent_type
