"""An ensemble of value classifiers over (step, discount, action), from the first layer to the loss and back in pieces."""
