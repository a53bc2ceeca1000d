"""A Transformer's layer in training, in two native passes around its attention."""
