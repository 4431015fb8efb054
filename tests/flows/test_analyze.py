"""Comparisons of recipes as a flow: trained on a budget, drawn, recorded, not registered."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

import flows.analyze
from flows.analyze import Analysis, analyze
from flows.settings import settings
from flows.steps.study_results import StudyError
from pipeline.recipes import Transfer, get_recipe
from pipeline.recipes.comparisons import RecipeComparison
from storage.patches.schema import PatchSpec
from storage.registry.model_registry import ModelRegistry
from storage.tracking.mlflow_client import open_client
from tests.support.flow_workspace import flow_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with flow_workspace(tmp_path_factory.mktemp("analyze")) as folder:
        yield folder


def test_a_comparison_trains_equally_long_and_leaves_a_table_and_a_chart(workspace, monkeypatch):
    """With two patch specs on the few photographs of `sample`: little is left to hold out."""
    start = get_recipe("quickres-qf20")
    alone = replace(
        get_recipe("quickres-qf10"),
        name="quickres-rescaled-qf10",
        patches=PatchSpec(side=64, stride=48, qfs=(10,), degradation="rescaled"),
    )
    moved = replace(
        alone,
        name="quickres-rescaled-qf10-from-qf20",
        init_from=Transfer(recipe=start.name, layers=1),
    )
    pair = RecipeComparison(title="with and without", source="tests", recipes=(alone, moved))
    monkeypatch.setattr(flows.analyze, "get_comparison", lambda name: pair)
    found = cast(Analysis, analyze("arcnn-fig8-fast", steps=10))
    scratch, transferred = found.rows
    assert scratch["recipe"] == "quickres-rescaled-qf10"
    assert transferred["recipe"] == "quickres-rescaled-qf10-from-qf20"
    assert scratch["parameters"] == transferred["parameters"] == 65_864
    assert scratch["psnr"] != transferred["psnr"]
    with Image.open(found.chart) as chart:
        assert min(chart.size) > 500
    client = open_client(settings().mlflow_uri)
    experiment = client.get_experiment_by_name("analysis-arcnn-fig8-fast")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    for name in (scratch["recipe"], transferred["recipe"], start.name):
        run = runs.pop(str(name))
        assert run.info.status == "FINISHED"
        assert "validation_psnr" in run.data.metrics
    (parent,) = runs.values()
    files = [file.path for file in client.list_artifacts(parent.info.run_id, "charts")]
    assert [Path(file).name for file in files] == [Path(found.chart).name]
    assert ModelRegistry(settings().mlflow_uri).list_models() == {}


def test_a_recipe_that_diverges_is_a_row_and_not_the_end_of_the_comparison(workspace, monkeypatch):
    calm = replace(get_recipe("quickres-qf10"), validation_set="sample:test")
    stage = replace(calm.stages[0], optimizer="sgd", lr=1e30, warmup_steps=0)
    wild = replace(calm, name="quickres-wild-qf10", stages=(stage,))
    both = RecipeComparison(title="calm and wild", source="tests", recipes=(wild, calm))
    monkeypatch.setattr(flows.analyze, "get_comparison", lambda name: both)
    found = cast(Analysis, analyze("dcrn-loss", steps=20))
    diverged, trained = found.rows
    assert (diverged["recipe"], diverged["psnr"]) == ("quickres-wild-qf10", "failed")
    assert (trained["recipe"], trained["set"]) == ("quickres-qf10", "sample:test")
    assert isinstance(trained["psnr"], float)
    assert any("quickres-wild-qf10 failed" in n and "is not finite" in n for n in found.notes)
    assert Path(found.chart).is_file()
    stores = list(Path(settings().stores_root).glob("validation-sample-test-*"))
    assert len(stores) == 1, "both look at the photographs that are held out"
    alone = replace(both, recipes=(wild,))
    monkeypatch.setattr(flows.analyze, "get_comparison", lambda name: alone)
    with pytest.raises(StudyError, match=r"1 of 1 recipes failed: quickres-wild-qf10"):
        analyze("dcrn-loss", steps=20)
