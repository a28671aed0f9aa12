"""Turns a checkpoint into the stages of a Triton model repository."""
