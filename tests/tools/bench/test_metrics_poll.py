from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from reelserve.tools.bench import metrics_poll
from reelserve.tools.bench.metrics_poll import MetricsPoll, Reading, parse_reading

PAGE = """# TYPE reelserve_requests_in_flight gauge
reelserve_requests_in_flight {in_flight}
reelserve_max_requests_in_flight 12
reelserve_requests_active 1
reelserve_step_seconds_count 7
reelserve_step_seconds_sum 3.5
reelserve_step_seconds_bucket{{le="0.01"}} 3
reelserve_requests_total{{model="text_to_video",outcome="ok"}} 2
nv_cpu_utilization 0.5
"""


@pytest.fixture
def url() -> Iterator[str]:
    """Answers of an endpoint that says one clip less in flight every time, from 3 on."""
    left = [3, 2, 1]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = PAGE.format(in_flight=left.pop(0) if left else 0).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


def test_parse_reading_picks_what_it_knows():
    assert parse_reading(PAGE.format(in_flight=3), 1.5) == Reading(1.5, 3, 12, 1, 7, 3.5)


def test_parse_reading_gives_zero_for_what_is_missing():
    assert parse_reading("", 1.5) == Reading(1.5) and Reading(1.5).idle


@pytest.mark.parametrize("busy", [{"in_flight": 1}, {"active": 1}])
def test_reading_is_not_idle_while_a_clip_has_a_place_or_takes_steps(busy):
    assert not Reading(0.0, **busy).idle


def test_until_reads_until_the_condition_holds(url):
    with MetricsPoll(url) as poll:
        assert poll.until(lambda now: now.in_flight == 1).in_flight == 1
        assert len(poll.gaps_s) == 2
        assert poll.gap_s() > 0


def test_until_raises_timeout_with_the_reading_when_the_condition_never_holds(url, monkeypatch):
    monkeypatch.setattr(metrics_poll, "UNTIL_TIMEOUT_S", 0.05)
    with MetricsPoll(url) as poll, pytest.raises(TimeoutError, match="active 1, steps 7"):
        poll.until(lambda now: now.idle)
