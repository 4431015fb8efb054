"""The leak rule: no image of an evaluation or validation set is trained on.

Files are compared by their SHA-256: a re-encoded copy is not found.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType

from pipeline.datasets.catalogue import DATASETS, SCIKIT_IMAGE
from pipeline.datasets.references import DatasetError, list_images, pinned_hashes
from pipeline.datasets.sources import scan_images


def refuse_evaluation_images(
    dataset: str, hashes: Mapping[str, str], evaluated: Mapping[str, str], *, allowed: bool = False
) -> str | None:
    """Raise ValueError when images of `dataset` that are to be trained on are evaluated.

    `hashes` is the training images' name -> SHA-256, `evaluated` what `evaluation_images` returns.
    Where it is `allowed`, return what there is to say about it; None if there is no such image.
    """
    leaked = sorted((name, evaluated[h]) for name, h in hashes.items() if h in evaluated)
    if not leaked:
        return None
    image, evaluated_as = leaked[0]
    told = (
        f"{dataset}: {len(leaked)} images belong to an evaluation set, such as {image}, which is "
        f"{evaluated_as}"
    )
    if not allowed:
        raise ValueError(
            f"{told}. Scores on them would mean nothing: remove them, evaluate on another set, or "
            "pass --allow-evaluation-images"
        )
    return f"{told}; allowed by request"


def refuse_shared_images(
    validation_set: str, validation: Mapping[str, str], training: Mapping[str, str]
) -> None:
    """Raise ValueError when images of a validation set are trained on too.

    Both are image name -> SHA-256 of its file.
    """
    trained = {sha256: name for name, sha256 in training.items() if sha256}
    shared = [(name, trained[h]) for name, h in validation.items() if h in trained]
    if shared:
        name, as_trained = shared[0]
        raise ValueError(
            f"validation set {validation_set}: {len(shared)} of its images are trained on too, "
            f"such as {name}, which is {as_trained}. Train on images without them"
        )


def evaluation_images(root: str | Path | None, also: Sequence[str] = ()) -> dict[str, str]:
    """Return SHA-256 -> "live1/monarch.png" of every image that is evaluated.

    These are the sets with the role `evaluation`, the held-out photographs of `sample`, and `also`,
    references of further sets. `root` is the path or URI of the datasets' folder. Raises
    DatasetError if one of `also` is not there.
    """
    pinned = _pinned_evaluation_images()
    told = {name.partition("/")[0] for name in pinned.values()}
    found = {}
    for dataset in DATASETS.values():
        if dataset.role == "evaluation" and dataset.name not in told:
            with suppress(DatasetError):  # what is not here is not trained on either
                found |= _images_of(dataset.name, root)
    for reference in also:
        found |= _images_of(reference, root)
    return {**found, **pinned}


def _images_of(reference: str, root: str | Path | None) -> dict[str, str]:
    scanned = scan_images(list_images(reference, root=root, purpose="evaluate"))
    return {image.sha256: f"{reference}/{image.name}" for image in scanned if image.sha256}


@cache
def _pinned_evaluation_images() -> Mapping[str, str]:
    folders = {
        folder: dataset.name
        for dataset in DATASETS.values()
        for folder in dataset.urls
        if dataset.role == "evaluation"
    }
    held_out = {f"{SCIKIT_IMAGE}/{name}" for name in DATASETS["sample"].members["test"]}
    found = {}
    for path, sha256 in pinned_hashes().items():
        folder, _, name = path.rpartition("/")
        if folder in folders:
            found[sha256] = f"{folders[folder]}/{name}"
        elif path in held_out:
            found[sha256] = f"sample:test/{name}"
    return MappingProxyType(found)
