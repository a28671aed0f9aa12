"""What a stage answers when it cannot compute, besides `ValueError` for a bad request."""


class UnavailableError(RuntimeError):
    """The server is full or shutting down; UNAVAILABLE."""


class CancelledError(RuntimeError):
    """The client gave up; CANCELLED."""


class StageError(RuntimeError):
    """Another stage failed; INTERNAL."""
