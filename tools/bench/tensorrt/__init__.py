"""Measures TensorRT plans beside the other engines on one GPU, part by part."""
