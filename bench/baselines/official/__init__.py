"""The official AMAGO code, run by an interpreter of its own that has no twohot."""
