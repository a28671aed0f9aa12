"""Trains and scores the bundled checkpoint."""
