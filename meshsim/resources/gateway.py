"""Gateway: which servers a gateway pod opens, and for which hosts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from meshsim.resources.message import Message
from meshsim.resources.shape import Rule, Shape, UInt32, bounds, enum

_SETTINGS = "istio.networking.v1alpha3.ServerTLSSettings"
TlsMode = Annotated[
    Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"], enum(f"{_SETTINGS}.TLSmode")
]
TlsProtocol = Annotated[Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"], enum(f"{_SETTINGS}.TLSProtocol")]


class Port(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("number", "protocol", "name"))

    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0  # deprecated, without effect


class TlsCertificate(Message):
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


def _one_of(message: str, a: str, b: str) -> Rule:
    return Rule(f"only one of {message} can be set", lambda s: not (a in s and b in s))


class ServerTlsSettings(Message):
    SHAPE: ClassVar[Shape] = Shape(
        rules=(
            _one_of("credentialNames or tlsCertificates", "tlsCertificates", "credentialNames"),
            _one_of("credentialName or credentialNames", "credentialName", "credentialNames"),
            _one_of("credentialName or tlsCertificates", "credentialNames", "tlsCertificates"),  # the schema's rule names another field
        )
    )

    https_redirect: bool = False
    mode: TlsMode = "PASSTHROUGH"
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: Annotated[list[str], bounds(minItems=1, maxItems=2)] = []
    ca_cert_credential_name: str = ""
    tls_certificates: Annotated[list[TlsCertificate], bounds(minItems=1, maxItems=2)] = []
    subject_alt_names: list[str] = []
    verify_certificate_spki: list[str] = []
    verify_certificate_hash: list[str] = []
    min_protocol_version: TlsProtocol = "TLS_AUTO"
    max_protocol_version: TlsProtocol = "TLS_AUTO"
    cipher_suites: list[str] = []
    insecure_skip_verify: bool | None = None
    ecdh_curves: list[str] = []


class Server(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("port", "hosts"))

    port: Port | None = None
    bind: str = ""
    hosts: list[str] = []
    tls: ServerTlsSettings | None = None
    default_endpoint: str = ""
    name: str = ""


class GatewaySpec(Message):
    servers: list[Server] = []
    selector: dict[str, str] = {}
