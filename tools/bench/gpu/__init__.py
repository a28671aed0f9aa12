"""Measures sized models through the real server on one GPU, phase by phase."""
