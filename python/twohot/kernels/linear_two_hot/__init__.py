"""The last linear layer fused with the two-hot operations, so that the logits never exist as a whole."""
