"""What a real Ray's node tells Prometheus of the project's counters."""

import time
from collections.abc import Mapping
from urllib.request import urlopen

import ray
from prometheus_client.parser import text_string_to_metric_families

from pipeline.prometheus import COUNTERS

WITHIN_S = 40
"""Ray's processes tell their node every ten seconds."""
LABELS = {f"ray_{counter.name}": counter.tags for counter in COUNTERS}

Series = tuple[str, ...]
"""The name of a counter, and the values of its tags."""


def counted() -> dict[Series, float]:
    """Return what every counter has at the node's endpoint, summed over its processes."""
    (node,) = (node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    sums: dict[Series, float] = {}
    for family in text_string_to_metric_families(urlopen(url, timeout=10).read().decode()):
        for sample in family.samples:
            if sample.name in LABELS:
                tags = (sample.labels[name] for name in LABELS[sample.name])
                series = (sample.name.removeprefix("ray_"), *tags)
                sums[series] = sums.get(series, 0.0) + sample.value
    return sums


def counted_in_time(least: Mapping[Series, float]) -> dict[Series, float]:
    """Return what `counted` does once it has at least so much of each, or does not in time."""
    end = time.monotonic() + WITHIN_S
    found = counted()
    while time.monotonic() < end:
        if all(found.get(series, 0) >= value for series, value in least.items()):
            break
        time.sleep(0.5)
        found = counted()
    return found
