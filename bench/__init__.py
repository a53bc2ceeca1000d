"""Benchmarks: `python -m bench.run GROUP` measures, `python -m bench.readme` writes the tables of the pages."""
