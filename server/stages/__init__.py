"""What the Python stages of the pipeline compute."""
