"""The build-patches flow: a dataset becomes a version of a patch store."""

from prefect import flow

from flows.parameters import Degradation, QualityFactors, Reference, Share, Side, Stride
from flows.planning.store_places import chosen_store
from flows.reporting.pages import link_artifact
from flows.runtime import open_tracker, ray_session
from flows.settings import settings
from flows.steps.checks import keep_apart
from flows.steps.image_sets import scan_sources
from flows.steps.store_building import build_version, log_version
from pipeline.datasets.leaks import evaluation_images
from pipeline.datasets.sources import hashes_by_name
from pipeline.patches.build_store import MAX_REJECTED_SHARE
from storage.patches.schema import PatchSpec
from storage.patches.versions import StoreVersion

DEFAULT_QFS = (10, 20, 30, 40)


@flow(name="build-patches", flow_run_name="{dataset}")
def build_patches(
    dataset: Reference = "sample",
    side: Side = 64,
    stride: Stride = 32,
    qf: QualityFactors | None = None,
    degradation: Degradation = "image",
    store: str | None = None,
    repair: bool = False,
    rehash: bool = False,
    max_rejected_share: Share = MAX_REJECTED_SHARE,
    allow_evaluation_images: bool = False,
) -> StoreVersion:
    """Cut a dataset into a patch store; only what changed is built.

    Args:
        dataset: what to cut, such as `bsds500`, `bsds500:train` or `folder:PATH`
        side: height and width of a patch in pixels, a multiple of 8 from 32 to 224
        stride: distance between patches in pixels, 1 or more
        qf: JPEG quality factors, 1 to 100, a column each (default: 10 20 30 40)
        degradation: `image` compresses the image and cuts it, `patch` the other way round,
            `rescaled` makes the image smaller first, `none` keeps originals alone, for recipes that
            compress what they load
        store: name, path or URI of the store; by default it is named after the dataset and the spec
        repair: read every shard again and rewrite the damaged ones
        rehash: read every image again, also where size and times are those of the last build
        max_rejected_share: share of unusable images above which the build fails
        allow_evaluation_images: whether images of an evaluation set (LIVE1, Classic5,
            sample:test) may be trained on
    """
    qfs = qf or (() if degradation == "none" else DEFAULT_QFS)
    spec = PatchSpec(side=side, stride=stride, qfs=tuple(qfs), degradation=degradation)
    uri = chosen_store(store, dataset, spec)
    tracker = open_tracker()
    with ray_session(lazy=True), tracker, tracker.study("patches", run_name=dataset) as run:
        scanned = scan_sources(dataset, rehash=rehash)
        keep_apart(
            dataset,
            hashes_by_name(scanned),
            evaluation_images(settings().datasets_root),
            allowed=allow_evaluation_images,
        )
        version = build_version(
            uri, spec, scanned, dataset, repair=repair, max_rejected_share=max_rejected_share
        )
        log_version(run, version)
        link_artifact(run)
    return version
