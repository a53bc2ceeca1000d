"""How benchmarks measure: interleaved timing, peak memory, comparisons, worker processes, results on disk."""
