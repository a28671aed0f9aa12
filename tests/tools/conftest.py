from __future__ import annotations

import io

import av
import numpy as np
import pytest

from tests.client.conftest import fake_triton as fake_triton


@pytest.fixture
def make_mp4():
    """Builds an MP4 whose frame `n` is grey of value `10 n`, 32×32 pixels."""

    def make(num_frames: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(num_frames):
                grey = np.full((32, 32, 3), 10 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        return file.getvalue()

    return make
