"""HTTP/2 on both sides of a proxy, with framing of our own: a hop through the `h2` library costs five times what HTTP/1.1 does.

`hpack` packs header fields, `frames` is the form of frames, `connection` what both ends have in common (streams, windows, limits),
`server` a client's connection to the proxy, `client` the proxy's to a host. Tests hold them against `h2`, byte by byte.
"""

from meshsim.proxy.http2.client import Http2Client
from meshsim.proxy.http2.server import Http2Server

__all__ = ["Http2Client", "Http2Server"]
