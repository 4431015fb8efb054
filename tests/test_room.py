"""How the threads of trainings are counted on the nodes of a cluster."""

import pytest

from pipeline.room import threads_a_worker


def test_workers_share_the_cores_of_the_nodes():
    assert threads_a_worker([2], 1) == 2
    assert threads_a_worker([2], 2) == 1
    assert threads_a_worker([16, 16], 3) == 8
    assert threads_a_worker([16, 4], 2) == 8
    assert threads_a_worker([4], 1, wanted=2) == 2
    with pytest.raises(ValueError, match="choose fewer workers"):
        threads_a_worker([2, 2], 5)
