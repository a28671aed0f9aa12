"""Torch modules of the stages: denoiser, video VAE, frame consistency, upsampler."""
