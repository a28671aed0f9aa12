"""What runs an exported graph inside Triton."""
