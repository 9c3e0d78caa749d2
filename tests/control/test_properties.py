"""What holds for any configuration: compiling never raises, files may come in any order, what a proxy cannot see changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsim import control, resources
from meshsim.resources.mesh_config import MeshConfig
from tests.golden import case as golden

FOLDERS = sorted(p.parent for p in (Path(__file__).parents[1] / "golden" / "cases").glob("*/case.yaml"))

PRIVATE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hidden, namespace: elsewhere}
spec: {hosts: [edition.cnn.com, hidden.test], exportTo: ["."], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hidden, namespace: elsewhere}
spec: {host: edition.cnn.com, exportTo: ["."], trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hidden, namespace: elsewhere}
spec: {hosts: [edition.cnn.com], exportTo: ["."], http: [{directResponse: {status: 418}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: hidden, namespace: elsewhere}
spec: {selector: {istio: another-gateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: hidden, namespace: elsewhere}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ["./*"]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: hidden, namespace: elsewhere}
spec: {action: DENY, rules: [{}]}
"""


@cache
def read(folder: Path) -> golden.Case:
    return golden.read(folder)


def compiled(case: golden.Case, given_resources: list) -> dict:
    index = control.index(given_resources, case.mesh_config)
    return {entry["name"]: control.compile(index, golden.proxy_of(entry)) for entry in case.proxies}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_the_order_of_files_never_matters(folder):
    case = read(folder)
    shuffled = random.Random(folder.name).sample(case.resources, len(case.resources))
    assert compiled(case, shuffled) == case.compile()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_what_a_proxy_cannot_see_changes_nothing(folder):
    case = read(folder)
    if any(entry.get("namespace") == "elsewhere" for entry in case.proxies):
        pytest.skip("a proxy of this case lives there")
    hidden = resources.load("-", stdin=PRIVATE).require().resources
    assert compiled(case, [*case.resources, *hidden]) == case.compile()


@cache
def pool() -> list:
    """Every resource of every case, each once."""
    found = {}
    for folder in FOLDERS:
        for resource in read(folder).resources:
            found.setdefault((resource.id, repr(resource.spec)), resource)
    return list(found.values())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.integers(0, 60))
def test_any_mixture_of_valid_resources_compiles(seed, count):
    chosen = random.Random(seed).sample(pool(), min(count, len(pool())))
    mesh = MeshConfig()
    case = read(FOLDERS[0])
    index = control.index(chosen, mesh)
    for entry in case.proxies:
        config = control.compile(index, golden.proxy_of(entry))
        names = [listener.name for listener in config.listeners]
        assert len(names) == len(set(names))
        clusters = [cluster.name for cluster in config.clusters]
        assert len(clusters) == len(set(clusters))
        for table in config.routes:
            domains = [domain.lower() for host in table.virtual_hosts for domain in host.domains]
            assert len(domains) == len(set(domains)), table.name


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40))
def test_an_update_leads_to_what_a_new_start_leads_to(seed, count):
    rng, proxies = random.Random(seed), [golden.proxy_of(entry) for entry in read(FOLDERS[0]).proxies]
    proxies.append(replace(proxies[0], name="asks", metadata={"DNS_CAPTURE": "true"}))
    chosen = rng.sample(pool(), count)
    before = None
    for _ in range(5):
        index = control.index(chosen, before and before.mesh, after=before)
        anew = control.index(chosen)
        for proxy in proxies:
            assert control.compile(index, proxy) == control.compile(anew, proxy)
        before = index
        gone = rng.sample(chosen, min(len(chosen), rng.randrange(3)))
        chosen = [*(r for r in chosen if r not in gone), *rng.sample(pool(), rng.randrange(3))]


def test_an_update_makes_anew_only_what_it_changes():
    case = read(next(f for f in FOLDERS if f.name == "seed-http-direct"))
    proxy = next(p for p in map(golden.proxy_of, case.proxies) if p.is_sidecar)
    index = control.index(case.resources, case.mesh_config)
    before = control.compile(index, proxy)
    entry = PRIVATE.split("---")[0].replace('exportTo: ["."], ', "").replace("edition.cnn.com, ", "")
    more = resources.loads(entry).require().resources
    after = control.compile(control.index([*case.resources, *more], case.mesh_config, after=index), proxy)
    kept = {id(cluster) for cluster in before.clusters}
    made = {c.name for c in after.clusters if id(c) not in kept and c.name.startswith("outbound|")}
    assert made == {"outbound|80||hidden.test"}
