"""Two-hot and HL-Gauss value classification: labels, cross-entropy, readout."""
