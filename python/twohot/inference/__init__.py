"""A trained agent: acting, as a program of its own, and what it thinks of trajectories."""
