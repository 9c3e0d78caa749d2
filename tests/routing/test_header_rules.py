"""What header rules promise, whatever the headers and the rules are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.routing import headers
from meshsim.xds.message import HeaderValue, HeaderValueOption

NAMES = st.sampled_from(["a", "b", "c"])
SPELLED = st.sampled_from(["a", "A", "b", "B", "c"])
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from(["", "1", "2"])), max_size=6)
APPEND, OVERWRITE, ABSENT, EXISTS = "APPEND_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS"


def of(name: str, fields: list[tuple[str, str]]) -> list[str]:
    return [value for other, value in fields if other == name.lower()]


def unused(text: str) -> str:
    raise AssertionError(text)


def rule(name: str, action: str, value: str = "new") -> HeaderValueOption:
    return HeaderValueOption(HeaderValue(name, value), append_action=action)


@given(FIELDS, SPELLED, st.sampled_from([APPEND, OVERWRITE, ABSENT, EXISTS]))
def test_an_added_header(fields: list[tuple[str, str]], name: str, action: str) -> None:
    before = of(name, fields)
    after = headers.changed(list(fields), [([], [rule(name, action)])], unused)
    expected = {
        APPEND: [*before, "new"], OVERWRITE: ["new"], ABSENT: before or ["new"], EXISTS: ["new"] if before else [],
    }  # fmt: skip
    assert of(name, after) == expected[action]
    assert [pair for pair in after if pair[0] != name.lower()] == [pair for pair in fields if pair[0] != name.lower()]


@given(FIELDS, st.lists(SPELLED, max_size=3), SPELLED)
def test_removals_come_before_the_additions_of_their_level_and_after_those_of_the_one_before(
    fields: list[tuple[str, str]], removed: list[str], name: str
) -> None:
    gone = {each.lower() for each in removed}
    together = headers.changed(list(fields), [(removed, [rule(name, APPEND)])], unused)
    assert together == [*(pair for pair in fields if pair[0] not in gone), (name.lower(), "new")]
    apart = headers.changed(list(fields), [([], [rule(name, APPEND)]), (removed, [])], unused)
    assert all(pair[0] not in gone for pair in apart)


@given(FIELDS, SPELLED, st.sampled_from([APPEND, OVERWRITE, ABSENT, EXISTS]))
def test_a_value_that_comes_out_empty_changes_nothing(fields: list[tuple[str, str]], name: str, action: str) -> None:
    assert headers.changed(list(fields), [([], [rule(name, action, "%REQ(x)%")])], lambda _: "") == fields


# What is there, what is added, what becomes of it in a request and in a response: as a real Envoy had it.
ADDED = [
    ("accept", "a", ["a,new"], ["a", "new"]),
    ("te", "trailers", ["trailers,new"], ["trailers", "new"]),
    ("location", "a", ["a", "new"], ["a,new"]),
    ("vary", "a", ["a", "new"], ["a,new"]),
    ("via", "a", ["a,new"], ["a,new"]),
    ("cookie", "a", ["a", "new"], ["a", "new"]),
    ("set-cookie", "a", ["a", "new"], ["a", "new"]),
    ("x-one", "a", ["a", "new"], ["a", "new"]),
]


@pytest.mark.parametrize(("name", "there", "requested", "responded"), ADDED)
def test_values_that_are_joined(name: str, there: str, requested: list[str], responded: list[str]) -> None:
    levels = [([], [rule(name, APPEND)])]
    assert of(name, headers.changed([(name, there)], levels, unused, headers.SINGLE_IN_REQUESTS)) == requested
    assert of(name, headers.changed([(name, there)], levels, unused, headers.SINGLE_IN_RESPONSES)) == responded
