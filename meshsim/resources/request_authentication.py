"""RequestAuthentication: which tokens a workload takes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from typing import Any as Json

from meshsim.resources.message import ONE_TARGET, Message, PolicyTargetReference, WorkloadLabelSelector
from meshsim.resources.shape import Duration, NonEmpty, Rule, Shape, bounds, enum, rules

Presence = Annotated[Literal["OPTIONAL", "REQUIRED"], enum("istio.security.v1beta1.JWTRule.JWTRequirement")]


class JwtHeader(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("name",))

    name: NonEmpty = ""
    prefix: str = ""


class ClaimToHeader(Message):
    SHAPE: ClassVar[Shape] = Shape(required=("header", "claim"))

    header: Annotated[str, bounds(minLength=1, pattern="^[-_A-Za-z0-9]+$")] = ""
    claim: NonEmpty = ""


def _one_source(rule: dict[str, Json]) -> bool:
    return sum(field in rule for field in ("jwksUri", "jwks_uri", "jwks")) <= 1


class JwtRule(Message):
    SHAPE: ClassVar[Shape] = Shape(
        rules=(Rule("only one of jwks or jwksUri can be set", _one_source),), proto_names=(("jwks_uri", "jwksUri"),)
    )

    issuer: NonEmpty = ""
    audiences: list[NonEmpty] = []
    jwks_uri: Annotated[
        str,
        rules(
            ("url must have scheme http:// or https://", lambda url: url.partition(":")[0] in ("http", "https")),
            minLength=1,
            maxLength=2048,
        ),
    ] = ""
    jwks: str = ""
    from_headers: list[JwtHeader] = []
    from_params: list[NonEmpty] = []
    output_payload_to_header: str = ""
    from_cookies: list[NonEmpty] = []
    forward_original_token: bool = False
    output_claim_to_headers: list[ClaimToHeader] = []
    timeout: Duration | None = None
    space_delimited_claims: Annotated[list[NonEmpty], bounds(maxItems=64)] = []
    presence: Presence | None = None


class RequestAuthenticationSpec(Message):
    SHAPE: ClassVar[Shape] = Shape(rules=(ONE_TARGET,))

    selector: WorkloadLabelSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[list[PolicyTargetReference], bounds(maxItems=16)] = []
    jwt_rules: Annotated[list[JwtRule], bounds(maxItems=4096)] = []
