"""RequestAuthentication (Istio: ValidateRequestAuthentication, validateJwtRule)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from meshsim.resources.request_authentication import JwtRule, RequestAuthenticationSpec
from meshsim.resources.resource import ObjectMeta
from meshsim.resources.validation import names
from meshsim.resources.validation.golang import quote
from meshsim.resources.validation.peer_authentication import selects
from meshsim.resources.validation.report import Report

_STRICT_NAME = re.compile(r"[-_A-Za-z0-9]+")


def request_authentication(spec: RequestAuthenticationSpec, _meta: ObjectMeta, report: Report) -> None:
    selects(spec.selector, spec.target_ref, spec.target_refs, report)
    for i, rule in enumerate(spec.jwt_rules):
        _jwt_rule(rule, report, i)


def _jwt_rule(rule: JwtRule, report: Report, i: int) -> None:
    at = ("jwtRules", i)
    for j, audience in enumerate(rule.audiences):
        if not audience:
            report.error("audience must be non-empty string", *at, "audiences", j)
    if not rule.issuer and not rule.jwks_uri:
        report.error("issuer or jwksUri must be non-empty string", *at)
    if rule.jwks_uri:
        report.check(_jwks_uri(rule.jwks_uri), *at, "jwksUri")
    if rule.jwks:
        _jwks(rule.jwks, report, (*at, "jwks"))
    for j, header in enumerate(rule.from_headers):
        if not header.name:
            report.error("location header name must be non-empty string", *at, "fromHeaders", j)
    for j, param in enumerate(rule.from_params):
        if not param:
            report.error("location query must be non-empty string", *at, "fromParams", j)
    for j, cookie in enumerate(rule.from_cookies):
        if not cookie:
            report.error("cookie name must be non-empty string", *at, "fromCookies", j)
    for j, claim in enumerate(rule.output_claim_to_headers):
        if not claim.claim or not claim.header:
            report.error("outputClaimToHeaders header and claim value must be non-empty string", *at, "outputClaimToHeaders", j)
        elif not _STRICT_NAME.fullmatch(claim.header):
            report.error(f"header name {claim.header} is not a valid header name", *at, "outputClaimToHeaders", j, "header")
    report.check(names.duration(rule.timeout), *at, "timeout")


def _jwks_uri(uri: str) -> str | None:
    try:
        scheme = urlsplit(uri).scheme
    except ValueError as e:
        return f"parse {quote(uri)}: {e}"
    return None if scheme in ("http", "https") else f"URI scheme {quote(scheme)} is not supported"


def _jwks(text: str, report: Report, at: tuple[str | int, ...]) -> None:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as e:
        report.error(f"jwks parse error: failed to unmarshal JWK set: {e}", *at)
        return
    keys = found.get("keys", [found]) if isinstance(found, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) and isinstance(key.get("kty"), str) for key in keys):
        report.error("jwks parse error: failed to unmarshal JWK set", *at)
        return
    for i, key in enumerate(keys):
        if "d" in key or key["kty"] == "oct":
            report.warn(f"jwks key at index {i} contains private key material; only public keys are used for verification", *at)
