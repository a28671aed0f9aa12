"""Leads a request through the stages: the public model, answered once."""

from reelserve.server.listeners import UnaryListener
from reelserve.server.stage_calls import conductor_of
from reelserve.server.triton_io import check_not_sequence, error_response, input_arrays

THREADS_PER_CLIP = 4
"""One calls the stages; cancelled clips leave one each for a while."""


class TritonPythonModel:
    """In: the public request, one element each; see `prompt_processor`.

    Out: VIDEO `[1]` STRING, the bytes of an MP4 file; INFO `[1]` STRING, JSON.

    Every instance holds one request and looks all the time whether its client is still there;
    an ensemble would see that only between two stages.
    """

    def initialize(self, args):
        """Reads the bounds of the service."""
        self._conductor = conductor_of(args, THREADS_PER_CLIP, clips=1)

    def execute(self, requests):
        """Answers every request by itself."""
        return [self._answer(request) for request in requests]

    def finalize(self):
        """Ends what is in flight."""
        self._conductor.close()

    def _answer(self, request):
        listener = UnaryListener(request)
        try:
            check_not_sequence(request)
            self._conductor.lead(input_arrays(request), listener)
        except Exception as error:
            return error_response(error)
        return listener.answer
