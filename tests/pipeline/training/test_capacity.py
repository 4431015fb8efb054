"""How the threads of trainings are counted on the nodes of a cluster."""

import pytest

from pipeline.training.capacity import Node, Room, room_for, threads_a_worker


def test_workers_share_the_cores_of_the_nodes():
    assert threads_a_worker([2], 1) == 2
    assert threads_a_worker([2], 2) == 1
    assert threads_a_worker([16, 16], 3) == 8
    assert threads_a_worker([16, 4], 2) == 8
    assert threads_a_worker([4], 1, wanted=2) == 2
    with pytest.raises(ValueError, match="choose fewer workers"):
        threads_a_worker([2, 2], 5)


def test_a_laptop_holds_one_training_and_a_cluster_several():
    laptop, node, server = Node(cpus=2), Node(cpus=16), Node(cpus=32, gpus=8)
    assert room_for([laptop], 1) == Room(threads=2, trainings=1)
    assert room_for([laptop], 1, wanted=1) == Room(threads=1, trainings=2)
    assert room_for([node] * 4, 1) == Room(threads=16, trainings=4)
    assert room_for([node] * 4, 2) == Room(threads=16, trainings=2)
    assert room_for([node, server], 1, gpus=1) == Room(threads=4, trainings=8)
    assert room_for([Node(cpus=4, gpus=8)], 4, gpus=1) == Room(threads=1, trainings=1)
    with pytest.raises(ValueError, match="3 workers of 1 GPU"):
        room_for([Node(cpus=16, gpus=2)], 3, gpus=1)


def test_small_networks_share_a_gpu_and_the_cores_that_go_with_it():
    server = Node(cpus=8, gpus=2)
    assert room_for([server], 1, gpus=0.25) == Room(threads=1, trainings=8)
    assert room_for([server], 1, gpus=0.5) == Room(threads=2, trainings=4)
    assert room_for([server, Node(cpus=64)], 1, gpus=2) == Room(threads=4, trainings=1)
    with pytest.raises(ValueError, match=r"do not fit on nodes with \[\] cores"):
        room_for([server], 1, gpus=4)
