"""The images of the sets that are scored on, out of this process's folder of datasets."""

from collections.abc import Collection, Iterator

from flows.console import Update, counted
from flows.settings import settings
from pipeline.datasets.references import list_images
from pipeline.evaluation.protocol import NamedImage, load_images


def images_of(
    dataset: str,
    update: Update = lambda done, total, text="", /: None,
    *,
    first: int | None = None,
    names: Collection[str] | None = None,
) -> Iterator[NamedImage]:
    """Yield a set's images, one at a time, and tell `update` how many of them are done.

    All of them, or the `first` so many, or those of these `names`.
    """
    sources = list_images(dataset, root=settings().datasets_root, purpose="evaluate")[:first]
    chosen = [source for source in sources if names is None or source.name in names]
    return counted(load_images(chosen), len(chosen), update)
