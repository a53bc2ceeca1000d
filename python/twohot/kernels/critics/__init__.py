"""An ensemble of value classifiers over (step, discount, action): first layer to loss and back, in tiles of rows."""
