"""The training loop, and the evaluations in it."""
