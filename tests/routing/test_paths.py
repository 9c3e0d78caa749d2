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
