"""A mesh: what was loaded, what each proxy is told, what a call would do, and the mesh alive.

    mesh = meshsim.load("scenarios/egress-gateway-http")
    mesh.config("sleep").clusters
    async with mesh.run() as live:
        reply = await live.pod("sleep").get("http://edition.cnn.com/politics")

How this works: this is the one place that puts the layers together. `load` reads resources; `config` compiles them for one proxy, once;
`simulate` walks that configuration; `run` places it on this machine (live.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from typing import Any as Json

from msgspec import structs

from meshsim import cluster, control, kube_system, topology, xds
from meshsim.cluster import SecretMount
from meshsim.control.mesh_index import MeshIndex
from meshsim.deployments import deployed
from meshsim.errors import MeshsimError, NotSimulated, Problem
from meshsim.near_misses import NearMiss, near_misses
from meshsim.network.place import portable
from meshsim.resources import Documents, Resource, node, recipes
from meshsim.resources import load as load_documents
from meshsim.resources.external_server import ExternalServerSpec, ServerPort, described
from meshsim.resources.interception import Interception, interception
from meshsim.resources.issued_secret import IssuedSecretSpec
from meshsim.resources.mesh_config import MeshConfig
from meshsim.resources.network_policy import Walls, walls
from meshsim.resources.unmodelled import passed_over
from meshsim.resources.validation import accepted
from meshsim.resources.virtual_service import VirtualServiceSpec
from meshsim.routing.runtime import header_format
from meshsim.simulate import Call, Secrets, Simulation, Trace
from meshsim.simulate import World as SimulatedWorld
from meshsim.simulate.handshake import Certificate
from meshsim.simulate.servers import certificate_of
from meshsim.simulate.world import SecretFacts
from meshsim.surroundings import surrounded

if TYPE_CHECKING:
    from meshsim.live import LiveMesh

ASYNCIO, ENVOY = "asyncio", "envoy"
ENGINES = (ASYNCIO, ENVOY)
"""What the proxies of a running mesh can be: our own, or real Envoys."""


class UnknownPod(MeshsimError):
    """No pod of the mesh has that name; the text lists those that exist."""


class PodPlace(NamedTuple):
    """A pod with an address, and its proxy if it has one."""

    name: str
    namespace: str
    address: str
    app: str
    proxy: topology.Proxy | None

    @property
    def is_gateway(self) -> bool:
        return self.proxy is not None and not self.proxy.is_sidecar


def load(*paths: str | Path, stdin: str | None = None, istio_version: str = "") -> Mesh:
    """The mesh that files, folders and "-" (standard input) describe, in default surroundings where they describe none.

    istio_version: behave as that Istio (era.py); without it as MeshConfig's annotation says, else as today's.
    Raises ConfigError with every mistake at once, those for which Istio would refuse a resource included, in its words.
    """
    given = accepted(load_documents(*paths, stdin=stdin))
    unheeded = passed_over(given.resources)
    documents, notes = surrounded(given, istio_version)
    return Mesh(documents, [*unheeded, *notes, *node.notes(documents.resources)])


class Mesh:
    """Resources and everything that follows from them. A mesh does not change; `changed` makes another one.

    notes: what was added to the files because they lacked it (surroundings.py), and what they say without effect (unmodelled.py).
    after: a mesh of mostly the same resources, to compile no more than what is not (control/memory.py).
    """

    def __init__(self, documents: Documents, notes: Iterable[str] = (), after: Mesh | None = None):
        self.documents, self.notes = documents, list(notes)
        self._after: MeshIndex | None = after.__dict__.get("_index") if after else None
        self.problems: list[Problem] = documents.problems
        self.resources: list[Resource[Json]] = deployed([*documents.resources, *kube_system.lacking(documents.resources)])
        self._configs: dict[str, xds.ProxyConfig] = {}

    def changed(self, resources: Iterable[Resource[Json]]) -> Mesh:
        """A mesh with these resources instead."""
        return Mesh(Documents(resources=list(resources)), after=self)

    @cached_property
    def told(self) -> list[Resource[Json]]:
        """The resources that istiod knows of: all but the cluster's own DNS."""
        return [r for r in self.resources if not kube_system.is_hidden(r)]

    @cached_property
    def mesh_config(self) -> MeshConfig:
        """The MeshConfig loaded last, else Istio's defaults."""
        found = [r.spec for r in self.resources if r.kind == "MeshConfig"]
        return found[-1] if found else MeshConfig()

    @cached_property
    def proxies(self) -> list[topology.Proxy]:
        return topology.proxies(self.resources)

    @cached_property
    def pods(self) -> list[PodPlace]:
        """Every pod that has an address, in the order loaded; the cluster's own come last."""
        by_pod = {(p.namespace, p.pod): p for p in self.proxies}
        found = []
        for pod in sorted(self.resources, key=kube_system.is_hidden):
            if pod.kind == "Pod" and pod.spec.status is not None and pod.spec.status.pod_ip:
                app = pod.metadata.labels.get("app", pod.name)
                found.append(PodPlace(pod.name, pod.namespace, pod.spec.status.pod_ip, app, by_pod.get((pod.namespace, pod.name))))
        return found

    @cached_property
    def external_servers(self) -> list[ExternalServerSpec]:
        return [r.spec for r in self.resources if r.kind == "ExternalServer"]

    def pod(self, name: str) -> PodPlace:
        """A pod by its name or its `app` label, alone or as `NAMESPACE/NAME` or `NAME.NAMESPACE`. Raises UnknownPod."""
        namespace, slash, bare = name.rpartition("/")
        for pod in self.pods:
            if slash:
                fits = pod.namespace == namespace and bare in (pod.name, pod.app)
            else:
                fits = name in (pod.name, pod.app, f"{pod.name}.{pod.namespace}", f"{pod.app}.{pod.namespace}")
            if fits:
                return pod
        known = ", ".join(f"{p.namespace}/{p.app}" for p in self.pods) or "none"
        raise UnknownPod(f"no pod {name!r}; there are: {known}")

    def proxy(self, name: str) -> topology.Proxy:
        """The proxy of a pod, named as for `pod`. Raises UnknownPod, also for a pod without a proxy."""
        pod = self.pod(name)
        if pod.proxy is None:
            raise UnknownPod(f"pod {pod.namespace}/{pod.name} has no proxy")
        return pod.proxy

    def config(self, proxy: str | topology.Proxy) -> xds.ProxyConfig:
        """What a proxy is told: exactly what istiod would send it."""
        if isinstance(proxy, str):
            proxy = self.proxy(proxy)
        key = f"{proxy.namespace}/{proxy.name}"
        if key not in self._configs:
            self._configs[key] = control.compile(self._index, proxy)
        return self._configs[key]

    def simulate(
        self,
        source: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        port: int | None = None,
    ) -> Trace:
        """What a request from a pod would do, hop by hop and why, without a socket. Each call meets a fresh mesh.

        url: `http://` or `https://`; `tcp://HOST:PORT` opens a connection and sends `body`. Raises UnknownPod, and MeshsimError for a URL
        that is none of these.
        """
        pod = self.pod(source)
        name = _full_name(pod.proxy) if pod.proxy else f"{pod.name}.{pod.namespace}"
        return self.simulation().call(_call(name, url, method, headers or {}, body, port), explain=True)

    def near_misses(self, trace: Trace) -> list[NearMiss]:
        """What one would have expected to apply to a simulated call and did not, and why."""
        return near_misses(self._index, trace, {_full_name(proxy): proxy for proxy in self.proxies})

    def simulation(self, *, seed: int = 0, beside: Iterable[ExternalServerSpec] = ()) -> Simulation:
        """A simulated mesh that remembers: balancing and ejected hosts carry over from call to call. Proxies go by `NAME.NAMESPACE`.

        `beside` are servers outside that the mesh's files do not have.
        """
        beside = list(beside)
        domain = self.mesh_config.trust_domain
        named = {_full_name(proxy): proxy for proxy in self.proxies}
        world = SimulatedWorld(
            names=self.names | {host: server.addresses for server in beside for host in server.hosts},
            services=self.services,
            servers=[*self.external_servers, *beside, *self.applications(with_proxy=False).values()],
            recipes=recipes.certificates(),
            apps=self.applications(with_proxy=True),
            trust_domain=domain,
            walls=self.walls,
            interceptions=self.interceptions,
            bare={f"{pod.name}.{pod.namespace}": (pod.address, pod.namespace) for pod in self.pods if pod.proxy is None},
        )
        identities = {name: Certificate(uris=(proxy.identity(domain),), ca="mesh") for name, proxy in named.items()}
        return Simulation(
            self._placed,
            [replace(proxy, name=name) for name, proxy in named.items()],
            world,
            {name: self._simulated_secrets(identities[name], proxy) for name, proxy in named.items()},
            seed=seed,
        )

    def _simulated_secrets(self, identity: Certificate, proxy: topology.Proxy) -> Secrets:
        issued = {}
        for key, spec in self.issued_secrets.items():
            shown = spec.certificate and described(spec.certificate, spec.certificate.names, recipes.certificates())
            roots = frozenset((spec.trust,)) if spec.trust else None
            issued[key] = SecretFacts(certificate_of(shown) if shown else None, roots, roots if spec.revocations else None)
        mounts = self.mounts.get(proxy.ip, [])
        return Secrets(identity, proxy.namespace, self.secrets, issued=issued, mounted=lambda path: cluster.mounted(mounts, path))

    def run(
        self,
        *,
        processes: bool = False,
        seed: int = 0,
        cacerts: Path | None = None,
        network: str = "loopback",
        engine: str = ASYNCIO,
    ) -> LiveMesh:
        """The mesh alive on this machine, to be entered with `async with`; see LiveMesh."""
        from meshsim.live import LiveMesh

        return LiveMesh(self, processes=processes, seed=seed, cacerts=cacerts, network=network, engine=engine)

    @cached_property
    def _placed(self) -> dict[str, xds.ProxyConfig]:
        """What each simulated proxy runs by."""
        return {_full_name(proxy): portable(self.config(proxy)) for proxy in self.proxies}

    @cached_property
    def _index(self) -> MeshIndex:
        for resource in self.told:
            if resource.kind == "VirtualService":
                _know_operators(resource)
        after, self._after = self._after, None
        return control.index(self.told, self.mesh_config, after=after)

    def applications(self, *, with_proxy: bool) -> dict[str, ExternalServerSpec]:
        """By address, an echo in every pod that a Service leads to, for want of the real application."""
        ports: dict[str, set[int]] = {}
        for address, _, port in (place.rpartition(":") for places in self.services.values() for place in places):
            ports.setdefault(address, set()).add(int(port))
        return {
            pod.address: ExternalServerSpec(
                hosts=[pod.app], addresses=[pod.address], ports=[ServerPort(port=port) for port in sorted(ports[pod.address])]
            )
            for pod in self.pods
            if pod.address in ports and not pod.is_gateway and (pod.proxy is not None) == with_proxy and pod.address not in self.dns
        }

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """What the cluster's DNS knows: external servers, Services with an address, headless ones by their pods, aliases."""
        return cluster.names(self.resources)

    @cached_property
    def services(self) -> dict[str, list[str]]:
        """Where each ClusterIP and port leads: every ready `address:port` behind it."""
        return cluster.services(self.resources)

    @cached_property
    def datagrams(self) -> list[str]:
        """The `ClusterIP:port`s of Services that are for UDP."""
        return cluster.datagrams(self.resources)

    @cached_property
    def dns(self) -> list[str]:
        """The addresses of the pods that answer as the cluster's DNS."""
        return [r.spec.status.pod_ip for r in self.resources if kube_system.is_dns(r) and r.spec.status is not None]

    @cached_property
    def walls(self) -> Walls:
        """What NetworkPolicies let through, and which pods their nodes have no route out for."""
        return structs.replace(walls(self.resources), nodes=node.landlocked(self.resources))

    @cached_property
    def issued_secrets(self) -> dict[tuple[str, str], IssuedSecretSpec]:
        """By namespace and name, the Secrets whose contents are made when the mesh starts."""
        return {(r.namespace, r.name): r.spec for r in self.resources if r.kind == "IssuedSecret"}

    @cached_property
    def mounts(self) -> dict[str, list[SecretMount]]:
        """The Secrets that a proxy has as files, by its pod's address."""
        return cluster.mounts(self.resources)

    @cached_property
    def interceptions(self) -> dict[str, Interception]:
        """What each sidecar gets of its pod's connections, by the pod's address; those with no annotation about it are left out."""
        sidecars = {proxy.ip for proxy in self.proxies if proxy.is_sidecar}
        pods = [r for r in self.resources if r.kind == "Pod" and r.spec.status is not None and r.spec.status.pod_ip in sidecars]
        found = {pod.spec.status.pod_ip: interception(pod) for pod in pods}
        return {address: given for address, given in found.items() if given.at}

    @cached_property
    def secrets(self) -> dict[tuple[str, str], dict[str, bytes]]:
        """The contents of Secrets by namespace and name."""
        return cluster.secrets(self.resources)


def _full_name(proxy: topology.Proxy) -> str:
    return f"{proxy.name}.{proxy.namespace}"


def _call(source: str, url: str, method: str, headers: Mapping[str, str], body: bytes, port: int | None) -> Call:
    try:
        if url.startswith("tcp://"):
            host, _, number = url.removeprefix("tcp://").rstrip("/").rpartition(":")
            return Call(source, host, port or int(number), http=None, data=body)
        return Call.url(source, url, method, tuple(headers.items()), body, port)
    except ValueError as e:
        raise MeshsimError(str(e) if "URL" in str(e) else f"not a URL: {url}") from None


def _know_operators(virtual_service: Resource[VirtualServiceSpec]) -> None:
    """Raise NotSimulated, with the place, for a header value that names an operator nobody knows: Envoy takes no route with one."""
    for index, rule in enumerate(virtual_service.spec.http):
        places = [(("headers",), rule.headers), *((("route", n, "headers"), leg.headers) for n, leg in enumerate(rule.route))]
        for at, headers in places:
            for side in ("request", "response"):
                operations = getattr(headers, side) if headers else None
                for kind in ("set", "add") if operations else ():
                    for name, value in getattr(operations, kind).items():
                        try:
                            if "%" in value:
                                header_format(value)
                        except NotSimulated as e:
                            place = virtual_service.locate("http", index, *at, side, kind, name)
                            raise NotSimulated(f"header value {value!r}: {e.field}", place) from None
