"""What flows decide before and after the work: parameters, order, stores, leaks, tables."""

from dataclasses import replace

import numpy as np
import pytest
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.build_patches import build_patches
from flows.evaluate import evaluate
from flows.planning.store_places import default_store
from flows.reporting.score_tables import score_rows
from flows.runtime import is_transient
from flows.steps.checks import competitors
from flows.steps.image_sets import default_sets
from flows.steps.store_building import spec_for
from flows.study import study
from flows.train import train
from pipeline.evaluation.protocol import compare
from pipeline.networks.code_fingerprint import (
    LOOP,
    SCORING,
    code_fingerprint,
    evaluation_fingerprint,
    sources_of,
    statements_of,
)
from pipeline.recipes import RECIPES, get_recipe
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.registry.registered_version import RegisteredVersion
from tests.support.store_images import build, image_folder
from tests.support.training_recipes import RECIPE

SPEC = PatchSpec(side=32, stride=10, qfs=(10,), degradation="patch")


@pytest.mark.parametrize(
    ("flow", "parameters", "told"),
    [
        (build_patches, {"side": 33}, "multiple of 8"),
        (build_patches, {"side": 232}, "224"),
        (build_patches, {"qf": [0]}, "greater than or equal to 1"),
        (build_patches, {"qf": []}, "at least 1"),
        (build_patches, {"qf": [10, 20, 10]}, "given twice: 10"),
        (build_patches, {"stride": 0}, "greater than or equal to 1"),
        (build_patches, {"degradation": "both"}, "'image', 'patch', 'rescaled' or 'none'"),
        (build_patches, {"dataset": "nix"}, "live1, classic5, div2k"),
        (train, {"recipe": "nix"}, "quickres-qf10"),
        (study, {"recipes": ["nix"]}, "quickres-qf10"),
        (study, {"recipes": ["nix-*"]}, "no recipe matches"),
        (train, {"recipe": "arcnn-qf20", "stop_after": "9 weeks"}, "90s, 9m, 1.5h or 7d"),
        (study, {"steps": 0}, "greater than or equal to 1"),
        (study, {"workers": 0}, "greater than or equal to 1"),
        (evaluate, {"dataset": ["live1:nix"]}, "choose all"),
        (evaluate, {"qf": [101]}, "less than or equal to 100"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(flow, parameters, told):
    with pytest.raises(ParameterTypeError, match=told):
        flow.validate_parameters(parameters)


def test_the_parameter_schema_offers_the_recipes():
    assert train.parameters.properties["recipe"]["enum"] == sorted(RECIPES)
    items = study.parameters.properties["recipes"]["items"]
    assert items["examples"] == sorted(RECIPES)


@pytest.mark.parametrize(
    ("flow", "parameters", "told"),
    [
        (study, {"recipes": ["nothing"]}, r"'nothing' is not one of \['arcnn-"),
        (study, {"dataset": "bsd500"}, r"'bsd500' is not one of \['sample', 'bsds500'"),
        (study, {"dataset": "bsds500:train+tset"}, "does not match"),
        (study, {"evaluate_on": ["live1", "clasic5"]}, "'clasic5' is not one of"),
        (build_patches, {"qf": [10, 10]}, "non-unique"),
        (build_patches, {"side": 33}, "33 is not a multiple of 8"),
        (train, {"recipe": "arcnn-qf20", "stop_after": "banana"}, "does not match '.{1,40}'"),
        (evaluate, {"degradation": "none"}, "is not one of"),
    ],
)
def test_prefects_server_refuses_a_bad_parameter_by_the_schema_alone(flow, parameters, told):
    with pytest.raises(ValidationError, match=told):
        validate(parameters, flow.parameters.model_dump(), raise_on_error=True)


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        *((study, {"recipes": [text]}) for text in ("arcnn-qf20", "arcnn-*", "*-qf[12]0")),
        *((study, {"dataset": text}) for text in ("bsds500", "live1:all", "folder:/a b")),
        (study, {"dataset": "bsds500:val+train", "evaluate_on": None}),
        *((train, {"recipe": "arcnn-qf20", "stop_after": text}) for text in ("90", "1.5h", None)),
    ],
)
def test_what_a_flow_takes_the_schema_allows(flow, parameters):
    validate(parameters, flow.parameters.model_dump(), raise_on_error=True)
    flow.validate_parameters(parameters)


def test_recipes_of_one_registered_model_are_told_and_one_may_have_its_own():
    first, second = get_recipe("arcnn-qf10"), get_recipe("arcnn-fast-qf10")
    assert first.model_name == second.model_name == "qfactory-arcnn-qf10"
    assert competitors(second, [first, second], []) == ["arcnn-qf10"]
    version = RegisteredVersion(
        name=first.model_name, version=1, tags={"recipe": "arcnn-qf10-from-qf20"}, run_id=None
    )
    assert competitors(first, [first], [version]) == ["arcnn-qf10-from-qf20"]
    own = replace(second, registered_as="fast-arcnn")
    assert own.model_name == "fast-arcnn"
    assert own.fingerprint == second.fingerprint, "its weights are the same"
    assert competitors(own, [first, own], []) == []
    with pytest.raises(ValueError, match="registered_as 'a/b'"):
        replace(second, registered_as="a/b")


def test_every_dataset_and_spec_get_a_store_of_their_own():
    other = PatchSpec(side=40, stride=10, qfs=(10,), degradation="patch")
    uris = {
        default_store(dataset, spec)
        for dataset in ("sample", "bsds500", "bsds500:val", "folder:/a/x", "folder:/b/x")
        for spec in (SPEC, other)
    }
    assert len(uris) == 10


def test_one_new_store_holds_the_quality_factors_of_all_its_recipes():
    recipe = get_recipe("quickres-qf10")
    other = replace(recipe, patches=replace(recipe.patches, qfs=(10, 50)))
    assert spec_for("nowhere", [recipe, other]).qfs == (10, 20, 30, 40, 50)


def test_one_store_for_recipes_of_different_patches_is_refused():
    recipes = [get_recipe("arcnn-qf20"), get_recipe("quickres-qf10")]
    with pytest.raises(ValueError, match="2 different patch specs"):
        spec_for("nowhere", recipes)


def test_a_store_that_is_there_serves_recipes_of_some_of_its_quality_factors(tmp_path):
    spec = PatchSpec(side=32, stride=16, qfs=(10, 20), degradation="patch")
    store = build(image_folder(tmp_path / "photos", 2), tmp_path / "store", spec=spec).version
    recipe = replace(RECIPE, patches=replace(spec, qfs=(10,)))
    assert spec_for(store.uri, [recipe]) == spec
    with pytest.raises(StoreError, match=r"no QF \[30\]"):
        spec_for(store.uri, [replace(recipe, patches=replace(spec, qfs=(30,)), qfs=(30,))])


def test_the_code_fingerprint_covers_what_decides_the_weights_and_no_other_network():
    modules = sources_of("models.arcnn", *LOOP)
    assert {"models.arcnn", "models.losses", "models.transfer", "pipeline.loading.loader"} <= set(
        modules
    )
    assert {
        "pipeline.loading.epoch_plan",
        "pipeline.training.optimization",
        "pipeline.networks.weights",
    } <= set(modules)
    assert {"pipeline.training.loop", "pipeline.training.start"} <= set(modules)
    assert "pipeline.recipes.base" in modules
    assert not {"models.quickres", "pipeline.recipes.arcnn", "pipeline.evaluation.protocol"} & set(
        modules
    )
    assert code_fingerprint("arcnn") != code_fingerprint("quickres")


def test_code_that_moved_has_the_fingerprint_that_it_had(tmp_path):
    def said(text):
        (tmp_path / "module.py").write_text(text)
        return sorted(statements_of(tmp_path / "module.py"))

    one = "from models.old import f\nimport torch\nSIDE = 8\ndef g(x):\n    return f(x) + SIDE\n"
    moved = (
        "'Moved.'\nfrom pipeline.new.place import f\nimport torch\n"
        "def g(x):\n    'Say.'\n    return f(x) + SIDE\n\nSIDE = 8  # pixels\n"
    )
    assert said(one) == said(moved)
    for old, new in (("= 8", "= 16"), ("f(x)", "f(-x)"), ("import torch", "import numpy")):
        assert said(one) != said(one.replace(old, new))


def test_the_evaluation_fingerprint_covers_what_decides_scores():
    modules = sources_of(*SCORING)
    assert {
        "pipeline.images.metrics",
        "pipeline.images.jpeg",
        "pipeline.images.degrade",
        "pipeline.networks.restorer",
    } <= {*modules}
    assert "pipeline.training.loop" not in modules
    assert evaluation_fingerprint() not in (code_fingerprint("arcnn"), code_fingerprint("quickres"))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionError("the store does not answer"), True),
        (TimeoutError("too slow"), True),
        (OSError(5, "input/output error"), True),
        (FileNotFoundError("no such image"), False),
        (PermissionError("not yours"), False),
        (ValueError("a bad spec"), False),
    ],
)
def test_a_task_is_tried_again_only_where_the_error_may_pass(error, again):
    assert is_transient(None, None, Failed(data=error)) == again


def test_a_study_scores_on_held_out_images_by_default():
    assert default_sets("sample") == ("sample:test",)
    assert default_sets("bsds500") == ("live1", "classic5")


def test_the_table_shows_jpeg_the_network_and_the_gain():
    flat = np.full((16, 16), 100, np.uint8)
    noisy = np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)
    comparison = compare(lambda luma, table: luma, [("a", flat), ("b", noisy)], "mine", [10])
    jpeg, network, gain = score_rows("same", comparison)
    assert [row[""] for row in (jpeg, network, gain)] == ["JPEG", "same", "gain"]
    assert jpeg["psnr"] == network["psnr"]
    assert gain["psnr"] == 0
