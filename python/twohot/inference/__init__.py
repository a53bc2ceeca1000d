"""A trained agent: acting, as an exported program, and its values of trajectories."""
