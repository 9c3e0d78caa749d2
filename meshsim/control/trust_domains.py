"""The mesh's trust domain and its aliases, as policies see them.

A policy that names the mesh's own trust domain, or `cluster.local` (a pointer to it), or an alias, means all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

POINTER = "cluster.local"  # in a policy: whatever the mesh's trust domain is


@dataclass(frozen=True, slots=True)
class TrustDomains:
    """`names[0]` is the mesh's trust domain, the rest its aliases."""

    names: tuple[str, ...] = (POINTER,)

    def expand(self, values: list[str]) -> list[str]:
        """Trust domains: any of the mesh's own becomes all of them."""
        out: dict[str, None] = {}
        for value in values:
            out.update(dict.fromkeys(self.names if value in self.names else (value,)))
        return list(out)

    def expand_principals(self, principals: list[str]) -> list[str]:
        """`<trust domain>/ns/<namespace>/sa/<account>` once for each name of the mesh's trust domain, where it is meant.

        A principal of another form, or with a bare `*` for the trust domain, stays as it is.
        """
        out = []
        for principal in principals:
            domain, *rest = principal.split("/")
            if len(rest) != 4 or domain == "*" or not (domain == POINTER or any(_overlap(domain, name) for name in self.names)):
                out.append(principal)
                continue
            # a pattern that already covers a name is kept for it
            forms = (principal if _suffix(name, domain) else "/".join((name, *rest)) for name in self.names)
            out += dict.fromkeys(forms)
        return out


def _suffix(text: str, pattern: str) -> bool:
    return pattern.startswith("*") and text.endswith(pattern[1:])


def _prefix(text: str, pattern: str) -> bool:
    return pattern.endswith("*") and text.startswith(pattern[:-1])


def _overlap(a: str, b: str) -> bool:
    return a == b or b == "*" or _prefix(a, b) or _prefix(b, a) or _suffix(a, b) or _suffix(b, a)
