"""Starts, watches and restarts Tritons behind the front end."""
