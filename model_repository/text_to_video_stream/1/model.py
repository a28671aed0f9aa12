"""Leads requests through the stages and tells how far they are: the public model, streamed."""

from reelserve.server.listeners import StreamListener
from reelserve.server.stage_calls import conductor_of
from reelserve.server.triton_io import check_not_sequence, input_arrays

THREADS_PER_CLIP = 4
"""One watches, one calls the stages; a cancelled clip leaves one of each for a while."""


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out, in many responses: EVENT `[1]` STRING, JSON, always; PREVIEW `[1]` STRING, a PNG file;
    in the last one VIDEO and INFO, as `text_to_video` gives them.
    """

    def initialize(self, args):
        """Reads the bounds of the service."""
        self._conductor = conductor_of(args, THREADS_PER_CLIP)

    def execute(self, requests):
        """Accepts or refuses; what follows is sent from the conductor's threads."""
        for request in requests:
            listener = StreamListener(request)
            try:
                check_not_sequence(request)
                self._conductor.start(input_arrays(request), listener)
            except Exception as error:
                listener.fail(error)

    def finalize(self):
        """Ends what is in flight."""
        self._conductor.close()
