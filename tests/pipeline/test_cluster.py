"""Work on a Ray cluster, as it is seen from the process that gives it out."""

import time

import pytest
from ray.cluster_utils import Cluster

from pipeline import cluster


@pytest.mark.slow
def test_work_ends_with_the_next_step_when_another_head_is_in_the_place_of_the_one_it_joined():
    cluster.disconnect()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    head = made.head_node
    assert head is not None
    cluster.connect(made.address)
    try:
        done = cluster.ray_map(time.sleep, [0.1] * 1000)
        next(done)
        head.kill_gcs_server()
        head.start_gcs_server()
        with pytest.raises(cluster.ClusterError, match=r"head at .* was lost.* same command again"):
            list(done)
        with pytest.raises(cluster.ClusterError, match="was lost"):
            cluster.check_head()
    finally:
        cluster.disconnect()
        made.shutdown()
