"""What a stage answers when it cannot compute, besides `ValueError` for a bad request."""


class OverCapacityError(RuntimeError):
    """The server holds as many requests as it may; UNAVAILABLE."""


class CancelledError(RuntimeError):
    """The client gave up; CANCELLED."""


class StageError(RuntimeError):
    """Another stage failed; INTERNAL."""
