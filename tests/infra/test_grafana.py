"""infra/grafana.json: every query asks for what is there, and all that is counted is shown."""

import json
import re

import pytest
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from pipeline.prometheus import COUNTERS
from tests.support.infra_files import INFRA

DASHBOARD = json.loads((INFRA / "grafana.json").read_text())
QUERIES = [query["expr"] for panel in DASHBOARD["panels"] for query in panel["targets"]]
OURS = {f"ray_{counter.name}": counter.tags for counter in COUNTERS}
RAYS = {f"ray_{name}" for name in METRICS_GAUGES}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_metrics_and_tags_that_exist(query):
    names = re.findall(r"\bray_\w+", query)
    assert names
    for name in names:
        assert name in OURS or name in RAYS
    for tags in re.findall(r"by \(([^)]*)\)", query):
        assert {*tags.split(", ")} <= {*OURS[names[0]]}


def test_all_that_is_counted_is_shown():
    assert {name for query in QUERIES for name in re.findall(r"\bray_\w+", query)} >= OURS.keys()


def test_every_panel_has_a_place_of_its_own_and_the_data_source_that_is_chosen():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len({*places}) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    (variable,) = DASHBOARD["templating"]["list"]
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == f"${{{variable['name']}}}"
