"""Leads requests through the stages and tells how far they are: the public model, streamed."""

from reelserve.server.listeners import StreamListener
from reelserve.server.public_model import PublicModel


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out, in many responses: EVENT `[1]` STRING, JSON, always; PREVIEW `[1]` STRING, a PNG file;
    in the last one VIDEO and INFO, as `text_to_video` gives them.
    """

    def initialize(self, args):
        """Reads the bounds of the service."""
        self._model = PublicModel(args, StreamListener)

    def execute(self, requests):
        """Answers later, from threads."""
        self._model.accept(requests)

    def finalize(self):
        """Ends what is in flight."""
        self._model.close()
