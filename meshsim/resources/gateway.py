"""Gateway: which servers a gateway pod opens, and for which hosts."""

from __future__ import annotations

from meshsim.resources.message import Message


class Port(Message):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0  # deprecated, without effect


class TlsCertificate(Message):
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTlsSettings(Message):
    https_redirect: bool = False
    mode: str = "PASSTHROUGH"
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: list[str] = []
    ca_cert_credential_name: str = ""
    tls_certificates: list[TlsCertificate] = []
    subject_alt_names: list[str] = []
    verify_certificate_spki: list[str] = []
    verify_certificate_hash: list[str] = []
    min_protocol_version: str = "TLS_AUTO"
    max_protocol_version: str = "TLS_AUTO"
    cipher_suites: list[str] = []
    ecdh_curves: list[str] = []
    insecure_skip_verify: bool | None = None


class Server(Message):
    port: Port | None = None
    bind: str = ""
    hosts: list[str] = []
    tls: ServerTlsSettings | None = None
    default_endpoint: str = ""
    name: str = ""


class GatewaySpec(Message):
    servers: list[Server] = []
    selector: dict[str, str] = {}
