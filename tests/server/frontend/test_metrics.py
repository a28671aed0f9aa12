import math
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reelserve.pipeline.contract import ENSEMBLE_STAGES
from reelserve.server import metric_table
from reelserve.server.frontend.metrics import Recorder, exposition, merged
from reelserve.server.metric_table import OF_FRONT_END

TRITON = """\
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{{model="denoiser",version="1"}} {0}
nv_inference_count{{model="a, {{odd}} \\"name\\"",version="1"}} 0
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
# HELP reelserve_step_seconds Seconds of a denoising step of the batch
# TYPE reelserve_step_seconds histogram
reelserve_step_seconds_count {0}
reelserve_step_seconds_sum 1e-05
reelserve_step_seconds_bucket{{le="0.01"}} {0}
reelserve_step_seconds_bucket{{le="+Inf"}} {0}
"""


@pytest.fixture
def recorder():
    return Recorder(
        {
            metric_table.MAX_REQUESTS_IN_FLIGHT: lambda: 12,
            metric_table.REQUESTS_IN_FLIGHT: lambda: 3,
            metric_table.TRITONS_READY: lambda: 2,
        }
    )


def samples(text):
    """Series to value; the parser has counters end with `_total`."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


class Triton:
    """Its metrics, by HTTP."""

    def __init__(self, text, path):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.path, self.server = path, UnixStreamServer(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self.path

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def test_merged_tells_tritons_apart_and_stays_readable():
    text = merged({"gpu0": TRITON.format(5), "gpu1": TRITON.format(7)})
    found = samples(text)

    for name, value in (("gpu0", 5), ("gpu1", 7)):
        label = ("triton", name)
        assert (
            found["nv_inference_count_total", ("model", "denoiser"), label, ("version", "1")]
            == value
        )
        assert found["nv_cpu_utilization", label] == 0.5
        assert found["reelserve_step_seconds_count", label] == value
        assert found["reelserve_step_seconds_bucket", ("le", "+Inf"), label] == value
    families = [family.name for family in text_string_to_metric_families(text)]
    assert families == ["nv_inference_count", "nv_cpu_utilization", "reelserve_step_seconds"]
    assert text.count("# HELP") == text.count("# TYPE") == 3


def test_merged_takes_families_that_one_triton_alone_has():
    text = merged({"gpu0": TRITON.format(5), "gpu1": "# HELP x y\n# TYPE x gauge\nx 1\n"})
    assert samples(text)["x", ("triton", "gpu1")] == 1
    assert merged({}) == ""


def test_exposition_joins_ours_and_tritons(recorder, tmp_path):
    with Triton(TRITON.format(5), tmp_path / "metrics") as path:
        found = samples(exposition(recorder.registry, {"triton": path}).decode())

    assert found["nv_inference_count_total", ("model", "denoiser"), ("version", "1")] == 5
    assert found[("nv_cpu_utilization",)] == 0.5, "one Triton needs no label"
    assert found[("reelserve_requests_in_flight",)] == 3
    assert found[("reelserve_max_requests_in_flight",)] == 12
    assert found[("reelserve_tritons_ready",)] == 2


def test_exposition_gives_ours_when_a_triton_is_cut_off(recorder, tmp_path):
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as triton:
        triton.bind(str(path))
        triton.listen()

        def answer():
            with triton.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnv_")

        thread = threading.Thread(target=answer)
        thread.start()
        found = exposition(recorder.registry, {"triton": path})
        thread.join()
    assert b"reelserve_requests_in_flight" in found and b"nv_" not in found


def test_exposition_of_several_tritons_has_a_label(recorder, tmp_path):
    paths = tmp_path / "one", tmp_path / "other"
    with Triton(TRITON.format(5), paths[0]) as one, Triton(TRITON.format(7), paths[1]) as other:
        found = samples(exposition(recorder.registry, {"gpu0": one, "gpu1": other}).decode())

    values = {n: found["reelserve_step_seconds_count", ("triton", n)] for n in ("gpu0", "gpu1")}
    assert values == {"gpu0": 5, "gpu1": 7}
    assert ("reelserve_requests_in_flight",) in found


def test_exposition_gives_ours_when_no_triton_answers(recorder):
    found = samples(exposition(recorder.registry, {"triton": Path("/no/such/socket")}).decode())
    assert ("reelserve_requests_in_flight",) in found
    assert samples(exposition(recorder.registry, {}).decode()) == found


def test_recorder_shows_every_series_at_zero_from_the_start(recorder):
    found = samples(exposition(recorder.registry, {}).decode())
    model = ("model", "text_to_video")
    for series in (
        ("reelserve_requests_total", model, ("outcome", "ok")),
        ("reelserve_refusals_total", model, ("reason", "draining")),
        *(("reelserve_cancels_total", model, ("stage", stage)) for stage in ENSEMBLE_STAGES),
        *(("reelserve_stage_seconds_count", ("stage", stage)) for stage in ENSEMBLE_STAGES),
        ("reelserve_shared_answers_total", ("how", "cached")),
        ("reelserve_videos_total",),
    ):
        assert found[series] == 0
    for metric in OF_FRONT_END:
        ending = "_count" if metric.kind == "histogram" else ""
        shown = [labels for name, *labels in found if name == metric.series + ending]
        assert len(shown) == math.prod(map(len, metric.labels.values()))
    assert not [name for name, *_ in found if name.endswith("_created")]


def test_recorder_counts_what_it_is_told(recorder):
    model = ("model", "text_to_video")
    recorder.count(metric_table.REFUSALS, reason="deadline")
    recorder.count(metric_table.CANCELS, stage="upsampler")
    recorder.count(metric_table.VIDEO_SECONDS, 3.5)
    recorder.observe(metric_table.REQUEST_SECONDS, 2.5)
    recorder.observe(metric_table.STAGE_SECONDS, 0.2, stage="upsampler")
    found = samples(exposition(recorder.registry, {}).decode())

    assert found["reelserve_refusals_total", model, ("reason", "deadline")] == 1
    assert found["reelserve_cancels_total", model, ("stage", "upsampler")] == 1
    assert found["reelserve_request_seconds_sum", model] == 2.5
    assert found["reelserve_request_seconds_bucket", ("le", "5.0"), model] == 1
    assert found[("reelserve_video_seconds_total",)] == 3.5
    assert found["reelserve_stage_seconds_sum", ("stage", "upsampler")] == 0.2


def test_recorder_refuses_when_a_label_is_missing_or_unknown(recorder):
    with pytest.raises(ValueError, match="Incorrect label names"):
        recorder.count(metric_table.REFUSALS)
    with pytest.raises(ValueError, match="Incorrect label names"):
        recorder.count(metric_table.REFUSALS, why="deadline")
