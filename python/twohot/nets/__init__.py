"""Networks: timestep encoders, trajectory encoders, actor heads, critic heads."""
