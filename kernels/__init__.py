"""Fused GPU kernels: reference, kernel, torch op, launch table; benchmarks beside them."""
