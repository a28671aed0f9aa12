"""Leads requests through the stages: the public model, answered once."""

from reelserve.server.listeners import UnaryListener
from reelserve.server.public_model import PublicModel


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out: VIDEO `[1]` STRING, the bytes of an MP4 file; INFO `[1]` STRING, JSON.

    Its process looks all the time whether the clients are still there; an ensemble would see
    that only between two stages.
    """

    def initialize(self, args):
        """Reads the bounds of the service."""
        self._model = PublicModel(args, UnaryListener)

    def execute(self, requests):
        """Answers later, from threads."""
        self._model.accept(requests)

    def finalize(self):
        """Ends what is in flight."""
        self._model.close()
