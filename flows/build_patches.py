"""The build-patches flow: a dataset becomes a version of a patch store."""

from prefect import flow

from flows.parameters import Degradation, QualityFactors, Reference, ShardMib, Share, Side, Stride
from flows.planning.store_places import chosen_store
from flows.reporting.pages import link_artifact
from flows.runtime import open_tracker, ray_session, unwalked
from flows.settings import settings
from flows.steps.checks import keep_apart
from flows.steps.image_sets import scan_sources
from flows.steps.store_building import build_version, log_version, plan_version
from pipeline.datasets.leaks import evaluation_images
from pipeline.datasets.sources import hashes_by_name
from pipeline.patches.build_store import MAX_REJECTED_SHARE
from pipeline.patches.plan_store import PlannedBuild
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
    shard_mib: ShardMib | None = None,
    repair: bool = False,
    rehash: bool = False,
    max_rejected_share: Share = MAX_REJECTED_SHARE,
    allow_evaluation_images: bool = False,
    dry_run: bool = False,
) -> StoreVersion | PlannedBuild:
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
        shard_mib: about how many MiB of pixels a shard has (default: as the store has, a new one
            64, less if it is small); another number writes every shard of a store anew, once
        repair: read every shard again and rewrite the damaged ones
        rehash: read every image again, also where size and times are those of the last build
        max_rejected_share: share of unusable images above which the build fails
        allow_evaluation_images: whether images of an evaluation set (LIVE1, Classic5,
            sample:test) may be trained on
        dry_run: tell what would be built and write nothing of it; what images hash to is remembered
    """
    qfs = qf or (() if degradation == "none" else DEFAULT_QFS)
    spec = PatchSpec(side=side, stride=stride, qfs=tuple(qfs), degradation=degradation)
    uri = chosen_store(store, dataset, spec)
    shard_bytes = None if shard_mib is None else shard_mib << 20
    with ray_session(lazy=True):
        scanned = scan_sources(dataset, rehash=rehash)
        keep_apart(
            dataset,
            hashes_by_name(scanned),
            evaluation_images(settings().datasets_root),
            allowed=allow_evaluation_images,
        )
        found = unwalked(scanned)
        if dry_run:
            return plan_version(uri, spec, found, shard_bytes=shard_bytes, repair=repair)
        with open_tracker() as tracker, tracker.study("patches", run_name=dataset) as run:
            version = build_version(
                uri,
                spec,
                found,
                dataset,
                shard_bytes=shard_bytes,
                repair=repair,
                max_rejected_share=max_rejected_share,
            )
            log_version(run, version)
            link_artifact(run)
        return version
