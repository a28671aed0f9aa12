"""Measures a server: on a CPU, on GPUs, its cancels and refusals."""
