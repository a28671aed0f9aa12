"""Draws one clip through a server that it starts and stops."""
