"""Times the kernels on one GPU against what PyTorch offers."""
