"""Studies: settings of a preset compared over seeds, from a committed file; their raw results lie beside it."""
