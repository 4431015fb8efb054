"""The restore-batch flow and command, with a real Prefect, Ray, registry and object store."""

import pytest
from fsspec.config import conf
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.planning import shipped_networks
from flows.planning.restoring_networks import (
    ZOO,
    fetch,
    network_choices,
    networks_for,
)
from flows.restore_batch import restore_batch, table_of
from flows.settings import settings
from pipeline import cluster
from pipeline.networks.export import export_network
from pipeline.networks.weights import load_network
from pipeline.restoring.batch_file import check_networks, open_networks
from pipeline.restoring.batch_run import Batch
from pipeline.restoring.one_photograph import restore_jpeg
from storage import files
from storage.batches.manifest import read_results
from storage.registry.model_registry import ModelRegistry
from storage.tracking.tracker import Tracker
from tests.pipeline.patches.test_object_store import bucket  # noqa: F401 - a fixture
from tests.pipeline.restoring.test_ray_data import WEIGHTS, jpeg, photo_folder, restore_here
from tests.support.flow_workspace import flow_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, bucket):  # noqa: F811 - the fixture
    """A workspace whose Ray workers know the object store as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", conf["s3"]["endpoint_url"])
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        cluster.disconnect()  # the workers of a Ray that is there do not know the store
        with flow_workspace(tmp_path_factory.mktemp("workspace")) as folder:
            yield folder
        cluster.disconnect()


def sources(model=None):
    """The files of the networks that a batch without recorded ones takes."""
    return [fetch(choice) for choice in network_choices(model)]


def names_of(networks):
    return ", ".join(network.name for network in networks)


def table_artifact():
    """The table that the first run of the flow left."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["restored-batch"]))
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(artifact_filter=wanted)
        return str(artifact.data)


def test_the_flow_restores_with_what_ships_and_leaves_a_table_of_failures(workspace, tmp_path):
    photos = photo_folder(tmp_path / "in", 4)
    (photos / "garbage.jpg").write_bytes(b"no picture")
    made = restore_batch(str(photos), str(tmp_path / "out"), format="jpeg", actors=1)
    assert (made.restored, made.skipped, made.failed) == (4, 0, 1)
    assert "(shipped)" in made.networks
    table = table_artifact()
    assert "restored" in table
    assert "not a JPEG" in table
    assert "garbage.jpg" in table
    networks = open_networks(sources())
    alone = restore_jpeg((photos / "001.jpeg").read_bytes(), networks, kind="jpeg")
    assert (tmp_path / "out" / "001.jpeg").read_bytes() == alone.content
    again = restore_batch(str(photos), str(tmp_path / "out"), format="jpeg", actors=1)
    assert (again.restored, again.skipped, again.failed) == (0, 4, 1)
    assert again.rejected_before == 1
    assert "tried again only with --retry-failed" in str(table_of(again))
    assert "--retry-failed" not in str(table_of(made))


def test_a_bucket_is_restored_and_what_is_new_in_it_later(workspace, bucket, tmp_path):  # noqa: F811
    for seed in range(3):
        files.write_bytes(f"{bucket}/photos/day {seed}/a.jpg", jpeg(seed))
    files.write_bytes(f"{bucket}/photos/notes.txt", b"not a photograph")
    places = inputs, outputs = f"{bucket}/photos", f"{bucket}/restored"
    assert restore_batch(*places, model="quickres-qf10", actors=1).restored == 3
    (network,) = open_networks(sources("quickres-qf10"))
    alone = restore_jpeg(jpeg(1), [network], kind="png")
    assert files.read_bytes(f"{outputs}/day 1/a.png") == alone.content
    files.write_bytes(f"{bucket}/photos/day 1/a.jpg", jpeg(7))
    files.write_bytes(f"{bucket}/photos/new.jpg", jpeg(8))
    again = restore_here(
        Batch(inputs=inputs, outputs=outputs, networks=networks_for(outputs), fetch=fetch)
    )
    assert (again.restored, again.skipped) == (2, 2)
    rows = read_results(outputs)
    assert rows.keys() == {"day 0/a.jpg", "day 1/a.jpg", "day 2/a.jpg", "new.jpg"}
    assert {row.network for row in rows.values()} == {"quickres-qf10 (shipped)"}
    with pytest.raises(
        ValueError, match=r"quickres-qf10 \(shipped\), which is not used now; not quickres-blind"
    ):
        restore_batch(*places, model="quickres-blind")


def register(name, weights=WEIGHTS):
    """Register shipped weights as the champion of a model."""
    export = export_network(load_network(str(weights))[1])
    tracker = Tracker(settings().mlflow_uri, settings().artifact_root, keep_in=None)
    with tracker, tracker.study("registered", run_name=name) as run:
        run_id = run.run_id
    assert run_id is not None
    registry = ModelRegistry(settings().mlflow_uri)
    tags = {**export.facts.tags, "qfs": "10", "recipe": "quickres-qf10"}
    found = registry.register(
        export.module, name=name, input_example=export.input_example, tags=tags, run_id=run_id
    )
    registry._client.set_registered_model_alias(name, "champion", str(found.version))
    return found


def test_a_champion_travels_to_the_workers_and_a_promotion_changes_a_batch_only_when_asked(
    workspace, tmp_path, monkeypatch
):
    for path in ZOO.glob("quickres-*"):  # each network that ships would travel with every run
        (tmp_path / "zoo" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "zoo" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped_networks, "ZOO", tmp_path / "zoo")
    name = "qfactory-quickres-qf10"
    first = register(name)
    (source,) = sources(f"{name}@champion")
    check_networks([source])
    assert source.facts is not None
    assert source.network.name.startswith(first.uri)
    photos, restored = photo_folder(tmp_path / "in", 2), tmp_path / "out"
    inputs, outputs = str(photos), str(restored)
    begun = restore_batch(inputs, outputs, actors=1)
    assert (begun.restored, begun.skipped) == (2, 0)
    assert first.uri in begun.networks
    alone = restore_jpeg((photos / "001.jpeg").read_bytes(), open_networks([source]), kind="png")
    assert (restored / "001.png").read_bytes() == alone.content
    second = register(name, ZOO / "quickres-blind.safetensors")
    (photos / "new.jpg").write_bytes(jpeg(60))
    assert names_of(networks_for(outputs)) == begun.networks
    assert second.uri not in begun.networks
    newer = networks_for(outputs, new_networks=True)
    assert second.uri in names_of(newer)
    asked = restore_here(
        Batch(inputs=inputs, outputs=outputs, networks=newer, fetch=fetch, new_networks=True)
    )
    assert (asked.restored, asked.skipped) == (1, 2)
    used = {name: row.network for name, row in read_results(outputs).items()}
    assert used["001.jpeg"].startswith(first.uri)
    assert used["new.jpg"].startswith(second.uri)
    assert networks_for(outputs) == newer
    ModelRegistry(settings().mlflow_uri)._client.delete_model_version(name, str(second.version))
    with pytest.raises(ValueError, match=rf"{second.uri}.*is gone.*--new-networks"):
        networks_for(outputs)
    assert restore_batch(inputs, outputs, new_networks=True).skipped == 3
    assert second.uri not in names_of(networks_for(outputs))


def test_a_registry_that_does_not_answer_is_an_error_worth_a_retry(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 99)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QFACTORY_WORKSPACE", str(tmp_path))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        settings.cache_clear()
        with pytest.raises(ConnectionError, match="which networks are champions is not known"):
            networks_for(str(tmp_path / "out"))
        assert {n.name.partition(" ")[2] for n in network_choices()} == {"(shipped)"}
    settings.cache_clear()
