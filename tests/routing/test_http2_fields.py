"""Response heads that an HTTP/2 client refuses; a real Envoy answers 502 UPE for each."""

from __future__ import annotations

import pytest

from meshsim.routing import http2_fields
from meshsim.routing.message import Response


@pytest.mark.parametrize(
    ("status", "length", "version", "sound"),
    [
        (204, "4", "HTTP/2", False),
        (204, "0", "HTTP/2", True),
        (204, None, "HTTP/2", True),
        (204, "4", "HTTP/1.1", True),
        (103, "4", "HTTP/2", False),
        (200, "4", "HTTP/2", True),
        (304, "4", "HTTP/2", True),
    ],
)
def test_a_head_without_a_body_announces_none(status, length, version, sound):
    headers = [] if length is None else [("content-length", length)]
    assert http2_fields.sound(Response(status, headers, version=version)) is sound
