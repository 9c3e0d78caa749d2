"""A mesh that is up while the tests of this folder talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster, cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "kubectl" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("kubectl"))


@pytest.fixture(scope="package")
def kubectl() -> Iterator[Cluster]:
    with cluster("one", "--network", "loopback") as made:
        yield made
