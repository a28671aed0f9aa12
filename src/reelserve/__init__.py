"""Text in, MP4 out: a production text-to-video stack on NVIDIA Triton Inference Server."""

__version__ = "0.1.0"
