"""Where traces may be sent: the value of `--otlp-endpoint`."""

from __future__ import annotations

from urllib.parse import urlsplit

PORT = 4317
"""Port of OTLP over gRPC."""


def check_endpoint(url: str) -> str:
    """The address of a collector with its port, as `http://localhost:4317`.

    Raises:
        ValueError: If it is no such address.
    """
    form = f"http://HOST:{PORT} or https://HOST:{PORT}"
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL ({error}); it must be {form}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ValueError(f"{url!r} must be {form}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"a name or password stands in the URL; it must be {form}, and headers come from "
            "OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} has a path: OTLP over HTTP is not spoken; it must be {form}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
