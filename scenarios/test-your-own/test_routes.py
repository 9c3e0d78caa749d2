"""The same in Python: `mesh` simulates in microseconds, `live_mesh` runs proxies on real sockets."""

from pathlib import Path

import pytest

from meshsim.testing import expect

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def mesh_paths():
    return [HERE.parent / "egress-gateway-http"]


@pytest.mark.parametrize("path", ["/", "/politics", "/politics?page=2"])
def test_every_page_leaves_through_the_gateway(mesh, path):
    expect(mesh, "sleep", f"http://edition.cnn.com{path}", status=301, via="istio-egressgateway")


def test_the_gateway_logs_the_site_it_called(mesh):
    expect(
        mesh,
        "sleep",
        "http://edition.cnn.com/politics",
        log={"istio-egressgateway": {"code": 301, "cluster": "outbound|80||edition.cnn.com", "protocol": "HTTP/2"}},
    )


def test_live(live_mesh):
    reply = live_mesh.get("sleep", "http://edition.cnn.com/politics")
    assert (reply.status, reply.header("location")) == (301, "https://edition.cnn.com/politics")
