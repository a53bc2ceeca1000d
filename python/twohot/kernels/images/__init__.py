"""Fused max-pooling, residual add and group norm for image encoders (CPU)."""
