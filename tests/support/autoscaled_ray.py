"""A Ray that begins with a head without cores and brings a node when something asks for it.

Ray's own AutoscalingCluster ends every Ray on the machine when it starts and stops, other people's
too; this one ends what it started.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import ray
from ray.autoscaler._private.fake_multi_node import node_provider
from ray.cluster_utils import Cluster

from tests.support.processes import free_port, processes_of

NODE_TYPES = {"cores": {"CPU": 1}, "gpus": {"CPU": 1, "GPU": 1}}
MEMORY = {"object_store_memory": 80_000_000}  # bytes
HEAD = "ray.head.default"  # by which the provider calls it
ENVIRONMENT = {
    "RAY_CLOUD_INSTANCE_ID": node_provider.FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_provider.FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
}

NOTHING = ("cluster_synced_files", "setup_commands", "head_setup_commands", "worker_setup_commands")
"""What Ray's configuration must have, though nothing is to be set up."""


@contextmanager
def autoscaled_ray(folder: Path) -> Iterator[str]:
    """Give the address of a Ray that has no node yet but the head, and one at most of each type."""
    port = free_port()
    address = f"{ray.util.get_node_ip_address()}:{port}"
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_config(address)))
    head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": port}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "FOLDER_OF_RAY": str(folder)}.items():
            patch.setenv(name, value)
        made = Cluster(
            initialize_head=True, head_node_args={**head, "autoscaling_config": str(config)}
        )
    try:
        yield address
    finally:
        made.shutdown()
        for pid, _ in processes_of(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _config(address: str) -> dict:
    types = {
        name: {
            "resources": {**resources, **MEMORY},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 1,
        }
        for name, resources in NODE_TYPES.items()
    }
    types[HEAD] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "external",  # Ray's wheel lacks the defaults of its `fake_multinode`
        "module": f"{node_provider.__name__}.FakeMultiNodeProvider",
        "gcs_address": address,
        "head_node_id": node_provider.FAKE_HEAD_NODE_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    return {
        "cluster_name": "from-zero",
        "max_workers": len(NODE_TYPES),
        "idle_timeout_minutes": 1,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": HEAD,
        **{name: [] for name in NOTHING},
    }
