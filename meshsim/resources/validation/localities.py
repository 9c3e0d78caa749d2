"""Locality settings of a DestinationRule (Istio: ValidateLocalityLbSetting, ValidateZoneAwareLbSetting)."""

from __future__ import annotations

from meshsim.resources.destination_rule import LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting
from meshsim.resources.validation.report import Report

At = tuple[str | int, ...]
_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def locality_lb(lb: LocalityLbSetting | None, has_outlier: bool, report: Report, at: At) -> None:
    if lb is None:
        return
    if lb.distribute and lb.failover:
        report.error("can not simultaneously specify 'distribute' and 'failover'", *at)
        return
    if lb.failover:
        for i, label in enumerate(lb.failover_priority):
            if label in _TOPOLOGY:
                report.error(f"can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'",
                             *at, "failoverPriority", i)
                return
    for i, rule in enumerate(lb.distribute):
        here = (*at, "distribute", i)
        if any(not 0 < weight <= 100 for weight in rule.to.values()):
            report.error("locality weight must be in range [1, 100]", *here, "to")
            return
        total = sum(rule.to.values())
        if total != 100:
            report.error(f"total locality weight {total} != 100", *here, "to")
            return
        report.check(_overlap(list(rule.to)), *here, "to")
    report.check(_overlap([rule.from_ for rule in lb.distribute]), *at, "distribute")
    if (lb.failover or lb.failover_priority) and not has_outlier:
        report.warn("outlier detection policy must be provided for failover", *at)
    _failovers(lb.failover, report, at, "locality lb", "locality lb failover only specify region")


def zone_aware_lb(lb: ZoneAwareLbSetting | None, has_outlier: bool, report: Report, at: At) -> None:
    if lb is None:
        return
    for i, label in enumerate(lb.failover_priority):
        if label in _TOPOLOGY:
            report.error(f"'failover_priority' for zone aware lb must not use topology label '{label}'; region- and zone-level routing are "
                         "handled automatically", *at, "failoverPriority", i)
    if (lb.failover or lb.failover_priority) and not has_outlier:
        report.warn("outlier detection policy must be provided for failover", *at)
    _failovers(lb.failover, report, at, "zone aware lb",
               "zone aware lb failover only specifies region; zone and subzone failover are handled automatically")


def _failovers(failovers: list[LocalityFailover], report: Report, at: At, kind: str, only_region: str) -> None:
    for i, failover in enumerate(failovers):
        here = (*at, "failover", i)
        if failover.from_ == failover.to:
            report.error(f"{kind} failover settings must specify different regions", *here)
        if "/" in failover.from_ + failover.to:
            report.error(only_region, *here)
        if "*" in failover.from_ + failover.to:
            report.error(f"{kind} failover region should not contain '*' wildcard", *here)


def _overlap(localities: list[str]) -> str | None:
    """What is wrong with a list of `region/zone/subzone`: none may hold another; a part left out, or a star, holds all."""
    seen: list[tuple[str, ...]] = []
    for locality in localities:
        if locality.count("*") > 1 or ("*" in locality and not locality.endswith("*")):
            return f"locality {locality} wildcard '*' number can not exceed 1 and must be in the end"
        if ("*",) in seen:
            return f"locality {locality} overlap with previous specified ones"
        parts = tuple(locality.split("/", 2))
        if "" in parts:
            return f"locality {locality} must not contain empty region/zone/subzone info"
        if any(_covers(other, parts) for other in seen):
            return f"locality {locality} overlap with previous specified ones"
        seen.append(parts)
    return None


def _covers(earlier: tuple[str, ...], later: tuple[str, ...]) -> bool:
    """Whether both have a place in common, as far as Istio notices: the later one's own star is taken as a name."""
    for a, b in zip(earlier, later, strict=False):
        if a == "*":
            return True
        if a != b:
            return False
    return True
