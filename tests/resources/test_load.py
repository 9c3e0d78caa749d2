"""Loading: where things stand, every mistake at once, and what YAML must not be able to do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsim import resources
from meshsim.errors import ConfigError
from meshsim.resources.validation import validate

ENTRY = """\
# a comment, and an umlaut: ä
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com, "*.cnn.com"]
  ports:
  - number: 80
    name: http
    protocol: HTTP
  - {number: 443, name: tls, protocol: TLS}
  resolution: NONE
"""
SECOND = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule, namespace: team}
spec:
  host: edition.cnn.com
"""


def entry(**lines: str) -> str:
    """A ServiceEntry with some lines of its spec replaced."""
    spec = {"hosts": "[a.com]", "ports": "[{number: 80, name: http, protocol: HTTP}]", "resolution": "DNS", **lines}
    body = "".join(f"  {name}: {value}\n" for name, value in spec.items())
    return f"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n{body}"


def said(text: str) -> list[str]:
    return [str(p) for p in resources.loads(text, "f.yaml").problems]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), "f.yaml:2:1"),
        (("hosts",), "f.yaml:6:3"),
        (("spec", "hosts", 1), "f.yaml:6:28"),
        (("ports", 0, "name"), "f.yaml:9:5"),
        (("ports", 1, "protocol"), "f.yaml:11:30"),
        (("ports", 7, "name"), "f.yaml:7:3"),
        (("metadata", "name"), "f.yaml:4:12"),
        (("exportTo",), "f.yaml:5:1"),
    ],
)
def test_fields_are_found_where_they_stand(path: tuple[str | int, ...], place: str) -> None:
    resource = resources.loads(ENTRY, "f.yaml").resources[0]
    assert str(resource.locate(*path)) == place


def test_places_count_from_the_beginning_of_the_file() -> None:
    rule = resources.loads(ENTRY + SECOND, "f.yaml").of("DestinationRule")[0]
    assert str(rule.location) == "f.yaml:14:1"
    assert rule.at("host") == "f.yaml:18"


def test_members_of_a_list_are_found_too() -> None:
    one = "- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: one\n"
    two = "- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: two}\n  data: {a: b}\n"
    found = resources.loads("kind: List\napiVersion: v1\nitems:\n" + one + two, "f.yaml")
    assert [r.id for r in found.resources] == ["Namespace//one", "ConfigMap/default/two"]
    assert [str(r.location) for r in found.resources] == ["f.yaml:4:3", "f.yaml:8:3"]
    assert str(found.resources[1].locate("data", "a")) == "f.yaml:11:10"


def test_documents_are_created_in_order_unless_they_say_when() -> None:
    text = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{when}}}\n"
        for name, when in (("a", ""), ("b", ", creationTimestamp: 2020-01-01T00:00:00Z"), ("c", ""))
    )
    found = sorted(resources.loads(text).resources, key=lambda r: r.order)
    assert [r.name for r in found] == ["b", "a", "c"]
    assert found[2].order - found[1].order == 2.0


def test_a_name_given_twice_is_applied_twice() -> None:
    found = resources.loads(entry() + "---\n" + SECOND + "---\n" + entry(hosts="[b.com]"), "f.yaml")
    assert [(r.kind, r.order - found.resources[0].order) for r in found.resources] == [("ServiceEntry", 0.0), ("DestinationRule", 1.0)]
    assert found.resources[0].spec.hosts == ["b.com"]
    assert [str(p) for p in found.problems] == [
        "f.yaml:16:1: warning: ServiceEntry/default/a: takes the place of the one at f.yaml:1:1, which has the same name"
    ]


def test_namespace_defaults_to_default_where_there_is_one() -> None:
    found = resources.loads(entry() + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
    assert [r.namespace for r in found.resources] == ["default", ""]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (entry(resoluton="DNS"), 'f.yaml:8:3: error: ServiceEntry/default/a: unknown field "resoluton"; did you mean "resolution"?'),
        (entry(hosts="[no]"), "f.yaml:5:11: error: ServiceEntry/default/a: spec.hosts[0]: expected text, found the boolean false; "
                              "YAML reads yes, no, on and off as booleans; quote the text"),
        (entry(hosts="a.com"), 'f.yaml:5:10: error: ServiceEntry/default/a: spec.hosts: expected a list, found the text "a.com"'),
        (entry(resolution="dns"), 'f.yaml:7:15: error: ServiceEntry/default/a: spec.resolution: unknown value the text "dns"; '
                                  'did you mean "DNS"?'),
        (entry() + "  hosts: [b.com]\n", 'f.yaml:8:3: error: key "hosts" is given twice'),
        (entry() + "sepc: {}\n", 'f.yaml:8:1: error: ServiceEntry/default/a: unknown field "sepc"; did you mean "spec"?'),
        (entry(subject_alt_names="[a.com]"), "f.yaml:8:3: warning: ServiceEntry/default/a: \"subject_alt_names\" is the proto name; "
                                             'the Kubernetes schema has "subjectAltNames"'),
        (entry().replace("ServiceEntry", "ServiceEntri"), 'f.yaml:2:1: error: unknown kind "ServiceEntri"; did you mean "ServiceEntry"?'),
        (entry().replace("io/v1", "io/v2"), 'f.yaml:1:1: error: ServiceEntry/default/a: no ServiceEntry is served under apiVersion '
                                            '"networking.istio.io/v2"; allowed: networking.istio.io/v1, networking.istio.io/v1beta1, '
                                            "networking.istio.io/v1alpha3"),
        (entry().replace("ServiceEntry", "EnvoyFilter"), "f.yaml:2:1: error: EnvoyFilter/default/a: not simulated yet: EnvoyFilter"),
        (entry().replace("name: a}", "nam: a}"), "f.yaml:3:1: error: ServiceEntry/default/: metadata.name is required"),
        ("kind: Pod\n", 'f.yaml:1:1: error: a resource needs a text "apiVersion"'),
        ("- 1\n", "f.yaml:1:1: error: a resource is a mapping; found a list"),
        ("a: [\n", "f.yaml:2:1: error: not YAML: did not find expected node content"),
        ("a: *b\n", "f.yaml:1:4: error: not YAML: found undefined alias"),
        ("on: 1\n" + entry(), 'f.yaml:1:1: warning: the key on is read as "true"; quote it'),
        ("? [a]\n: b\n", "f.yaml:1:3: error: a key must be text"),
    ],
)  # fmt: skip
def test_mistake_is_named_at_its_place(text: str, problem: str) -> None:
    assert said(text)[0] == problem


OUTSIDE = """apiVersion: meshsim.dev/v1alpha1
kind: %s
metadata: {name: a}
spec:
  %s
"""


@pytest.mark.parametrize(
    ("kind", "spec", "problem"),
    [
        ("ExternalServer", "hosts: [a.com]\n  ports: [{port: 1, certificate: {ca: pulbic}}]",
         'f.yaml:6:39: error: ExternalServer/default/a: spec.ports[0].certificate.ca: no certificate authority "pulbic"; '
         'did you mean "public"?'),
        ("ExternalServer", "hosts: [a.com]\n  ports: [{port: 1, certificate: {recipe: expird}}]",
         'f.yaml:6:43: error: ExternalServer/default/a: spec.ports[0].certificate.recipe: no recipe "expird" for a certificate; '
         'did you mean "expired"?'),
        ("ExternalServer", "hosts: [a.com]\n  ports: [{port: 1, clientCertificates: {trust: [x]}}]",
         'f.yaml:6:50: error: ExternalServer/default/a: spec.ports[0].clientCertificates.trust[0]: no certificate authority "x"; '
         "allowed: mesh, partner, public, unknown"),
        ("IssuedSecret", "trust: x",
         'f.yaml:5:10: error: IssuedSecret/default/a: spec.trust: no certificate authority "x"; allowed: mesh, partner, public, unknown'),
        ("IssuedSecret", "certificate: {names: [a.b], recipe: revokd}",
         'f.yaml:5:39: error: IssuedSecret/default/a: spec.certificate.recipe: no recipe "revokd" for a certificate; '
         'did you mean "revoked"?'),
    ],
)  # fmt: skip
def test_a_certificate_that_nobody_can_issue(kind: str, spec: str, problem: str) -> None:
    assert said(OUTSIDE % (kind, spec)) == [problem]


def test_every_mistake_is_named_at_once() -> None:
    text = entry(resoluton="DNS", hosts="5") + "---\nkind: x\n---\n" + entry(ports="[{number: eighty, name: 80}]")
    assert len(said(text)) == 5


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("weight: '100'", 100),  # 64-bit integers may be text, and Istio's decoder takes all of them so
        ("weight: 100.0", 100),
        ("weight: 0x64", 100),
        ("weight: 0144", 100),
        ("weight: ", 0),
        ("weight: null", 0),
        ("weight: 1_00", 100),
    ],
)
def test_numbers_are_read_as_kubernetes_reads_them(written: str, read: int) -> None:
    text = f"""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a}}
spec:
  hosts: [a.com]
  http: [{{route: [{{destination: {{host: a.com}}, {written}}}]}}]
"""
    found = resources.loads(text)
    assert found.problems == []
    assert found.resources[0].spec.http[0].route[0].weight == read


def test_enums_are_taken_by_number_and_integer_keys_as_text() -> None:
    found = resources.loads(entry(resolution="2", location="1"))
    assert (found.resources[0].spec.resolution, found.resources[0].spec.location) == ("DNS", "MESH_INTERNAL")
    text = ("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n"
            "spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}}}\n")  # fmt: skip
    assert resources.loads(text).resources[0].spec.port_level_mtls[8080].mode == "DISABLE"


def test_one_of_members_exclude_one_another() -> None:
    text = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a.com]
  http:
  - match: [{uri: {exact: /a, prefix: /b}}]
    route: [{destination: {host: a.com}}]
"""
    assert said(text) == ["f.yaml:7:31: error: VirtualService/default/a: spec.http[0].match[0].uri: only one of exact, prefix can be given"]


def test_merge_keys_and_aliases_are_followed() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  <<: {x: one, w: two}\n  x: &mine three\n  z: *mine\n"
    assert resources.loads(text).resources[0].spec.data == {"x": "three", "w": "two", "z": "three"}


def test_files_folders_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.yaml").write_text(entry())
    (tmp_path / "a.yml").write_text(SECOND)
    (tmp_path / "notes.txt").write_text("no YAML: [")
    monkeypatch.setattr("sys.stdin", io.StringIO("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"))
    assert [r.kind for r in resources.load(tmp_path, "-").resources] == ["DestinationRule", "ServiceEntry", "Namespace"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "x.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError):
        resources.load(file)
    with pytest.raises(ConfigError, match=r"no \*\.yaml"):
        (tmp_path / "empty").mkdir()
        resources.load(tmp_path / "empty")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "aliases counted"),
        ("&a [*a]", "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 100_000, "nested deeper"),
        ("- " * 50_000, "nested deeper"),
        ("? " * 50_000, "nested deeper"),
        ("\n".join(" " * i + "a:" for i in range(2000)), "nested deeper"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
    ],
    ids=["laughs", "itself", "lists", "mappings", "dashes", "keys", "indents", "brackets"],
)
def test_absurd_documents_are_refused_with_bounded_work(text: str, word: str) -> None:
    assert word in said(text)[0]


def test_brackets_in_texts_are_no_depth() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: '" + "[" * 1000 + "'}\n"
    assert said(text) == []


WORDS = st.sampled_from((
    "apiVersion", "kind", "metadata", "spec", "name", "hosts", "http", "match", "route", "destination", "port", "number", "tls", "mode",
    "SIMPLE", "networking.istio.io/v1", "VirtualService", "ServiceEntry", "Gateway", "DestinationRule", "Sidecar", "AuthorizationPolicy",
    "security.istio.io/v1", "servers", "rules", "from", "source", "80", "5s", "*", "a.com", "no", "~", "{}", "[]", "<<", "&a", "*a",
    "!!int", "timeout", "sni_hosts", "exact", "prefix",
))  # fmt: skip
LINES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "- "]), WORDS, st.sampled_from([":", ": ", ""]), WORDS), max_size=30)


@given(LINES)
@settings(max_examples=150, deadline=None)
def test_no_yaml_raises(lines: list[tuple[int, str, str, str, str]]) -> None:
    text = "\n".join(f"{'  ' * indent}{dash}{key}{colon}{value if colon == ': ' else ''}" for indent, dash, key, colon, value in lines)
    documents = resources.loads(text)
    validate(documents)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_text_raises(text: str) -> None:
    validate(resources.loads(text))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.floats(allow_nan=False) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
KINDS = st.sampled_from(
    [(name, f"{kind.group}/{v}".lstrip("/")) for name, kinds in resources.KINDS.items() for kind in kinds for v in kind.versions]
)


@given(KINDS, PLAIN)
@settings(max_examples=150, deadline=None)
def test_no_spec_raises(kind: tuple[str, str], spec: object) -> None:
    import json

    document = {"apiVersion": kind[1], "kind": kind[0], "metadata": {"name": "a"}, "spec": spec}
    documents = resources.loads(json.dumps(document))
    problems = validate(documents)
    assert all(p.message for p in problems)
