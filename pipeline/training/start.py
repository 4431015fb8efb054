"""Before the first step: does the store fit, whose checkpoint is this, where do weights begin."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from models import build_model, transfer_layers
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.devices import Precision, choose_precision
from pipeline.networks.weights import load_weights
from pipeline.recipes.base import Recipe
from pipeline.recipes.shared import first_cycle
from pipeline.training.job import TrainingJob, World
from storage import files
from storage.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from storage.files import StoreError
from storage.patches.shard_reader import read_quantization_tables
from storage.patches.versions import StoreVersion, build_command, open_store


def initial_network(job: TrainingJob) -> nn.Module:
    """Build the network from the recipe's seed, and take over the layers that it starts from."""
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.architecture, recipe.options)
    if recipe.init_from is not None and job.initial_weights is not None:
        origin, tensors = load_weights(job.initial_weights)
        if first_cycle(origin.recipe) not in (recipe.init_from.recipe, first_cycle(recipe.name)):
            raise ValueError(
                f"recipe {recipe.name} starts from {recipe.init_from.recipe!r}, but "
                f"{job.initial_weights} is of {origin.recipe!r}"
            )
        try:
            transfer_layers(network, tensors, recipe.init_from.layers)
        except ValueError as error:
            raise ValueError(
                f"recipe {recipe.name} ({recipe.architecture}) cannot start from "
                f"{job.initial_weights}, {origin.architecture} of recipe {origin.recipe}: {error}"
            ) from error
    return network


def normalises_batch(recipe: Recipe) -> bool:
    """Tell whether what a patch gives in training depends on the others of its batch."""
    network = build_model(recipe.architecture, recipe.options)
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def agreed_checkpoint(folder: str, world: World) -> Checkpoint | None:
    """Return the checkpoint that rank 0 resumes from, on every rank."""
    if world.size == 1:
        return load_checkpoint(folder)
    found, error = None, None
    try:
        found = load_checkpoint(folder) if world.rank == 0 else None
    except CheckpointError as damaged:
        error = damaged
    step = torch.tensor(-2 if error else found.step if found else -1, device=world.device)
    dist.broadcast(step, 0)
    if int(step) == -2:
        raise error or CheckpointError(f"{folder}: the first worker cannot use its checkpoints")
    if world.rank and step >= 0:
        return load_checkpoint(folder, int(step))
    return found


def agreed_precision(job: TrainingJob, world: World, begun_in: Precision | None) -> Precision:
    """Return what all ranks compute in: bfloat16 only if every one of them has it.

    `begun_in` is what the training began in, None for one that begins now. Raises ValueError on
    every rank when one of them lacks what the job asks for.
    """
    refused = None
    try:
        chosen: Precision = choose_precision(job.precision, world.device, begun_in)
    except ValueError as error:
        chosen, refused = "float32", error
    if world.size > 1:
        rank = torch.tensor(_AGREEMENT.index(None if refused else chosen), device=world.device)
        dist.all_reduce(rank, dist.ReduceOp.MIN)
        agreed = _AGREEMENT[int(rank)]
        if agreed is None and refused is None:
            refused = ValueError(f"precision {job.precision}: another worker cannot compute in it")
        chosen = agreed or chosen
    if refused:
        raise refused
    return chosen


def fitting_version(
    recipe: Recipe, uri: str, dataset: str = "bsds500", *, number: int | None = None
) -> StoreVersion:
    """Return a version of a store, the current one unless a number is given.

    Raises StoreError if it is not there or does not fit the recipe, with the command that builds
    one from `dataset` that does.
    """
    if not files.exists(files.join(uri, "CURRENT")):
        raise StoreError(
            f"{uri}: there is no patch store; {build_command(uri, recipe.patches, dataset)}"
        )
    store = open_store(uri, number)
    check_store(recipe, store)
    return store


def check_store(recipe: Recipe, store: StoreVersion) -> None:
    """Raise StoreError unless the store holds the recipe's patches at its quality factors."""
    ours, theirs = recipe.patches, store.spec
    differing = [
        f"{name} {getattr(theirs, name)} instead of {getattr(ours, name)}"
        for name in ("side", "stride", "degradation", "luma")
        if getattr(theirs, name) != getattr(ours, name)
    ]
    if missing := sorted(set(ours.qfs and recipe.qfs) - set(theirs.qfs)):
        differing.append(f"no QF {missing}, only {list(theirs.qfs)}")
    if not differing and ours.qfs:
        known = read_quantization_tables(store)
        differing = [f"no quantisation table of QF {qf}" for qf in recipe.qfs if qf not in known]
    if differing:
        fitting = build_command(f"{store.uri}-{ours.fingerprint[:8]}", ours, store.dataset)
        raise StoreError(
            f"{store.name} does not fit recipe {recipe.name}: {'; '.join(differing)}. Build one "
            f"that does: {fitting}"
        )


def job_identity(job: TrainingJob, store: StoreVersion) -> dict[str, str]:
    """Return what decides the weights; a checkpoint of another identity is not resumed."""
    start = files.read_bytes(job.initial_weights) if job.initial_weights else b""
    return {
        "recipe": f"{job.recipe.name} ({job.recipe.fingerprint[:12]})",
        "store": store.content[:12],
        "initial weights": hashlib.sha256(start).hexdigest()[:12] if start else "none",
    }


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any], folder: str) -> None:
    """Raise CheckpointError that names both unless the checkpoint is of the same job."""
    found = checkpoint.state.get("identity", {})
    if found != identity:
        raise CheckpointError(
            f"{folder} holds checkpoints of another training: {_told(found)}; this one is "
            f"{_told(identity)}. Choose another folder, or delete that one"
        )


_AGREEMENT: tuple[Precision | None, ...] = (None, "float32", "bfloat16")


def _told(identity: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.items()) or "unknown"


def training_tags(
    recipe: Recipe, version: StoreVersion, initial_weights: str | None
) -> dict[str, str]:
    """Return what decides a training's weights: recipe, patches, code, and where it starts from."""
    start = "none" if initial_weights is None else files.sha256_of(initial_weights)
    return {
        "recipe_fingerprint": recipe.fingerprint,
        "store_content": version.content,
        "code_fingerprint": code_fingerprint(recipe.architecture),
        "initial_weights": start,
    }


def training_name(recipe: Recipe, version: StoreVersion, initial_weights: str | None) -> str:
    """Return a name that is the same for the same training, and for no other."""
    tags = training_tags(recipe, version, initial_weights)
    digest = hashlib.sha256(" ".join(tags[name] for name in sorted(tags)).encode())
    return f"{recipe.name}-{digest.hexdigest()[:12]}"
