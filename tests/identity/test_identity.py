"""Certificates of the mesh: their shape, their files, and when they are renewed."""

from __future__ import annotations

import datetime
import itertools
import stat
from pathlib import Path

import pytest
from cryptography import x509

from meshsim.identity import Authority, IdentityError, Leaf, Workload, renewal_time, self_signed
from meshsim.routing import certificates
from meshsim.topology import Proxy

GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account"


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_class(kind)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("istio-system", "istio-egressgateway-service-account"), GATEWAY),
        (("default", ""), "spiffe://cluster.local/ns/default/sa/default"),
        (("a", "b", "me@example.com"), "spiffe://me.example.com/ns/a/sa/b"),
    ],
)
def test_spiffe_id(arguments: tuple[str, ...], name: str) -> None:
    namespace, account, *domain = arguments
    assert Proxy("p", namespace=namespace, service_account=account).identity(*domain) == name


@pytest.mark.parametrize("intermediate", [False, True])
def test_a_workload_certificate_has_istio_s_shape(intermediate: bool) -> None:
    ca = Authority.create("cluster.local", intermediate=intermediate)
    pair = ca.workload(GATEWAY)
    certificate = pair.certificate
    assert not list(certificate.subject)
    assert extension(certificate, x509.SubjectAlternativeName).critical
    assert certificates.facts(certificate).names == (GATEWAY,)
    assert {u._name for u in extension(certificate, x509.ExtendedKeyUsage).value} == {"serverAuth", "clientAuth"}  # type: ignore[attr-defined]
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(hours=24) <= lifetime < datetime.timedelta(hours=24, minutes=5)
    assert certificate.public_key().curve.name == "secp256r1"  # type: ignore[union-attr]
    chain = [certificate, *pair.intermediates, ca.root]
    for child, issuer in itertools.pairwise(chain):
        child.verify_directly_issued_by(issuer)
    assert len(chain) == (3 if intermediate else 2)
    assert ca.root_pem() not in pair.chain_pem()


def test_rotation_happens_at_half_life_and_keeps_the_pair_in_use(tmp_path: Path) -> None:
    now = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    ca = Authority.create("cluster.local", clock=lambda: now)
    workload = Workload(ca, GATEWAY, tmp_path / "certs")
    first = workload.files
    assert not workload.is_due
    now += datetime.timedelta(hours=11)
    assert not workload.is_due
    now += datetime.timedelta(hours=1)
    assert workload.is_due
    second = workload.renew()
    assert not workload.is_due
    assert first.chain.exists() and second.chain.read_bytes() != first.chain.read_bytes()
    assert (tmp_path / "certs" / "cert-chain.pem").read_bytes() == second.chain.read_bytes()
    workload.renew()
    assert not first.key.exists()
    for path in (tmp_path / "certs").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def write_cacerts(ca: Authority, folder: Path) -> None:
    folder.mkdir()
    (folder / "ca-key.pem").write_bytes(ca.pair.key_pem())
    (folder / "ca-cert.pem").write_bytes(ca.pair.chain_pem())
    (folder / "root-cert.pem").write_bytes(ca.root_pem())
    (folder / "cert-chain.pem").write_bytes(ca.pair.chain_pem() + ca.root_pem())


def test_one_s_own_ca_files_are_taken(tmp_path: Path) -> None:
    made = Authority.create("acme", intermediate=True)
    write_cacerts(made, tmp_path / "cacerts")
    read = Authority.from_cacerts(tmp_path / "cacerts")
    pair = read.workload(GATEWAY)
    assert read.root == made.root
    assert pair.intermediates == (made.pair.certificate,)
    pair.certificate.verify_directly_issued_by(made.pair.certificate)


@pytest.mark.parametrize(
    ("file", "word"), [("ca-key.pem", "not the key"), ("root-cert.pem", "not issued by"), ("ca-cert.pem", "cannot read")]
)
def test_ca_files_that_do_not_fit_are_refused(tmp_path: Path, file: str, word: str) -> None:
    folder = tmp_path / "cacerts"
    write_cacerts(Authority.create("acme", intermediate=True), folder)
    other = Authority.create("acme")
    (folder / file).write_bytes({"ca-key.pem": other.pair.key_pem(), "root-cert.pem": other.root_pem(), "ca-cert.pem": b"x"}[file])
    with pytest.raises(IdentityError, match=word):
        Authority.from_cacerts(folder)


def test_a_revoked_certificate_is_on_the_list() -> None:
    ca = Authority.create("acme")
    good, bad = ca.workload(GATEWAY).certificate, ca.workload(GATEWAY).certificate
    crl = x509.load_pem_x509_crl(ca.crl_pem([bad.serial_number]))
    assert crl.get_revoked_certificate_by_serial_number(bad.serial_number) is not None
    assert crl.get_revoked_certificate_by_serial_number(good.serial_number) is None


def test_self_signed_and_renewal_time() -> None:
    pair = self_signed(Leaf(names=("a.test", "203.0.113.9"), common_name="a.test", ends=datetime.timedelta(days=1)))
    pair.certificate.verify_directly_issued_by(pair.certificate)
    assert certificates.facts(pair.certificate).names == ("a.test", "203.0.113.9")
    middle = renewal_time(pair.certificate)
    assert pair.certificate.not_valid_after_utc - middle == middle - pair.certificate.not_valid_before_utc
