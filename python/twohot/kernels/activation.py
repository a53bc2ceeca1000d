"""What all layers have between their products."""

LEAKY_RELU_SLOPE = 0.01
"""Of leaky ReLU below 0."""
