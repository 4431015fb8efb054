"""A real Ray cluster, asked node by node."""

import socket

import pytest

from pipeline.health.findings import OK
from pipeline.health.node_probe import probe
from pipeline.health.nodes import check_cluster
from tests.support.processes import free_port


@pytest.mark.slow
def test_every_node_is_asked_for_itself(ray_cluster, tmp_path):
    here = probe({}, None)
    shared = {"stores": str(tmp_path)}
    cluster, node = check_cluster("auto", "none", shared, here)
    assert (cluster.name, cluster.state) == ("Ray", OK)
    assert (cluster.facts["nodes"], cluster.facts["CPU"]) == (1, 2)
    assert node.name == f"node {socket.gethostname()}"
    assert node.problems == ()
    assert node.facts["versions"] == "as here"
    assert abs(float(node.facts["clock s"])) < 5
    assert list(tmp_path.iterdir()) == [], "nothing is left"


def test_a_cluster_that_is_not_there_is_named_with_the_command_that_starts_one():
    address = f"127.0.0.1:{free_port()}"
    (check,) = check_cluster(address, "none", {}, {})
    (problem,) = check.problems
    assert check.where == address
    assert "Connection refused" in problem.what
    assert problem.mend.startswith(f"ray start --head --port {address.partition(':')[2]}")
