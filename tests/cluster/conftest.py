"""The whole platform, once for all its tests."""

from collections.abc import Iterator

import pytest

from tests.cluster import topology as platform
from tests.cluster.topology import Topology


@pytest.fixture(scope="session")
def topology(tmp_path_factory) -> Iterator[Topology]:
    if reason := platform.why_not():
        pytest.skip(reason)
    with platform.running(tmp_path_factory.mktemp("cluster")) as made:
        yield made
