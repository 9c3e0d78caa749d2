"""Paths that are taken as they are, and what would have become of them otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsim.routing import paths
from meshsim.xds.http_connection_manager import HttpConnectionManager

EVERYTHING = HttpConnectionManager(
    stat_prefix="x", normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="REJECT_REQUEST"
)


@given(st.text(alphabet="/.a-%2fF5cC\\?#0~ ", max_size=12))
def test_a_target_that_is_not_looked_at_closely_would_have_stayed_as_it_is(text: str) -> None:
    if paths.CANONICAL.fullmatch(target := "/" + text):
        path, mark, query = target.partition("?")
        assert paths.normalized(path) == path
        assert "//" not in path and "%" not in path and "#" not in target
        assert paths.normalizer(EVERYTHING)(target) == path + mark + query


@pytest.mark.parametrize("target", ["/", "/1024", "/a/b.html", "/a/?q=/../%2f", "/~me/x-y_z/"])
def test_usual_targets_are_not_looked_at_closely(target: str) -> None:
    assert paths.CANONICAL.fullmatch(target)


@pytest.mark.parametrize("target", ["/a//b", "/a/../b", "/./a", "/%41", "/a%2fb", "/a\\b", "/a#b", "/a?b#c", "//"])
def test_all_others_are(target: str) -> None:
    assert not paths.CANONICAL.fullmatch(target)


@pytest.mark.parametrize(("target", "becomes"), [
    ('/a"b<c>d^e`f{g|h}i', "/a%22b%3Cc%3Ed%5Ee%60f%7Bg%7Ch%7Di"), ("/a\\b", "/a/b"), ("/%41%7e%2D", "/A~-"), ("/%zz%4", "/%zz%4"),
    ("/a/..;x=1/b", "/b"), ("/a/.;x/b", "/a/b"), ("/a/..;", "/"), ("/a/%2e%2e;/b", "/a/..;/b"), ("/a;x/b", "/a;x/b"),
    ("/a?b|c", "/a?b|c"), ("//", "//"), ("///", "//"), ("//a//", "/a/"), ("/a/..;%00/b", "/b"), ("/%00", None),
])  # fmt: skip
def test_a_path_becomes_what_envoy_makes_of_it(target: str, becomes: str | None) -> None:
    """The rows are answers of Envoy 1.40 with normalize_path and merge_slashes."""
    manager = HttpConnectionManager(stat_prefix="x", normalize_path=True, merge_slashes=True)
    assert paths.normalizer(manager)(target) == becomes


@given(st.text(alphabet='/.a-%2eEF5cC\\"|~ ', max_size=14))
def test_a_path_that_was_normalized_stays_as_it_is(text: str) -> None:
    once = paths.normalized("/" + text)
    if once is not None:
        assert paths.normalized(once) == once and once.startswith("/")
        assert not {".", ".."} & set(once.split("/"))
