"""What Istio says of a document: its CRD schema, its decoder and its webhook, in their words and at the field each speaks of.

    documents = resources.load("egress/")
    for problem in validate(documents):
        print(problem)

How this works: the schema looks at the document as it was written (`structure`), the decoder reads it more leniently (`convert`), and
what it read goes to the checks of its kind, one pure function each. An error of any of the three means that Istio rejects the document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any as Json

from meshsim.errors import ConfigError, Problem
from meshsim.resources import kinds
from meshsim.resources.load import Document, Documents
from meshsim.resources.resource import ObjectMeta, Resource
from meshsim.resources.schema import of_kind
from meshsim.resources.validation import structure
from meshsim.resources.validation.authorization_policy import DRY_RUN, authorization_policy
from meshsim.resources.validation.convert import convert
from meshsim.resources.validation.destination_rule import destination_rule
from meshsim.resources.validation.gateway import gateway
from meshsim.resources.validation.golang import quote
from meshsim.resources.validation.peer_authentication import peer_authentication, proxy_config
from meshsim.resources.validation.report import Report
from meshsim.resources.validation.request_authentication import request_authentication
from meshsim.resources.validation.service_entry import service_entry, workload_entry, workload_group
from meshsim.resources.validation.sidecar import sidecar
from meshsim.resources.validation.telemetry import telemetry
from meshsim.resources.validation.virtual_service import virtual_service

__all__ = ["accepted", "offline", "rejected", "validate"]

_CHECKS: dict[str, Callable[[Json, ObjectMeta, Report], None]] = {
    "ServiceEntry": service_entry,
    "Gateway": gateway,
    "VirtualService": virtual_service,
    "DestinationRule": destination_rule,
    "Sidecar": sidecar,
    "WorkloadEntry": workload_entry,
    "WorkloadGroup": workload_group,
    "ProxyConfig": proxy_config,
    "PeerAuthentication": peer_authentication,
    "AuthorizationPolicy": authorization_policy,
    "RequestAuthentication": request_authentication,
    "Telemetry": telemetry,
}
_SPEC_REQUIRED = ("ServiceEntry", "WorkloadEntry", "WorkloadGroup")
_FORBIDDEN = ("internal.istio.io/parent-namespace", "internal.istio.io/parents")
_ALWAYS_REJECT = "internal.istio.io/webhook-always-reject"
_TRUE_OR_FALSE = ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False")


def validate(documents: Documents, *, proto_names: bool = False) -> list[Problem]:
    """Everything that is wrong with the documents, in the order they were read; Istio takes them all when no problem is an error.

    With `proto_names` fields may be named in snake_case, as before there was a schema.
    """
    istio = {id(document): _check(document, proto_names) for document in documents.documents if _kind(document).is_istio}
    replaced = {id(p) for document in documents.documents if id(document) in istio for p in document.problems}
    found = [_as_validation(p) for p in documents.problems if id(p) not in replaced]
    return found + [p for problems in istio.values() for p in problems]


def rejected(resource: Resource[Json]) -> bool:
    """Whether Istio's schema or webhook rejects a resource. Names in snake_case alone are no reason."""
    kind = kinds.find(resource.api_version, resource.kind)
    if kind is None or not kind.is_istio:
        return False
    report, raw, node = Report(resource.source, resource.id), resource.raw, of_kind(kind)
    surely_fits = resource.is_plain and "spec" in raw and structure.fits(node)(raw["spec"])
    if not surely_fits and raw:
        fits = structure.check(raw, node, resource.kind in _SPEC_REQUIRED, report, snake=True)
        if not fits or convert(raw.get("spec"), kind.message, resource.source, resource.id)[1] is not None:
            return True
    _webhook(resource.kind, resource.spec, resource.metadata, raw, report)
    return report.failed


def offline(resource: Resource[Json]) -> list[Problem]:
    """What istioctl finds in a resource's spec; it asks without the labels and annotations that the webhook would see."""
    check = _CHECKS.get(resource.kind)
    report = Report(resource.source, resource.id)
    if check is not None:
        given = resource.raw.get("spec")
        report.given = frozenset(given if isinstance(given, dict) else ())
        check(resource.spec, ObjectMeta(name=resource.name, namespace=resource.namespace), report)
    return report.problems


def accepted(documents: Documents) -> Documents:
    """The documents, if all could be read and Istio takes every one. Raises ConfigError with every error otherwise."""
    refused = {r.id for r in documents.resources if rejected(r)}
    errors = documents.errors
    if refused:
        errors += [p for p in validate(documents) if p.severity == "error" and p.resource in refused]
    if errors:
        raise ConfigError(sorted(errors, key=lambda p: (p.location is None, p.location)))
    for resource in documents.resources:
        resource.release()
    return documents


def _kind(document: Document) -> kinds.Kind:
    kind = kinds.find(document.api_version, document.kind)
    assert kind is not None  # the loader made a document of it
    return kind


def _as_validation(problem: Problem) -> Problem:
    """What meshsim does not simulate is no mistake of the document."""
    if problem.severity == "error" and problem.message.startswith("not simulated yet"):
        return Problem("warning", problem.message, problem.location, problem.resource, problem.hint)
    return problem


def _check(document: Document, proto_names: bool) -> list[Problem]:
    kind = _kind(document)
    raw = document.source.raw() or {}
    report = Report(document.source, document.id)
    structure.check(raw, of_kind(kind), document.kind in _SPEC_REQUIRED, report, snake=proto_names)
    spec, problem = convert(raw.get("spec"), kind.message, document.source, document.id)
    if problem is not None:
        report.problems.append(problem)
    meta = document.resource.metadata if document.resource else _metadata(raw, document)
    if spec is not None and meta is not None:
        _webhook(document.kind, spec, meta, raw, report)
    report.problems += [p for p in document.problems if p.severity == "error" and p.message.startswith("metadata")]
    return report.problems


def _metadata(raw: dict[str, Json], document: Document) -> ObjectMeta | None:
    """The metadata of a document that could not be read as a whole."""
    given = raw.get("metadata")
    given = given if isinstance(given, dict) else {}
    texts = {name: given.get(name) or {} for name in ("labels", "annotations")}
    for name, values in texts.items():
        if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
            return None
        texts[name] = values
    return ObjectMeta(name=document.name, namespace=document.namespace, labels=texts["labels"], annotations=texts["annotations"])


def _webhook(kind: str, spec: Json, meta: ObjectMeta, raw: dict[str, Json], report: Report) -> None:
    said = _annotations(kind, spec, meta)
    if said is not None:
        report.at(said, ("metadata", "annotations"))
        return
    given = raw.get("spec")
    report.given = frozenset(given if isinstance(given, dict) else ())
    before = len(report.problems)
    _CHECKS[kind](spec, meta, report)
    if not any(p.severity == "error" for p in report.problems[before:]):
        for key in raw:
            if key not in ("apiVersion", "kind", "metadata", "spec", "status"):
                report.at(f"unknown field {quote(key)} on {kind} resource {meta.namespace}/{meta.name}", (key,))
                break


def _annotations(kind: str, spec: Json, meta: ObjectMeta) -> str | None:
    """Annotations that Istio takes only from itself, and the dry run, which is for AuthorizationPolicies only."""
    if DRY_RUN in meta.annotations:
        value, where = meta.annotations[DRY_RUN], f"{meta.namespace}/{meta.name}"
        if kind != "AuthorizationPolicy":
            return f"{where} has unsupported annotation {DRY_RUN}, please remove the annotation"
        if spec.action not in ("ALLOW", "DENY"):
            return f"the annotation {DRY_RUN} currently only supports action ALLOW/DENY, found action {spec.action} in {where}"
        if value not in _TRUE_OR_FALSE:
            return (f"{where} has annotation {DRY_RUN} with invalid value ({value}): "
                    f"strconv.ParseBool: parsing {quote(value)}: invalid syntax")
    if _ALWAYS_REJECT in meta.annotations:
        return f"{quote(_ALWAYS_REJECT)} annotation found, rejecting"
    found = next((name for name in _FORBIDDEN if name in meta.annotations), None)
    return found and f"{quote(found)} annotation found, this may not be set by users"
