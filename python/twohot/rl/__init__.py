"""Reinforcement learning mathematics as pure functions; names carry time: `r_t`, `q_tp1`."""
