"""A mesh that is up while the tests of this folder talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster, cluster


@pytest.fixture(scope="package")
def kubectl() -> Iterator[Cluster]:
    with cluster("one", "--network", "loopback") as made:
        yield made
