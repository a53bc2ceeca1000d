"""Experience: rollouts, recorded data, and what a run learns from."""
