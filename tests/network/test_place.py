"""Compiled xds put on this machine: what changes, what stays, and the files that come of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

import meshsim
from meshsim import xds
from meshsim.network import place
from meshsim.network.secrets import Identity, SecretFiles
from meshsim.xds.tls import Secret

T = "type.googleapis.com/"
TLS = T + "envoy.extensions.transport_sockets.tls.v3."
MANAGER = {
    "name": "hcm",
    "typed_config": {
        "@type": T + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": "80", "config_source": {"ads": {}}},
        "http_filters": [
            {"name": "alpn", "typed_config": {"@type": T + "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"}},
            {"name": "stats", "typed_config": {"@type": T + "udpa.type.v1.TypedStruct", "type_url": T + "stats.PluginConfig"}},
            {"name": "router", "typed_config": {"@type": T + "envoy.extensions.filters.http.router.v3.Router"}},
        ],
    },
}
ORIGINAL_DST = {"name": "o", "typed_config": {"@type": T + "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}}


def listener(name: str, address: str, port: int, **more: object) -> dict[str, object]:
    at = {"socket_address": {"address": address, "port_value": port}}
    return {"name": name, "address": at, "filter_chains": [{"filters": [MANAGER]}], **more}


def upstream(alpn: list[str], http2: bool = False) -> dict[str, object]:
    options = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    return {
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": TLS + "UpstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": alpn,
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}],
                    "combined_validation_context": {"validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {"ads": {}}}},
                },
            },
        },
        "typed_extension_protocol_options": {
            "h": {"@type": T + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": options},
        },
    }


CONFIG = {
    "listeners": [
        listener("virtualOutbound", "0.0.0.0", 15001, use_original_dst=True, listener_filters=[ORIGINAL_DST]),
        listener("0.0.0.0_8080", "0.0.0.0", 8080),
        listener("10.244.0.20_9090", "10.244.0.20", 9090),
        listener("0.0.0.0_9090", "0.0.0.0", 9090),
    ],
    "clusters": [
        {"name": "http1", **upstream(["istio-peer-exchange", "istio"])},
        {"name": "http2", **upstream(["istio-peer-exchange", "istio", "h2"], http2=True)},
        {"name": "tcp", **upstream(["istio-peer-exchange", "istio"])},
        {"name": "inbound|8080||", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"},
    ],
    "routes": [
        {
            "name": "80",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": "/1"}, "route": {"cluster": "http1"}},
                        {"match": {"prefix": ""}, "route": {"weighted_clusters": {"clusters": [{"name": "http2", "weight": 1}]}}},
                    ],
                }
            ],
        }
    ],
}


def no_secrets(name: str) -> Secret | None:
    return None


def placed(folder: Path, **site: object) -> xds.ProxyConfig:
    where = place.Site(folder, "10.244.0.20", no_secrets, **site)  # type: ignore[arg-type]
    return place.place(xds.decode(json.dumps(CONFIG)), where)


def addresses(config: xds.ProxyConfig) -> dict[str, str]:
    return {listener.name: str(listener.address) for listener in config.listeners}


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ({}, {"virtualOutbound": "{folder}/outbound.sock", "0.0.0.0_8080": "0.0.0.0:8080", "0.0.0.0_9090": "0.0.0.0:9090"}),
        (
            {"is_gateway": True},
            {"0.0.0.0_8080": "10.244.0.20:8080", "10.244.0.20_9090": "10.244.0.20:9090", "0.0.0.0_9090": "0.0.0.0:9090"},
        ),
        ({"pipes": False}, {"virtualOutbound": "0.0.0.0:15001"}),
    ],
)
def test_where_listeners_are(tmp_path: Path, site: dict[str, object], expected: dict[str, str]) -> None:
    found = addresses(placed(tmp_path, **site))
    assert {name: found[name] for name in expected} == {name: text.format(folder=tmp_path) for name, text in expected.items()}


def test_a_pipe_takes_proxy_headers_instead_of_the_kernel_s_answer(tmp_path: Path) -> None:
    filters = [type(f.typed_config).__name__ for f in placed(tmp_path).listeners[0].listener_filters]
    assert filters == ["ProxyProtocol"]
    assert [type(f.typed_config).__name__ for f in placed(tmp_path, pipes=False).listeners[0].listener_filters] == ["OriginalDst"]


def test_istio_s_own_filters_go_and_alpn_follows_the_protocol(tmp_path: Path) -> None:
    config = placed(tmp_path)
    manager = config.listeners[0].filter_chains[0].filters[0].typed_config
    assert [f.name for f in manager.http_filters] == ["router"]  # type: ignore[union-attr]
    alpn = {c.name: c.transport_socket.typed_config.common_tls_context.alpn_protocols for c in config.clusters if c.transport_socket}  # type: ignore[union-attr]
    assert alpn == {
        "http1": ["istio-http/1.1", "istio", "http/1.1"],
        "http2": ["istio-h2", "istio", "h2"],
        "tcp": ["istio-peer-exchange", "istio"],
    }


def test_inbound_clusters_lead_to_the_application_where_it_has_an_address_of_its_own(tmp_path: Path) -> None:
    assert placed(tmp_path).clusters[-1].type == "ORIGINAL_DST"
    cluster = placed(tmp_path, application="127.0.1.1").clusters[-1]
    assert cluster.type == "STATIC" and cluster.load_assignment is not None
    assert str(cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address) == "127.0.1.1:8080"


def test_compiled_xds_is_not_touched(tmp_path: Path) -> None:
    compiled = xds.decode(json.dumps(CONFIG))
    place.place(compiled, place.Site(tmp_path, "10.244.0.20", no_secrets, True, "127.0.1.1"))
    assert compiled == xds.decode(json.dumps(CONFIG))


def test_the_folder_holds_everything_and_nothing_stale(tmp_path: Path) -> None:
    site = place.Site(tmp_path, "10.244.0.20", no_secrets)
    config = place.place(xds.decode(json.dumps(CONFIG)), site)
    place.write(config, site)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")}
    assert files == {
        "lds.json", "cds.json", "rds/80.json", "eds/http1.json", "eds/http2.json", "eds/tcp.json", "sds/default.json", "sds/ROOTCA.json",
    }
    assert json.loads((tmp_path / "sds/default.json").read_text())["resources"] == []  # nothing supplies it
    back = place.read(tmp_path)
    assert (back.listeners, back.clusters, back.routes) == (config.listeners, config.clusters, config.routes)

    before = {p: p.stat().st_ino for p in tmp_path.rglob("*.json")}
    smaller = {**CONFIG, "clusters": [c for c in CONFIG["clusters"] if c["name"] != "tcp"]}
    place.write(place.place(xds.decode(json.dumps(smaller)), site), site)
    after = {p: p.stat().st_ino for p in tmp_path.rglob("*.json")}
    assert tmp_path / "eds/tcp.json" not in after
    assert {p.name for p in after if after[p] != before[p]} == {"cds.json"}  # each changed file by rename, no other


def secret_files(folder: Path) -> SecretFiles:
    kubernetes = {
        ("team", "pair"): {"tls.crt": b"C", "tls.key": b"K", "ca.crt": b"A", "ca.crl": b"R"},
        ("team", "old"): {"cert": b"C", "key": b"K", "cacert": b"A"},
        ("other", "half"): {"tls.crt": b"C"},
    }
    files = {"/etc/certs/cert-chain.pem": folder / "chain", "/etc/certs/key.pem": folder / "key", "system": folder / "public"}
    return SecretFiles(folder / "secrets", "team", lambda: Identity(folder / "c", folder / "k", folder / "r"), files.get, kubernetes)


SECRETS = [
    ("default", "c k"),
    ("ROOTCA", "r"),
    ("file-root:system", "public"),
    ("file-cert:/etc/certs/cert-chain.pem~/etc/certs/key.pem", "chain key"),
    ("file-cert:/etc/certs/cert-chain.pem", None),
    ("file-root:/etc/elsewhere.pem", None),
    ("kubernetes://pair", "team.pair.pem team.pair.key"),
    ("kubernetes://team/pair-cacert", "team.pair-cacert.ca.pem team.pair-cacert.crl"),
    ("kubernetes://old", "team.old.pem team.old.key"),
    ("kubernetes://old-cacert", "team.old-cacert.ca.pem"),
    ("kubernetes://other/half", None),
    ("kubernetes://nowhere", None),
    ("something-else", None),
]


@pytest.mark.parametrize(("name", "expected"), SECRETS)
def test_what_a_secret_s_name_means(tmp_path: Path, name: str, expected: str | None) -> None:
    secret = secret_files(tmp_path)(name)
    if expected is None:
        assert secret is None
        return
    assert secret is not None and secret.name == name
    pair, root = secret.tls_certificate, secret.validation_context
    sources = [pair.certificate_chain, pair.private_key] if pair else [root.trusted_ca, root.crl] if root else []
    paths = [Path(source.filename or "") for source in sources if source is not None]
    assert " ".join(p.name for p in paths) == expected
    for path in paths:
        if path.exists():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["egress-gateway-http-mtls", "tls-origination-gateway-mtls", "egress-gateway-https-mtls"])
def test_what_was_compiled_stays_as_it_was(name: str, tmp_path: Path) -> None:
    mesh = meshsim.load(Path(__file__).parents[2] / "scenarios" / name)
    for proxy in mesh.proxies:
        config = mesh.config(proxy)
        before = xds.encode(config)
        site = place.Site(tmp_path, proxy.ip, lambda name: Secret(name=name), not proxy.is_sidecar, "127.0.0.1")
        assert xds.encode(place.place(config, site)) != before
        assert xds.encode(config) == before
