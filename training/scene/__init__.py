"""The drawn world: what a scene can hold, how it moves, and how it is rendered."""
