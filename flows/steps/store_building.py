"""Patch stores brought up to date: one, those of recipes, those that they validate on."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from prefect.artifacts import create_table_artifact

from flows.planning.store_places import default_store
from flows.runtime import one_at_a_time, progress, retried_task, say, unwalked
from flows.settings import git_commit, settings
from flows.steps.image_sets import Sets
from flows.steps.recording import tell_made
from pipeline.cluster import ray_map
from pipeline.datasets.sources import ScannedImage
from pipeline.patches.build_store import (
    MAX_REJECTED_SHARE,
    BuildProgress,
    build_store,
    told_rejects,
)
from pipeline.patches.plan_store import BuildPlan, PlannedBuild, in_numbers, plan_build, told_cuts
from pipeline.patches.store_size import overlap_warning
from pipeline.recipes import Recipe
from pipeline.timings import timed
from pipeline.training.start import check_store
from storage import files
from storage.patches import upkeep
from storage.patches.schema import PatchSpec
from storage.patches.versions import StoreVersion, open_store
from storage.tracking.tracked_run import TrackedRun


def build_versions(
    recipes: Sequence[Recipe],
    dataset: str,
    scanned: tuple[ScannedImage, ...],
    store: str | None,
) -> dict[str, StoreVersion]:
    """Bring the store of each recipe up to date and return its version, by the recipe's name.

    Recipes of one patch spec share a store; with `store`, all do.
    """
    named = settings().store_uri(store) if store is not None else None
    shared = spec_for(named, recipes) if named is not None else None
    specs = {recipe.name: shared or recipe.patches for recipe in recipes}
    built = {
        spec: build_version(named or default_store(dataset, spec), spec, unwalked(scanned), dataset)
        for spec in dict.fromkeys(specs.values())
    }
    return {name: built[spec] for name, spec in specs.items()}


def spec_for(store: str, recipes: Sequence[Recipe]) -> PatchSpec:
    """Return the patch spec of a store that is to serve all the recipes.

    A store that is there keeps its own; a new one gets every quality factor of the recipes. Raises
    StoreError where the store does not fit a recipe, and ValueError where no store fits all.
    """
    if files.exists(files.join(store, "CURRENT")):
        version = open_store(store)
        for recipe in recipes:
            check_store(recipe, version)
        return version.spec
    qfs = tuple(sorted({qf for recipe in recipes for qf in recipe.patches.qfs}))
    specs = {replace(r.patches, qfs=qfs if r.patches.qfs else ()) for r in recipes}
    if len(specs) > 1:
        raise ValueError(
            f"store {store}: these recipes need {len(specs)} different patch specs; leave --store "
            "away and each gets a store of its own"
        )
    return specs.pop()


def build_validation(recipes: Sequence[Recipe], sets: Sets) -> dict[str, StoreVersion]:
    """Cut the validation sets; return the store version that a recipe looks at, by its name."""
    wanted = {r.name: (r.looks_at, r.validation_patches) for r in recipes if r.looks_at}
    built = {
        (reference, spec): build_version(
            default_store(f"validation-{reference}", spec),
            spec,
            unwalked(sets[reference]),
            reference,
        )
        for reference, spec in dict.fromkeys(wanted.values())
    }
    return {name: built[key] for name, key in wanted.items()}


@retried_task("build shards and publish the version")
@timed("build the store")
def build_version(
    uri: str,
    spec: PatchSpec,
    scanned: tuple[ScannedImage, ...],
    dataset: str,
    *,
    shard_bytes: int | None = None,
    repair: bool = False,
    max_rejected_share: float = MAX_REJECTED_SHARE,
) -> StoreVersion:
    """Bring a store up to date and return the version that is now current.

    Another run that builds the same store is waited for.
    """
    is_new = not files.exists(files.join(uri, "CURRENT"))
    if is_new and (warning := overlap_warning(spec, scanned)):
        say(f"WARNING: {warning}")
    with _alone_in(uri), progress(f"patches of {dataset}") as update:

        def shown(done: BuildProgress) -> None:
            text = f"{done.shards_done}/{done.shards_total} shards, {done.rows:,} patches"
            update(done.shards_done, done.shards_total, text)

        report = build_store(
            uri,
            spec,
            scanned,
            dataset,
            shard_bytes=shard_bytes,
            parallel=ray_map,
            repair=repair,
            max_rejected_share=max_rejected_share,
            on_plan=_tell_plan,
            on_progress=shown,
        )
    version = report.version
    if repair:
        upkeep.record_verification(version, 0)
    if report.built == 0 and not report.published:
        say(
            f"store reused: {version.name} is up to date by the sizes of its shards, "
            f"{version.rows:,} patches; {upkeep.when_verified(version)}"
        )
        tell_damage(version)
    else:
        say(
            f"store built: {version.name}, {version.rows:,} patches of {version.images} images, "
            f"{version.bytes / 1e6:.1f} MB; {report.built} shards written, {report.reused} reused"
        )
        tell_made(
            uri, [f"dataset://{dataset}"], version=version.number, patches=version.rows,
            images=version.images, dataset_fingerprint=version.dataset_fingerprint,
        )  # fmt: skip
    describe_version(version)
    return version


@retried_task("plan shards")
def plan_version(
    uri: str,
    spec: PatchSpec,
    scanned: tuple[ScannedImage, ...],
    *,
    shard_bytes: int | None = None,
    repair: bool = False,
) -> PlannedBuild:
    """Return, and say, what `build_version` would do; nothing is written."""
    plan = plan_build(uri, spec, scanned, shard_bytes=shard_bytes, parallel=ray_map, repair=repair)
    _tell_plan(plan)
    return in_numbers(plan, uri, scanned)


def _tell_plan(plan: BuildPlan) -> None:
    if told := told_cuts(plan):
        say(told)


@contextmanager
def _alone_in(uri: str) -> Iterator[None]:
    """Hold the lease of a store's build; a store that cannot be written may be up to date."""
    with ExitStack() as stack:
        with suppress(files.StoreError, PermissionError):
            stack.enter_context(one_at_a_time(f"building {uri}", files.join(uri, "lease")))
        yield


def tell_damage(version: StoreVersion) -> None:
    """Warn if the last verification of a version found damage that nobody repaired since."""
    found = upkeep.last_verification(version)
    if found is not None and found.damaged:
        say(f"WARNING: damaged shards are in use; repair: {version.repair_command}")


def describe_version(version: StoreVersion) -> None:
    """Leave a table of a store version, and one of its rejects, as Prefect artifacts."""
    facts = {
        "store": version.uri,
        "version": version.number,
        "dataset": version.dataset,
        "dataset fingerprint": version.dataset_fingerprint,
        "side, stride": f"{version.spec.side}, {version.spec.stride} pixels",
        "quality factors": ", ".join(map(str, version.spec.qfs)) or "originals alone",
        "degradation": version.spec.degradation,
        "patches": f"{version.rows:,}",
        "images": version.images,
        "rejected": len(version.rejected),
        "shards": len(version.shards),
        "size": f"{version.bytes / 1e6:.1f} MB",
    }
    table = [{"what": name, "value": str(value)} for name, value in facts.items()]
    create_table_artifact(table, key="patch-store", description=f"Patch store {version.name}")
    if version.rejected:
        rows = [{"image": r.image, "reason": r.reason} for r in version.rejected]
        create_table_artifact(rows, key="rejected-images", description=version.name)
        rest = f"the rest: qfactory patches inspect {version.uri}"
        told = told_rejects(version.rejected, rest)
        say(f"{len(version.rejected)} images rejected:{told}")


def log_version(run: TrackedRun, version: StoreVersion) -> None:
    """Record in MLflow what a build made: the dataset, the spec, and how much came out."""
    run.log_params({"store_version": version.name, "spec": version.spec.to_json()})
    run.log_tags({"git_commit": git_commit()})
    run.log_metrics(
        {
            "patches": version.rows,
            "images": version.images,
            "rejected": len(version.rejected),
            "bytes": version.bytes,
        }
    )
    run.log_dataset(version.dataset, fingerprint=version.dataset_fingerprint, source=version.name)
