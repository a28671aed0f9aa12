"""Starts NVIDIA Triton Inference Server over the model repository."""
