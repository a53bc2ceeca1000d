"""Kernels by operation; installed as `twohot.kernels`, and never imported as `kernels`."""
