"""Causal attention: whole windows for training, one step against a ring of keys and values for rollouts."""
