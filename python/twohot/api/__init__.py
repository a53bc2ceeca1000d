"""What programs call to train an agent and to look at a run; `twohot.train` and `twohot.Run` are these."""
