"""Where the patch store of a dataset and a spec lies, and what is remembered of its images."""

import hashlib
import re

from flows.settings import settings
from pipeline.datasets.references import FOLDER
from storage import files
from storage.patches.schema import PatchSpec

KNOWN = ".known"


def chosen_store(store: str | None, dataset: str, spec: PatchSpec) -> str:
    """Return the URI of the store that a user names, or of the one that is meant by default."""
    return default_store(dataset, spec) if store is None else settings().store_uri(store)


def default_store(dataset: str, spec: PatchSpec) -> str:
    """Return the URI of the store that a dataset and a spec get when none is named."""
    what = f"{_short_name(dataset)}-{spec.side}px-stride{spec.stride}-{spec.degradation}"
    return files.join(settings().stores_root, f"{what}-{spec.fingerprint[:8]}")


def known_images(dataset: str) -> str:
    """Return the URI of the table that remembers what the images of a dataset hash to.

    It lies beside the stores of the dataset, which share it.
    """
    return files.join(settings().stores_root, KNOWN, f"{_short_name(dataset)}.parquet")


def _short_name(dataset: str) -> str:
    if not dataset.startswith(FOLDER):
        return re.sub(r"\W+", "-", dataset)
    folder = dataset.removeprefix(FOLDER).rstrip("/")
    digest = hashlib.sha256(folder.encode()).hexdigest()[:6]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', folder.rsplit('/', 1)[-1])}-{digest}"
